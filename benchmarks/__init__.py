"""The project's results compared with known values, other tools and each other."""
