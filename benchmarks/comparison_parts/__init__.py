"""Parts of ``benchmarks/comparison_truth.py``: simulated sides, and real ones."""
