"""Two sets of results compared: loading, compatibility, statistics, quality, diagnosis, gates."""
