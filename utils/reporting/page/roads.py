"""The two roads on which speed is measured, and what is known of the noise on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from utils.reporting.formatting import format_percent
from utils.reporting.results import Results
from utils.schema.batch_size import SweepRow

SWEEP = "batch-size sweep"
EVALUATION = "optimised evaluation"


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
    judged = [row.stable for row in results.sweep.measured_rows if row.stable is not None]
    return bool(judged) and not any(judged)


def noise_text(results: Results) -> str:
    """What the reader has to know first where nothing is stable; empty otherwise."""
    if not is_noisy(results):
        return ""
    wait = _largest_wait(results.sweep.measured_rows)
    reason = "the runs of every batch size differ by more than they should"
    if wait is not None and wait > 0.05:
        reason = f"threads waited for a CPU in up to {format_percent(wait)} of their time"
    return f"The machine was too busy: {reason}. Treat all times as rough."


def _largest_wait(rows: Sequence[SweepRow]) -> float | None:
    waits = [row.cpu_wait_fraction for row in rows if row.cpu_wait_fraction is not None]
    return max(waits, default=None)
