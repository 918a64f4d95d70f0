"""What step 02's sweep gives to the diagnosis: batch sizes to profile, and their throughput."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config_loader import ModelConfig
from utils.core.files import read_json
from utils.diagnosis.forecast import Forecast
from utils.diagnosis.saturation import Throughput

STEP_02 = "python scripts/02_baseline_inference.py"
THROUGHPUT = "throughput_samples_per_sec_mean"
OTHER_MODEL = (
    "baseline_metrics.json was measured with other model settings; its batch sizes are used all"
    " the same."
)

Row = Mapping[str, Any]
"""A row of ``batch_size_profiling`` in ``baseline_metrics.json``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineSweep:
    """What is to be profiled, and the sweep that says so.

    Args:
        sizes: batch sizes to profile, rising.
        optimal: the batch size that is looked at in detail.
        rows: the sweep's rows of its largest sample; none where there is no sweep, or it measured
            another model.
        warnings: reasons why the sweep counts only in part.
    """

    sizes: tuple[int, ...]
    optimal: int
    rows: tuple[Row, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def batch_sizes(self) -> list[int]:
        """All that the sweep has a row for."""
        return [row["batch_size"] for row in self.rows]

    @property
    def out_of_memory(self) -> set[int]:
        """Batch sizes that did not fit into memory."""
        return {row["batch_size"] for row in self.rows if row["status"] == "oom"}

    @property
    def throughputs(self) -> list[Throughput]:
        """Of the batch sizes that were measured."""
        throughputs = []
        for row in self.rows:
            if row.get(THROUGHPUT) is None:
                continue
            throughputs.append(
                Throughput(
                    batch_size=row["batch_size"],
                    samples_per_s=row[THROUGHPUT],
                    padding_fraction=row["padding_fraction"] or 0.0,
                )
            )
        return throughputs


def read_sweep(file: Path, model: ModelConfig, batch_sizes: Sequence[int]) -> BaselineSweep:
    """1, the optimal and the largest batch size of the sweep.

    Without a sweep, the first and the last of ``batch_sizes``.

    Args:
        file: ``baseline_metrics.json``.
        model: the present settings; a sweep of another model gives its batch sizes alone.
        batch_sizes: ``profiling.batch_sizes``.

    Raises:
        UserError: the file cannot be read.
    """
    if not file.exists():
        return _without_sweep(file, batch_sizes)
    metrics = read_json(file, made_by=STEP_02)
    rows: list[Row] = metrics["batch_size_profiling"]
    fitting = [row["batch_size"] for row in rows if row["status"] == "ok"]
    largest = max(fitting, default=min(batch_sizes))
    best = metrics.get("optimal_batch_size") or {}
    optimal = best.get("batch_size", largest)
    warnings: tuple[str, ...] = ()
    if metrics.get("config", {}).get("model") != model.model_dump(mode="json"):
        warnings = (OTHER_MODEL,)
        rows = []
    return BaselineSweep(
        sizes=tuple(sorted({1, optimal, largest})),
        optimal=optimal,
        rows=_of_largest_sample(rows),
        warnings=warnings,
    )


def choose_throughputs(
    sweep: BaselineSweep, sizes: Sequence[int], forecast: Forecast | None
) -> tuple[list[Throughput], str]:
    """Throughput by batch size on the same texts, the sweep's or forecast; and its source."""
    if sweep.throughputs:
        return sweep.throughputs, "the sweep"
    source = "the forward passes of the sample, forecast from those that were timed"
    if forecast is None:
        return [], source
    throughputs = []
    for size in sizes:
        throughputs.append(
            Throughput(
                batch_size=size,
                samples_per_s=forecast.samples_per_s(size),
                padding_fraction=forecast.padding_at(size),
            )
        )
    return throughputs, source


def _without_sweep(file: Path, batch_sizes: Sequence[int]) -> BaselineSweep:
    first, last = batch_sizes[0], batch_sizes[-1]
    warning = (
        f"{file.name} is not there (step 02 makes it: {STEP_02}): profiled are the first and the"
        f" last of profiling.batch_sizes, and {last} stands for the optimal one."
    )
    first_and_last = tuple(dict.fromkeys((first, last)))
    return BaselineSweep(sizes=first_and_last, optimal=last, warnings=(warning,))


def _of_largest_sample(rows: Sequence[Row]) -> tuple[Row, ...]:
    sample_sizes = [row.get("sample_size") or 0 for row in rows]
    largest = max(sample_sizes, default=0)
    return tuple(
        row for row, sample_size in zip(rows, sample_sizes, strict=True) if sample_size == largest
    )
