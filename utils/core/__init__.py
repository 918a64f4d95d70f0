"""Errors, files, fingerprints and rounding: what all other packages need and what needs none."""
