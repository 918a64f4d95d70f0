"""Predictions and quality figures over a whole data set."""
