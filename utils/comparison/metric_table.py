"""Which metrics are compared, in which words, and what each process measured of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from utils.comparison.effects import Variation
from utils.comparison.loading import RunResults, Side
from utils.comparison.log_ratio import ProcessValue
from utils.schema.batch_size import SweepRow, percentile_columns
from utils.schema.common import MeasuredRecord
from utils.schema.comparison import Scope, Verdict
from utils.schema.comparison_effects import EffectVerdict

Kind = Literal["time", "rate", "amount"]
"""``time``: less is faster; ``rate``: more is faster; ``amount``: more is more."""
WORDS: dict[Kind, dict[EffectVerdict, Verdict]] = {
    "time": {"increase": "slower", "decrease": "faster"},
    "rate": {"increase": "faster", "decrease": "slower"},
    "amount": {"increase": "more", "decrease": "less"},
}
"""The verdict for a ratio above or below 1, in the words of the metric."""
RUN_TIME = "latency_per_sample_ms"
"""The time of a run, which the spread of other times of a run is taken from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A metric that is compared.

    Args:
        name: its name without ``_mean``; gates use it.
        column: the field of the record with its value.
        is_speed: whether it states the speed of the batch size: all that do ask one question, and
            are corrected for several comparisons apart from the others.
        std_column: the field with its standard deviation over the runs, where there is one.
    """

    name: str
    label: str
    unit: str
    column: str
    kind: Kind
    variation: Variation = "timed"
    is_speed: bool = False
    std_column: str | None = None


class MetricKey(NamedTuple):
    """Which value is compared: of which scope, sample, batch size and metric."""

    scope: Scope
    sample_size: int | None
    batch_size: int | None
    name: str


def _over_runs(name: str, label: str, unit: str, kind: Kind) -> Metric:
    """A metric of the sweep whose columns have the mean and the deviation over the runs."""
    return Metric(
        name=name,
        label=label,
        unit=unit,
        column=f"{name}_mean",
        std_column=f"{name}_std",
        kind=kind,
        is_speed=True,
    )


def _percentile_metrics() -> tuple[Metric, ...]:
    metrics = []
    for column, percent in percentile_columns().items():
        label = f"p{percent} latency per batch"
        metrics.append(Metric(name=column, label=label, unit="ms", column=column, kind="time"))
    return tuple(metrics)


def _memory(name: str, label: str, variation: Variation) -> Metric:
    return Metric(
        name=name, label=label, unit="MB", column=name, kind="amount", variation=variation
    )


GPU_MEMORY = (
    _memory("peak_gpu_mem", "peak GPU memory", "repeatable"),
    _memory("gpu_mem_used", "GPU memory after a run", "repeatable"),
)
CPU_MEMORY = _memory("cpu_mem_used", "CPU memory", "timed")
SWEEP_METRICS = (
    _over_runs("throughput_samples_per_sec", "throughput", "samples/s", "rate"),
    _over_runs(RUN_TIME, "latency per sample", "ms", "time"),
    Metric(
        name="latency_per_batch_ms",
        label="latency per batch",
        unit="ms",
        column="latency_per_batch_ms_mean",
        kind="time",
        is_speed=True,
    ),
    _over_runs("throughput_tokens_per_sec", "tokens per second", "tokens/s", "rate"),
    *_percentile_metrics(),
    *GPU_MEMORY,
    CPU_MEMORY,
    Metric(
        name="energy_per_sample_j",
        label="energy per sample",
        unit="J",
        column="energy_per_sample_j",
        kind="amount",
    ),
    Metric(
        name="padding_fraction",
        label="padding",
        unit="fraction of tokens",
        column="padding_fraction",
        kind="amount",
        variation="computed",
    ),
)
EVALUATION_METRICS = (
    Metric(
        name="throughput_samples_per_sec",
        label="throughput",
        unit="samples/s",
        column="throughput_samples_per_sec",
        kind="rate",
        is_speed=True,
    ),
    Metric(
        name=RUN_TIME,
        label="latency per sample",
        unit="ms",
        column=RUN_TIME,
        kind="time",
        is_speed=True,
    ),
    Metric(
        name="throughput_tokens_per_sec",
        label="tokens per second",
        unit="tokens/s",
        column="throughput_tokens_per_sec",
        kind="rate",
        is_speed=True,
    ),
    *GPU_MEMORY,
    CPU_MEMORY,
    Metric(
        name="padding_fraction",
        label="padding",
        unit="fraction of tokens",
        column="padding_fraction",
        kind="amount",
        variation="repeatable",
    ),
)
RUN_METRICS = (
    Metric(name="load_time_s", label="load time", unit="s", column="load_time_s", kind="time"),
    Metric(
        name="first_inference_ms",
        label="first inference",
        unit="ms",
        column="first_inference_ms",
        kind="time",
    ),
)
METRICS: dict[Scope, tuple[Metric, ...]] = {
    "sweep": SWEEP_METRICS,
    "evaluation": EVALUATION_METRICS,
    "run": RUN_METRICS,
}


def get_metric(key: MetricKey) -> Metric:
    """The metric that a key is of."""
    return next(metric for metric in METRICS[key.scope] if metric.name == key.name)


def verdict_in_words(metric: Metric, verdict: EffectVerdict) -> Verdict:
    """A verdict on the ratio in the words of the metric."""
    if verdict == "equivalent" or verdict == "inconclusive":
        return verdict
    return WORDS[metric.kind][verdict]


def metric_keys(baseline: Side, candidate: Side) -> list[MetricKey]:
    """What is compared: batch sizes that finished on both sides, then the evaluation, the run.

    The order is that of the report: by sample size, then by batch size, then by metric.
    """
    keys: list[MetricKey] = []
    for sample_size, batch_size in sorted(measured_rows(baseline) & measured_rows(candidate)):
        for metric in SWEEP_METRICS:
            keys.append(MetricKey("sweep", sample_size, batch_size, metric.name))
    if _has_evaluation(baseline) and _has_evaluation(candidate):
        for metric in EVALUATION_METRICS:
            keys.append(MetricKey("evaluation", None, None, metric.name))
    for metric in RUN_METRICS:
        keys.append(MetricKey("run", None, None, metric.name))
    return keys


def measured_rows(side: Side) -> set[tuple[int, int]]:
    """Sample and batch sizes that at least one process measured to the end."""
    measured = set()
    for run in side.runs:
        for key, row in run.rows().items():
            if row.status == "ok":
                measured.add(key)
    return measured


def _has_evaluation(side: Side) -> bool:
    return any(run.evaluation is not None for run in side.runs)


def process_values(side: Side, key: MetricKey) -> list[ProcessValue]:
    """What each process of a side measured; those that did not measure it are left out."""
    metric = get_metric(key)
    values = []
    for run in side.runs:
        value = _process_value(run, key, metric)
        if value is not None:
            values.append(value)
    return values


def _process_value(run: RunResults, key: MetricKey, metric: Metric) -> ProcessValue | None:
    if key.scope == "sweep":
        row = _row(run, key)
        return None if row is None else _row_value(row, metric)
    record: object = run.evaluation
    if key.scope == "run":
        record = run.metrics
        if metric.name == "load_time_s":
            record = run.metrics.model_info
    mean: float | None = getattr(record, metric.column, None)
    if mean is None:
        return None
    return ProcessValue(mean=mean, std=None, num_runs=1)


def _row(run: RunResults, key: MetricKey) -> SweepRow | None:
    assert key.sample_size is not None and key.batch_size is not None
    return run.rows().get((key.sample_size, key.batch_size))


def _row_value(row: SweepRow, metric: Metric) -> ProcessValue | None:
    mean: float | None = getattr(row, metric.column)
    if mean is None or row.status != "ok":
        return None
    return ProcessValue(mean=mean, std=_std_over_runs(row, metric, mean), num_runs=row.num_runs)


def _std_over_runs(row: SweepRow, metric: Metric, mean: float) -> float | None:
    """The deviation of a metric over the runs.

    The table has the deviation of the time of a batch over batches, which are not independent. The
    runs are, so the time of a batch has the relative deviation of the time of a run.
    """
    if metric.std_column is not None:
        std: float | None = getattr(row, metric.std_column)
        return std
    run_mean = row.latency_per_sample_ms_mean
    run_std = row.latency_per_sample_ms_std
    if not metric.is_speed or not run_mean or run_std is None:
        return None
    return mean * run_std / run_mean


def missing_reason(side: Side, key: MetricKey) -> str:
    """Why no process of a side has a value, from its files."""
    metric = get_metric(key)
    for run in side.runs:
        reason = _reason(run, key, metric.column)
        if reason is not None:
            return f"not measured in the {side.name}: {reason}"
    return f"not measured in the {side.name}"


def _reason(run: RunResults, key: MetricKey, column: str) -> str | None:
    """The reason in the record of one run; None where it has none."""
    record: MeasuredRecord | None = run.evaluation
    if key.scope == "sweep":
        record = _row(run, key)
    return None if record is None else record.reason(column)


def metric_names(scopes: Iterable[Scope]) -> list[str]:
    """The names of all metrics of some scopes, each once."""
    names: dict[str, None] = {}
    for scope in scopes:
        for metric in METRICS[scope]:
            names[metric.name] = None
    return list(names)
