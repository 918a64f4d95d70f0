"""Predictions and classification metrics of an entire data set."""
