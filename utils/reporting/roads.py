"""The two roads on which speed is measured, and what is known of the noise on them."""

from __future__ import annotations

from dataclasses import dataclass

from utils.core.rounding import round_value
from utils.reporting.results import Results
from utils.schema.baseline import EVALUATION_ROAD as EVALUATION
from utils.schema.baseline import SWEEP_ROAD as SWEEP
from utils.schema.batch_size import SweepRow
from utils.sweep import noise


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """A throughput with the road that it was measured on.

    Args:
        row: the batch size of the sweep; None for the evaluation.
    """

    road: str
    samples_per_s: float
    low: float | None = None
    high: float | None = None
    row: SweepRow | None = None


def sweep_speed(results: Results) -> Speed | None:
    """The fastest batch size of the sweep; None where none finished."""
    fastest: SweepRow | None = None
    highest = 0.0
    for row in results.sweep.measured_rows:
        value = row.throughput_samples_per_sec_mean
        if value is not None and (fastest is None or value > highest):
            fastest = row
            highest = value
    if fastest is None:
        return None
    return Speed(
        road=SWEEP,
        samples_per_s=highest,
        low=fastest.throughput_samples_per_sec_ci95_low,
        high=fastest.throughput_samples_per_sec_ci95_high,
        row=fastest,
    )


def evaluation_speed(results: Results) -> Speed | None:
    """The speed of the evaluation of the complete data set, which ran once; None without one."""
    if results.evaluation is None:
        return None
    return Speed(road=EVALUATION, samples_per_s=results.evaluation.throughput_samples_per_sec)


def fastest_speed(results: Results) -> Speed | None:
    """The faster of both roads; None where neither has a result."""
    speeds = [sweep_speed(results), evaluation_speed(results)]
    measured = [speed for speed in speeds if speed is not None]
    return max(measured, key=lambda speed: speed.samples_per_s, default=None)


def row_of(results: Results, batch_size: int) -> SweepRow | None:
    """The measured row of a batch size; None where there is none."""
    for row in results.sweep.measured_rows:
        if row.batch_size == batch_size:
            return row
    return None


def is_noisy(results: Results) -> bool:
    """Whether no batch size of the sweep is stable, although some were measured."""
    return noise.is_noisy(results.sweep.measured_rows)


def noise_text(results: Results) -> str:
    """What the reader has to know first where nothing is stable; empty otherwise."""
    return noise.noise_text(results.sweep.measured_rows)


def speed_text(results: Results, speed: Speed) -> str:
    """A throughput with its interval and its road."""
    rounded = round_value(speed.samples_per_s, speed.low, speed.high)
    interval = f" (95% interval {rounded.interval})" if rounded.interval else ""
    return f"{rounded.value} samples/s{interval} in the {road_text(results, speed)}"


def road_text(results: Results, speed: Speed) -> str:
    """The road of a throughput, with the batch size or the texts that it is of."""
    if speed.row is not None:
        return f"{speed.road} at batch size {speed.row.batch_size}"
    assert results.evaluation is not None, "its speed comes from there"
    return f"{speed.road} of {results.evaluation.num_samples:,} texts"
