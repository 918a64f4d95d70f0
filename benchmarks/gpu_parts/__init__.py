"""The parts of the check for a GPU machine, and the rows that are read from what each part left.

Everything here imports the standard library alone, as ``gpu_check.py`` does.
"""
