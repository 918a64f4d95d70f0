"""The part of ``comparison.json`` that says where the time went."""

from __future__ import annotations

from typing import Literal

from utils.schema.common import (
    Count,
    NonNegative,
    Positive,
    PositiveCount,
    Record,
    optional,
    required,
    text,
)

Level = Literal["phases", "operators", "kernels", "modules"]
Outcome = Literal["as predicted", "more than predicted", "less than predicted", "undecided"]


class TimeChange(Record):
    """The time of one part on both sides, per batch."""

    name: str = text("Name of the phase, operator, kernel or module.")
    baseline_ms: NonNegative | None = optional("Null where only the candidate has it.", unit="ms")
    candidate_ms: NonNegative | None = optional("Null where only the baseline has it.", unit="ms")
    difference_ms: float = required("ms", "Candidate less baseline.")
    ratio: NonNegative | None = optional("Candidate / baseline.", unit="fraction")


class TimeBreakdown(Record):
    """The parts of a batch on both sides, the largest difference first."""

    level: Level = text(
        "`phases`: of the sweep, untraced. `operators`, `kernels`, `modules`: own times of a "
        "traced run."
    )
    batch_size: PositiveCount = required("rows", "Texts in a batch, the same on both sides.")
    baseline_total_ms: NonNegative = required("ms", "All parts of the baseline.")
    candidate_total_ms: NonNegative = required("ms", "All parts of the candidate.")
    num_parts: Count = text("Parts with a time on at least one side.")
    changes: tuple[TimeChange, ...] = text("The parts with the largest differences.")


class VerdictChange(Record):
    """What limits a batch size on both sides."""

    batch_size: PositiveCount = required("rows", "Texts in a batch.")
    baseline: str | None = optional("Verdict in the baseline; null where it was not diagnosed.")
    candidate: str | None = optional("Verdict in the candidate.")
    changed: bool = text("Whether both are known and differ.")


class SuggestionOutcome(Record):
    """A suggestion of the baseline's diagnosis that the candidate follows."""

    title: str = text("Title of the suggestion.")
    setting: str = text("The setting that tries it: `section.key=VALUE`.")
    predicted_speedup: Positive = required("ratio", "What was predicted.")
    is_upper_bound: bool = text("Whether the prediction was an upper bound.")
    measured_at: str = text("What the speed-up was measured on.")
    measured_speedup: Positive | None = optional(
        "Throughput of the candidate divided by that of the baseline.", unit="ratio"
    )
    speedup_ci95: tuple[NonNegative, NonNegative] | None = optional(
        "Its 95% interval.", unit="ratio"
    )
    outcome: Outcome = text(
        "The prediction compared with the interval. An upper bound is `as predicted` where the "
        "interval does not lie above it."
    )
    num_other_changes: Count = text("Settings that the candidate changes besides.")


class DiagnosisComparison(Record):
    """Where the time went on both sides. Traced times are of one run: they have no interval."""

    breakdowns: tuple[TimeBreakdown, ...] = text("The time by part.")
    verdicts: tuple[VerdictChange, ...] = text("What limits each batch size.")
    suggestions: tuple[SuggestionOutcome, ...] = text("Suggestions that the candidate follows.")
    unavailable: dict[str, str] = text("What could not be compared, with the reason.")
