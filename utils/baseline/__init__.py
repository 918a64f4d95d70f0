"""Step 02's results: the sweep measured, ``baseline_metrics.json`` assembled and written."""
