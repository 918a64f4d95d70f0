"""One pass from a model name to a loaded, checked classifier."""
