"""The search for the largest batch size below a latency target, with times made by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from utils.schema.latency import LatencyTarget
from utils.schema.sweep_checkpoint import Run
from utils.sweep.latency_target import latency_target, search_latency_edge
from utils.sweep.schedule import SweepSettings, SweepState, Trial, new_state

SETTINGS = SweepSettings(
    num_runs=2, latency_target_ms=50.0, latency_target_percentile=90, process_spread=0.0
)
BATCHES = 8


def run(batch_size: int, batch_ms: float) -> Run:
    seconds = batch_ms / 1e3
    return Run(
        num_samples=batch_size * BATCHES,
        seconds=seconds * BATCHES,
        num_batches=BATCHES,
        num_full_batches=BATCHES,
        phase_seconds=((seconds, 0.0, 0.0, 0.0),) * BATCHES,
    )


def swept(batch_sizes: list[int], batch_ms: Callable[[int], float]) -> SweepState:
    state = new_state(64, batch_sizes)
    for trial in state.trials:
        trial.runs += [run(trial.batch_size, batch_ms(trial.batch_size))] * 2
    return state


def search(
    state: SweepState, batch_ms: Callable[[int], float], settings: SweepSettings = SETTINGS
) -> tuple[LatencyTarget, list[int]]:
    """What the search finds, and the batch size of each run that it measures."""
    measured: list[int] = []

    def measure(trial: Trial) -> None:
        measured.append(trial.batch_size)
        trial.runs.append(run(trial.batch_size, batch_ms(trial.batch_size)))

    search_latency_edge(state, settings, measure)
    target = latency_target(state, settings)
    assert target is not None
    return target, measured


def test_the_edge_between_swept_batch_sizes_is_found() -> None:
    def batch_ms(size: int) -> float:
        return 2.0 * size + 1

    target, measured = search(swept([1, 4, 8, 16, 32], batch_ms), batch_ms)
    assert target.largest_below is not None and target.smallest_above is not None
    assert (target.largest_below.batch_size, target.smallest_above.batch_size) == (24, 25)
    assert target.largest_below.latency_ms == pytest.approx(49)
    assert target.largest_below.num_latencies == 64
    assert target.largest_below.throughput_samples_per_sec_mean == pytest.approx(24 / 0.049)
    # The swept 8, 16 and 32 first, then half way: 24, 28, 26, 25. 16 and 32 are decided by fewer.
    assert Counter(measured) == {8: 6, 16: 6, 24: 8, 28: 1, 26: 1, 25: 1}
    assert [item.batch_size for item in target.tried] == [8, 16, 24, 25, 26, 28, 32]


def test_an_interval_above_the_target_ends_a_batch_size_early() -> None:
    target, measured = search(swept([32], lambda size: size * 10.0), lambda size: size * 10.0)
    [above] = [item for item in target.tried if item.batch_size == 32]
    assert 32 not in measured
    assert above.is_below is False and above.latency_ms is None
    assert "they suffice" in above.unavailable["latency_ms"]
    assert target.largest_below is not None and target.largest_below.batch_size == 4


def test_where_all_are_below_larger_ones_are_to_be_added() -> None:
    target, _ = search(swept([1, 8], lambda _: 1.0), lambda _: 1.0)
    assert target.largest_below is not None and target.largest_below.batch_size == 8
    assert target.smallest_above is None
    assert "add larger ones" in target.unavailable["smallest_above"]


def test_where_none_is_below_the_reason_is_given() -> None:
    target, _ = search(swept([1, 8], lambda _: 60.0), lambda _: 60.0)
    assert target.largest_below is None
    assert target.unavailable["largest_below"] == "also the smallest batch takes longer"


def test_the_time_of_a_batch_size_is_limited_and_the_reason_says_so() -> None:
    settings = replace(SETTINGS, max_seconds_per_batch_size=0.001)
    target, measured = search(swept([8], lambda _: 1.0), lambda _: 1.0, settings)
    assert measured == [8]
    assert target.largest_below is None
    assert "max_seconds_per_batch_size" in target.unavailable["largest_below"]


def test_an_interrupted_search_goes_on_with_the_runs_that_it_has() -> None:
    def batch_ms(size: int) -> float:
        return 2.0 * size + 1

    state = swept([1, 32], batch_ms)
    first, measured = search(state, batch_ms)
    assert measured
    again = SweepState.from_record(state.to_record())
    second, measured = search(again, batch_ms)
    assert (second, measured) == (first, [])


def test_without_a_target_nothing_is_measured() -> None:
    state = swept([1], lambda _: 1.0)
    search_latency_edge(state, SweepSettings(), lambda _: pytest.fail("measured"))
    assert latency_target(state, SweepSettings()) is None
