"""Data sets: source files, columns, labels, the prepared CSV file and its validation."""
