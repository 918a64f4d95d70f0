"""A smaller, seeded version of the benchmark of the comparison's truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from benchmarks import comparison_truth
from benchmarks.common import MISS, PASS, UNDECIDED, Row
from benchmarks.comparison_parts.simulation import Situation, simulate


@pytest.mark.parametrize(
    ("part", "num_pairs", "num_bars"),
    [
        (comparison_truth.equal_sides, 200, 11),
        (comparison_truth.true_change, 200, 2),
        (comparison_truth.equivalent_sides, 50, 3),
        (comparison_truth.quality, 200, 5),
    ],
)
def test_every_bar_is_kept(
    part: Callable[[int], Iterator[Row]], num_pairs: int, num_bars: int
) -> None:
    rows = list(part(num_pairs))
    assert [row.check for row in rows if row.status == MISS] == []
    assert len([row for row in rows if row.status in (PASS, UNDECIDED)]) == num_bars


def test_a_spread_that_is_set_too_low_makes_equal_sides_different() -> None:
    shares = []
    for known_spread in (0.12, 0.06, 0.03):
        situation = Situation(
            num_baseline=1, num_candidate=1, spread=0.12, known_spread=known_spread
        )
        shares.append(simulate(situation, num_pairs=100, seed=0).false_share)
    assert shares[0] < 0.1
    assert shares == sorted(shares)
    assert shares[-1] > 0.8


def test_an_unknown_spread_never_makes_equal_sides_different() -> None:
    situation = Situation(num_baseline=1, num_candidate=1, spread=0.12)
    assert simulate(situation, num_pairs=100, seed=0).false_share == 0


def test_the_rows_are_a_benchmark_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(comparison_truth, "NUM_QUICK_PAIRS", 20)
    comparison_truth.main(["--quick"])
    table = capsys.readouterr().out
    assert "equal sides, spread 12%, 1 a side: called different" in table
    assert "process_spread 6%: called different" in table
    assert "a true change of 10%, spread 3%, 3 a side: found at a batch size" in table
