"""The record of ``baseline_metrics.json``: everything that a later week compares against."""

from __future__ import annotations

from pathlib import Path

from utils.core.files import JsonObject
from utils.schema.baseline_versions import convert_baseline_metrics
from utils.schema.batch_size import OptimalBatchSize, SweepRow
from utils.schema.common import (
    NO_REASON,
    MeasuredRecord,
    NonNegative,
    Positive,
    PositiveCount,
    Record,
    Unavailable,
    metric,
    optional,
    read_record,
    required,
    text,
    unavailable,
    write_record,
)
from utils.schema.evaluation import EvaluationMetrics
from utils.schema.latency import LatencyTarget
from utils.schema.run import DatasetInfo, Environment, ModelInfo, RunInfo

BASELINE_VERSION = 3
"""Version of ``baseline_metrics.json`` that is written. Files of every earlier version load."""
STEP_02 = "python scripts/02_baseline_inference.py"
SWEEP_ROAD = "batch-size sweep"
"""Fixed batches in file order, as a plain loop or service runs them."""
EVALUATION_ROAD = "optimised evaluation"
"""The complete data set, by the batching that the settings choose."""


class SweepRounds(Record):
    """The order in which the batch sizes of one sample were measured."""

    sample_size: PositiveCount = required("rows", "Texts in the sample.")
    order: tuple[tuple[PositiveCount, ...], ...] = text("Batch sizes of each round.")


class SampleDependence(MeasuredRecord):
    """Whether the metrics of one batch size depend on the sample of texts."""

    batch_size: PositiveCount = required("rows", "Texts in a batch.")
    sample_sizes: tuple[PositiveCount, PositiveCount] = required("rows", "The two samples.")
    time_per_token_ratio: Positive | None = metric(
        "ratio", "Time per token of the second sample divided by that of the first."
    )
    ci95_low: NonNegative | None = metric("ratio", "Lower end of its 95% interval (Welch).")
    ci95_high: NonNegative | None = metric("ratio", "Upper end of the same interval.")
    depends_on_sample: bool | None = metric(
        None, "Whether they differ by more than 5% and more than by chance."
    )
    unavailable: Unavailable = unavailable()


class SweepMeasurement(MeasuredRecord):
    """How the batch-size sweep was measured."""

    rounds: tuple[SweepRounds, ...] = optional("The order of measurement.", default=())
    idle_gpu_power_w: NonNegative | None = metric("W", "Power while this process is idle.")
    idle_gpu_util_pct: NonNegative | None = metric(
        "%", "Utilization while this process is idle: that of others."
    )
    gpu_shared: bool | None = metric(None, "Whether another process uses the GPU.")
    sample_dependence: tuple[SampleDependence, ...] = optional(
        "Comparison of the samples, where there are several.", default=()
    )
    unavailable: Unavailable = unavailable()


class BaselineMetrics(MeasuredRecord):
    """Everything that a later week compares against. MB is 10^6 bytes."""

    schema_version: PositiveCount = text("Version of this file's format.")
    run: RunInfo = text("The run that measured.")
    environment: Environment = text("The machine and its software.")
    config: JsonObject = text("The resolved settings by section.")
    model_info: ModelInfo = text("The model.")
    dataset_info: DatasetInfo = text("The data set.")
    batch_size_profiling: tuple[SweepRow, ...] = text("The rows of `detailed_metrics.csv`.")
    optimal_batch_size: OptimalBatchSize | None = optional(
        "Of the largest sample; null where every batch size failed."
    )
    full_dataset_metrics: EvaluationMetrics | None = required(
        None, "The evaluation of the complete data set; null where `evaluation.enabled` is false."
    )
    first_inference_ms: NonNegative = required(
        "ms", "The very first text after loading, end to end: cold."
    )
    measurement: SweepMeasurement = text("How the sweep was measured.")
    latency_target: LatencyTarget | None = optional(
        "The largest batch size below `profiling.latency_target_ms`; null where that is not set."
    )
    unavailable: Unavailable = unavailable()
    units: dict[str, str] = text("Unit of every metric.")

    @property
    def not_evaluated(self) -> str | None:
        """Why the complete data set was not evaluated; None where it was."""
        if self.full_dataset_metrics is not None:
            return None
        return self.reason("full_dataset_metrics") or NO_REASON


def load_baseline_metrics(path: Path) -> BaselineMetrics:
    """Read ``baseline_metrics.json`` of any version.

    Raises:
        UserError: the file is missing, is not valid JSON or does not fit the record.
    """
    return read_record(path, BaselineMetrics, made_by=STEP_02, convert=convert_baseline_metrics)


def save_baseline_metrics(path: Path, metrics: BaselineMetrics) -> None:
    """Write ``baseline_metrics.json`` atomically.

    Raises:
        ValidationError: a value is impossible.
        UserError: the file cannot be written.
    """
    assert metrics.schema_version == BASELINE_VERSION, metrics.schema_version
    write_record(path, metrics)
