"""Memory does not grow with the rows: real processes, a model that costs next to nothing."""

from __future__ import annotations

import pytest

from benchmarks.evaluation_scale import measure


@pytest.mark.slow
def test_a_million_rows_take_the_memory_of_ten_thousand() -> None:
    small, large = measure(10_000), measure(1_000_000)
    assert (small["rows"], large["rows"]) == (10_000, 1_000_000)
    assert large["peak_bytes"] < 1.1 * small["peak_bytes"]
