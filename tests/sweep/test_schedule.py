"""Which batch size is measured when and how often, and what is tied with what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from utils.core.errors import UserError
from utils.schema.sweep_checkpoint import Run
from utils.sweep.bench_stats import mean_interval
from utils.sweep.conclusions import optimal_batch_size, sample_dependence
from utils.sweep.schedule import (
    SweepSettings,
    SweepState,
    Trial,
    new_state,
    run_rounds,
)

QUICK = SweepSettings(num_runs=4)


def run(seconds: float, tokens: int = 100) -> Run:
    return Run(num_samples=8, seconds=seconds, num_batches=2, real_tokens=tokens)


def rounds(state: SweepState, settings: SweepSettings, seconds: Any) -> list[int]:
    """Go through a sweep whose runs take ``seconds(batch size, run)``.

    Returns the batch sizes in the order in which they were measured.
    """
    measured: list[int] = []

    def measure(trial: Trial) -> None:
        measured.append(trial.batch_size)
        trial.runs.append(run(seconds(trial.batch_size, len(trial.runs))))

    run_rounds(state, settings, measure, after_round=lambda _: None)
    return measured


def test_batch_sizes_take_turns_in_a_seeded_order_that_is_recorded() -> None:
    state, again, other = (new_state(8, [1, 2, 4, 8]) for _ in range(3))
    measured = rounds(state, QUICK, lambda *_: 1.0)
    assert [sorted(order) for order in state.order] == [[1, 2, 4, 8]] * 4
    assert measured == [size for order in state.order for size in order]
    assert len({tuple(order) for order in state.order}) > 1
    assert rounds(again, QUICK, lambda *_: 1.0) == measured
    assert rounds(other, replace(QUICK, seed=1), lambda *_: 1.0) != measured


def test_runs_go_on_until_the_interval_is_narrow() -> None:
    state = new_state(8, [1, 2])
    settings = replace(QUICK, target_relative_ci=0.05, max_seconds_per_batch_size=1000.0)
    rounds(state, settings, lambda size, i: 1.0 if size == 1 else 1.0 + 0.1 * (-1) ** i)
    steady, wide = state.trials
    assert len(steady.runs) == 4
    # the interval of n values that alternate by 10% is narrower than 5% from about 20 on
    assert 10 < len(wide.runs) < 40
    low, high = mean_interval([run.seconds for run in wide.runs]) or (0, 0)
    assert (high - low) / (high + low) == pytest.approx(0.05, abs=0.005)


def test_runs_go_on_no_longer_than_asked() -> None:
    state = new_state(8, [2])
    settings = replace(QUICK, target_relative_ci=1e-6, max_seconds_per_batch_size=12.0)
    rounds(state, settings, lambda _, i: 1.0 + 0.1 * (-1) ** i)
    assert 12 <= len(state.trials[0].runs) <= 13


def test_an_interrupted_sweep_continues_with_the_missing_runs() -> None:
    state, kept = new_state(8, [1, 2]), []
    with pytest.raises(KeyboardInterrupt):

        def interrupt(trial: Trial) -> None:
            if len(state.order) == 3 and state.order[-1]:
                raise KeyboardInterrupt
            trial.runs.append(run(1.0))

        run_rounds(
            state,
            QUICK,
            interrupt,
            after_round=lambda _: kept.append(sum(len(trial.runs) for trial in state.trials)),
        )
    assert kept == [2, 4, 5], "the run that the interrupted round had finished is saved"
    measured = [size for order in state.order for size in order]
    more = rounds(state, QUICK, lambda *_: 1.0)
    assert sorted(measured + more) == [1] * 4 + [2] * 4
    assert len(more) == 3


def test_batch_sizes_whose_difference_is_not_significant_are_tied() -> None:
    state = new_state(8, [1, 2, 4])
    times = {1: 1.3, 2: 1.003, 4: 1.0}
    rounds(state, replace(QUICK, num_runs=8), lambda size, i: times[size] * (1 + 0.004 * (-1) ** i))
    best = optimal_batch_size([trial.record() for trial in state.trials], state)
    assert best is not None
    assert (best.batch_size, best.tied_with) == (4, (2,))


@pytest.mark.parametrize(("factor", "depends"), [(1.0, False), (1.3, True)])
def test_whether_metrics_depend_on_the_sample(factor: float, depends: bool) -> None:
    small, large = new_state(8, [2]), new_state(16, [2])
    for i in range(8):
        noise = 1 + 0.002 * (-1) ** i
        small.trials[0].runs.append(run(noise, tokens=100))
        large.trials[0].runs.append(run(2 * factor * noise, tokens=200))
    (row,) = sample_dependence([small, large])
    assert row.sample_sizes == (8, 16)
    assert row.time_per_token_ratio == pytest.approx(factor)
    assert row.depends_on_sample is depends


def test_an_unknown_difference_is_null() -> None:
    small, large = new_state(8, [2]), new_state(16, [2])
    for state in (small, large):
        state.trials[0].runs.append(run(1.0))
    (row,) = sample_dependence([small, large])
    assert (row.ci95_low, row.depends_on_sample) == (None, None)
    assert set(row.unavailable) == {"ci95_low", "ci95_high", "depends_on_sample"}


@pytest.mark.parametrize(
    ("samples", "sizes"), [(0, [1]), (1, []), (1, [0]), (1, [-1]), (1, [2, 2])]
)
def test_impossible_sweeps_are_refused(samples: int, sizes: list[int]) -> None:
    with pytest.raises(UserError):
        new_state(samples, sizes)
