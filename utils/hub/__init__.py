"""The Hugging Face hub: what a name resolves to, what is cached, and its errors as messages."""
