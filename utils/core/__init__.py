"""Errors, files and fingerprints: what every other package needs and what knows none of them."""
