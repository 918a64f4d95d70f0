"""Where texts come from, and what makes them fit to be measured."""
