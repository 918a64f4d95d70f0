"""The evaluation of the complete data set: batching, prediction, chunks, resuming, and metrics."""
