"""How long the rest of a sweep takes: numbers that can be worked out by hand."""

from __future__ import annotations

import pytest

from utils.schema.sweep_checkpoint import Run, WarmUpPass
from utils.sweep.remaining_time import seconds_per_row, sweep_seconds
from utils.sweep.schedule import SweepSettings, SweepState, Trial, new_state

SETTINGS = SweepSettings(num_runs=10, num_warmup_runs=3)


def warm(trial: Trial, seconds: float, *, real_tokens: int = 800, computed: int = 1000) -> None:
    trial.warm_up = WarmUpPass(seconds=seconds, real_tokens=real_tokens, computed_tokens=computed)


def run(seconds: float) -> Run:
    return Run(num_samples=100, seconds=seconds, num_batches=1, real_tokens=800, padding_tokens=200)


@pytest.fixture
def state() -> SweepState:
    """100 texts at two batch sizes; a warm-up pass took 4 s and 1 s."""
    state = new_state(100, [1, 8])
    warm(state.trials[0], 4.0, computed=800)
    warm(state.trials[1], 1.0)
    return state


def test_the_sweep_takes_its_runs_times_the_warm_up_pass(state: SweepState) -> None:
    assert sweep_seconds([state], SETTINGS) == pytest.approx(10 * 4.0 + 10 * 1.0)


def test_runs_that_are_measured_count_in_place_of_the_warm_up(state: SweepState) -> None:
    state.trials[0].runs = [run(3.0), run(2.0), run(3.0)]
    assert sweep_seconds([state], SETTINGS) == pytest.approx(7 * 3.0 + 10 * 1.0)


def test_a_batch_size_that_does_not_fit_takes_no_time(state: SweepState) -> None:
    state.trials[0].mark_failed("oom", "out of memory")
    assert sweep_seconds([state], SETTINGS) == pytest.approx(10 * 1.0)


def test_a_larger_sample_takes_longer_by_its_texts_and_warms_up_first(state: SweepState) -> None:
    larger = new_state(200, [1, 8])
    assert sweep_seconds([state, larger], SETTINGS) == pytest.approx(50.0 + 2 * 14 * 5.0)


def test_nothing_measured_is_no_estimate() -> None:
    state = new_state(100, [1, 8])
    assert sweep_seconds([state], SETTINGS) is None
    assert seconds_per_row([state], is_grouped=True) is None


def test_a_grouped_row_has_no_padding(state: SweepState) -> None:
    # 8 real tokens a text; the fastest batch size computes 1,000 tokens in 1 s.
    assert seconds_per_row([state], is_grouped=True) == pytest.approx(8 / 1000)


def test_a_row_in_file_order_takes_as_long_as_a_text_of_the_sweep(state: SweepState) -> None:
    assert seconds_per_row([state], is_grouped=False) == pytest.approx(1.0 / 100)
