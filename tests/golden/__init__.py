"""Golden tests: what users and later weeks rely on, as it was when the code was reorganised."""
