"""The record of ``comparison.json``: two sides of results, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from utils.schema.common import (
    Count,
    Fraction,
    NonNegative,
    Positive,
    PositiveCount,
    Record,
    optional,
    read_record,
    required,
    text,
    warnings,
    write_record,
)
from utils.schema.comparison_diagnosis import DiagnosisComparison
from utils.schema.comparison_effects import Decision, Effect
from utils.schema.comparison_quality import QualityComparison

COMPARISON_VERSION = 1
"""Version of ``comparison.json``."""
STEP_05 = "python scripts/05_compare_runs.py"

Scope = Literal["sweep", "evaluation", "run"]
"""What a metric is of: one batch size of the sweep, the complete data set, the process."""
Verdict = Literal["faster", "slower", "less", "more", "equivalent", "inconclusive"]
Category = Literal["model", "data", "settings", "device", "libraries", "machine", "code"]
GateResult = Literal["passed", "violated", "undecided"]


class ComparedRun(Record):
    """One process of a side: one results folder."""

    path: str = text("Its metrics file.")
    run_id: str = text("`run.id` of that file.")
    started_at: str = text("Start of the run.")
    schema_version: PositiveCount = text("Version of the metrics file.")
    has_diagnosis: bool = text("Whether `bottlenecks.json` is beside it.")
    has_predictions: bool = text("Whether the predictions are beside it.")


class ComparedSide(Record):
    """One side: repeats of the same measurement, each in a process of its own."""

    model: str = text("Name of the model.")
    device: str = text("Device of the model, with the name of the processor or GPU.")
    dtype: str = text("Type of the weights.")
    accuracy: Fraction | None = optional(
        "Accuracy as the metrics file of the first run has it; null where it was not measured.",
        unit="fraction",
    )
    runs: tuple[ComparedRun, ...] = text("The processes.")


class Difference(Record):
    """Something that is not the same on both sides."""

    category: Category = text("What it belongs to.")
    name: str = text("What differs; a setting by its dotted key.")
    baseline: str = text("Its value in the baseline; several where the runs differ.")
    candidate: str = text("Its value in the candidate.")


class Refusal(Record):
    """Metrics that cannot be compared, with the reason."""

    metrics: str = text("What is refused.")
    reason: str = text("Why.")
    forced: bool = text("Whether it is compared all the same, because `--force` was given.")


class MetricComparison(Record):
    """One metric on both sides."""

    scope: Scope = text(
        "`sweep`: one batch size; `evaluation`: the complete data set; `run`: the process."
    )
    sample_size: PositiveCount | None = optional("Texts in the sweep's sample.", unit="rows")
    batch_size: PositiveCount | None = optional("Texts in a batch of the sweep.", unit="rows")
    metric: str = text("Name of the metric, as in `baseline_metrics.json`.")
    label: str = text("The metric in words.")
    unit: str = text("Unit of both values.")
    baseline: float | None = optional("Mean over the processes of the baseline.")
    candidate: float | None = optional("Mean over the processes of the candidate.")
    effect: Effect | None = optional("Their ratio; null where they cannot be compared.")
    decision: Decision | None = optional("What the ratio shows, corrected for all comparisons.")
    verdict: Verdict | None = optional("The decision in the words of the metric.")
    reason: str | None = optional("Why it cannot be compared, or, with `forced`, should not be.")
    forced: bool = text("Whether `--force` shows a comparison that is otherwise refused.")


class StatusChange(Record):
    """A batch size that did not finish on both sides."""

    sample_size: PositiveCount = required("rows", "Texts in the sample.")
    batch_size: PositiveCount = required("rows", "Texts in a batch.")
    baseline: str = text("Result in the baseline, `not measured` where it is not in the files.")
    candidate: str = text("Result in the candidate.")


class CostComparison(Record):
    """Money and energy for a million samples on both sides."""

    scope: Scope = text("`sweep`: one batch size; `evaluation`: the complete data set.")
    sample_size: PositiveCount | None = optional("Texts in the sweep's sample.", unit="rows")
    batch_size: PositiveCount | None = optional("Texts in a batch of the sweep.", unit="rows")
    baseline_usd: NonNegative | None = optional(
        "Cost of a million samples in the baseline; null without a price.", unit="USD"
    )
    candidate_usd: NonNegative | None = optional("The same of the candidate.", unit="USD")
    baseline_kwh: NonNegative | None = optional(
        "Energy of the GPU for a million samples in the baseline; null where not measured.",
        unit="kWh",
    )
    candidate_kwh: NonNegative | None = optional("The same of the candidate.", unit="kWh")


class Prices(Record):
    """Price of one GPU on each side."""

    baseline_usd_per_hour: NonNegative | None = optional(
        "Price in the baseline; null where none was given.", unit="USD per hour"
    )
    candidate_usd_per_hour: NonNegative | None = optional("The same.", unit="USD per hour")


class GateCheck(Record):
    """One value that a gate was checked on."""

    place: str = text("Where the value is of: a batch size, the complete data set.")
    result: GateResult = text("Result for this value.")
    change: float | None = optional("The change, in the unit of the gate.")
    ci95: tuple[float, float] | None = optional("95% interval of the change.")
    reason: str = text("Why.")


class Gate(Record):
    """A condition under which the candidate is not accepted (`--fail-if`)."""

    condition: str = text("As it was given.")
    result: GateResult = text(
        "`violated`: the condition holds with confidence for a value; `passed`: it holds for "
        "none, with confidence; `undecided`: neither."
    )
    checks: tuple[GateCheck, ...] = text(
        "The values that it was checked on, the one that comes closest to the limit first."
    )


class Comparison(Record):
    """Two sides of results, compared. Ratios are candidate / baseline."""

    schema_version: PositiveCount = text("Version of this file's format.")
    created_at: str = text("When they were compared, ISO 8601 with the time zone.")
    margin: Positive = required(
        "fraction", "Sides whose 90% interval lies within 1 ± this are equivalent (TOST)."
    )
    alpha: Positive = required(
        "fraction", "Highest probability of one or more false differences among all verdicts."
    )
    baseline: ComparedSide = text("The baseline.")
    candidate: ComparedSide = text("The candidate.")
    differences: tuple[Difference, ...] = text("What differs apart from the results.")
    refusals: tuple[Refusal, ...] = text("What cannot be compared.")
    status_changes: tuple[StatusChange, ...] = text("Batch sizes that only one side finished.")
    metrics: tuple[MetricComparison, ...] = text("Every metric.")
    num_tests: Count = text("Comparisons that the verdicts are corrected for.")
    label_names: tuple[str, ...] = text("Label names of the candidate in the order of their ids.")
    quality: QualityComparison | None = optional("The predictions, row by row.")
    quality_reason: str | None = optional(
        "Why the predictions are not compared, or, with `--force`, should not be."
    )
    diagnosis: DiagnosisComparison = text("Where the time went.")
    prices: Prices = text("Prices.")
    costs: tuple[CostComparison, ...] = text("Money and energy for a million samples.")
    gates: tuple[Gate, ...] = text("The gates, in the order in which they were given.")
    warnings: tuple[str, ...] = warnings()


def load_comparison(path: Path) -> Comparison:
    """Read ``comparison.json``.

    Raises:
        UserError: the file is missing, is not valid JSON or does not fit the record.
    """
    return read_record(path, Comparison, made_by=STEP_05)


def save_comparison(path: Path, comparison: Comparison) -> None:
    """Write ``comparison.json`` atomically.

    Raises:
        ValidationError: a value is impossible.
        UserError: the file cannot be written.
    """
    write_record(path, comparison)
