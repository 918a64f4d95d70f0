"""Command lines, terminal output, hints, start-up, steps and their processes, the run lock."""
