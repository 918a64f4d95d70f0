"""The project's figures against known answers, other tools and themselves; one command each."""
