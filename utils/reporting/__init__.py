"""Results files in; text, pictures and the page out. Never imports torch."""
