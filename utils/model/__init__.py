"""From a model's name to a model that is ready to classify: location, label names, tokenizer, weights, checks."""
