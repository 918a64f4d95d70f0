"""Command lines, terminal output, hints, steps and their processes, and the lock of a results folder."""
