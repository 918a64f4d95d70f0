"""The evaluation of the whole data set: batching, prediction, chunks, resuming, and metrics."""
