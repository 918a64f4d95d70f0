"""The embedded default: a corpus, a small model trained on it, and the files of both."""
