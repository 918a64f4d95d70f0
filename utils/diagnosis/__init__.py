"""From a profiled run to a bottleneck with its evidence, and to suggestions with their savings."""
