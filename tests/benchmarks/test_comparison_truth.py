"""A smaller, seeded version of the benchmark of the comparison's truth."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module

from benchmarks import comparison_truth
from benchmarks.common import MISS, PASS, UNDECIDED, Row
from benchmarks.comparison_parts.planted_step import SlowDown
from benchmarks.comparison_parts.real_sides import divide_in_turn, pairs_of
from benchmarks.comparison_parts.simulation import Situation, simulate


@pytest.mark.parametrize(
    ("part", "num_pairs", "num_bars"),
    [
        (comparison_truth.equal_sides, 150, 11),
        (comparison_truth.true_change, 150, 2),
        (comparison_truth.equivalent_sides, 30, 3),
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
    assert "not here: they take minutes; run without --quick" in table


def test_sides_take_turns() -> None:
    sides = divide_in_turn([Path(name) for name in "012345"])
    assert [folder.name for folder in sides.baseline] == ["0", "3", "4"]
    assert [folder.name for folder in sides.candidate] == ["1", "2", "5"]


@pytest.mark.parametrize("num_processes", [1, 3, 6])
def test_twelve_sweeps_make_six_pairs_of_different_sweeps(num_processes: int) -> None:
    folders = [Path(str(number)) for number in range(12)]
    pairs = list(pairs_of(folders, num_processes))
    assert len(pairs) == 6
    for sides in pairs:
        assert len(sides.baseline) == len(sides.candidate) == num_processes
        assert len({*sides.baseline, *sides.candidate}) == 2 * num_processes
    uses = Counter(folder for sides in pairs for folder in (*sides.baseline, *sides.candidate))
    assert set(uses.values()) == {num_processes}


class Sleeping(nn.Module):
    """Takes a known time."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return inputs


def test_a_planted_slow_down_takes_its_share_of_the_forward_and_changes_no_result() -> None:
    model = nn.Sequential(Sleeping(), Sleeping(), nn.Identity())
    slow_down = SlowDown("2", share=0.5)
    inputs = torch.ones(2)
    handles = [
        torch_module.register_module_forward_pre_hook(slow_down.before),
        torch_module.register_module_forward_hook(slow_down.after),
    ]
    try:
        started_s = time.perf_counter()
        output = model(inputs)
        duration_s = time.perf_counter() - started_s
    finally:
        for handle in handles:
            handle.remove()
    assert duration_s >= 0.06
    assert torch.equal(output, inputs)


def test_a_module_that_the_model_lacks_is_never_slowed_down() -> None:
    slow_down = SlowDown("layers.0", share=100.0)
    model = nn.Identity()
    started_s = time.perf_counter()
    slow_down.before(model, ())
    slow_down.after(model, (), None)
    assert time.perf_counter() - started_s < 1.0
