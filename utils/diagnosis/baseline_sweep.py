"""What step 02's sweep gives to the diagnosis: batch sizes to profile, and their throughput."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.diagnosis.forecast import Forecast
from utils.diagnosis.saturation import Throughput
from utils.schema.baseline import STEP_02, load_baseline_metrics
from utils.schema.batch_size import SweepRow
from utils.schema.evaluation import EvaluationMetrics
from utils.schema.warning_codes import WarningCode
from utils.settings import ModelConfig

OTHER_MODEL = WarningCode.DIAGNOSIS.warn(
    "baseline_metrics.json was measured with other model settings; its batch sizes are used all"
    " the same"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineSweep:
    """What is to be profiled, and the sweep that says so.

    Args:
        sizes: batch sizes to profile, rising.
        optimal: the batch size that is looked at in detail.
        rows: the sweep's rows of its largest sample; none where there is no sweep, or it measured
            another model.
        evaluation: that of the same model; None where there is none.
        warnings: reasons why the sweep counts only in part.
    """

    sizes: tuple[int, ...]
    optimal: int
    rows: tuple[SweepRow, ...] = ()
    evaluation: EvaluationMetrics | None = None
    warnings: tuple[str, ...] = ()

    def row(self, batch_size: int) -> SweepRow | None:
        """The measured row of a batch size; None where there is none."""
        for row in self.rows:
            if row.batch_size == batch_size and row.status == "ok":
                return row
        return None

    @property
    def batch_sizes(self) -> list[int]:
        """All that the sweep has a row for."""
        return [row.batch_size for row in self.rows]

    @property
    def out_of_memory(self) -> set[int]:
        """Batch sizes that did not fit into memory."""
        return {row.batch_size for row in self.rows if row.status == "oom"}

    @property
    def throughputs(self) -> list[Throughput]:
        """Of the batch sizes that were measured."""
        throughputs = []
        for row in self.rows:
            if row.throughput_samples_per_sec_mean is None:
                continue
            throughputs.append(
                Throughput(
                    batch_size=row.batch_size,
                    samples_per_s=row.throughput_samples_per_sec_mean,
                    padding_fraction=row.padding_fraction or 0.0,
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
    metrics = load_baseline_metrics(file)
    fitting = [row.batch_size for row in metrics.batch_size_profiling if row.status == "ok"]
    largest = max(fitting, default=min(batch_sizes))
    optimal = largest
    if metrics.optimal_batch_size is not None:
        optimal = metrics.optimal_batch_size.batch_size
    evaluation = None
    if metrics.config.get("model") == model.model_dump(mode="json"):
        rows = _of_largest_sample(metrics.batch_size_profiling)
        evaluation = metrics.full_dataset_metrics
        warnings: tuple[str, ...] = ()
    else:
        rows = ()
        warnings = (OTHER_MODEL,)
    return BaselineSweep(
        sizes=tuple(sorted({1, optimal, largest})),
        optimal=optimal,
        rows=rows,
        evaluation=evaluation,
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
    warning = WarningCode.DIAGNOSIS.warn(
        f"{file.name} is not there (step 02 writes it: {STEP_02}), so that the first and the last"
        f" of profiling.batch_sizes are profiled, and {last} is taken for the optimal one"
    )
    first_and_last = tuple(dict.fromkeys((first, last)))
    return BaselineSweep(sizes=first_and_last, optimal=last, warnings=(warning,))


def _of_largest_sample(rows: Sequence[SweepRow]) -> tuple[SweepRow, ...]:
    largest = max((row.sample_size for row in rows), default=0)
    return tuple(row for row in rows if row.sample_size == largest)
