"""Command lines, terminal output, hints, steps and their processes, the lock of a results folder."""
