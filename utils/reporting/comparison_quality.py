"""The predictions of two sides in words and tables: quality, classes, rows that changed."""

from __future__ import annotations

from collections.abc import Sequence

from utils.comparison.quality_sides import chance_reason
from utils.reporting.comparison_tables import format_signed
from utils.reporting.formatting import (
    DASH,
    Fact,
    format_change,
    format_change_interval,
    format_number,
    format_percent,
    format_score,
)
from utils.reporting.tables import Table
from utils.schema.comparison import Comparison
from utils.schema.comparison_quality import ClassChange, QualityComparison

SCORES = {"accuracy": "Accuracy", "f1_macro": "Macro F1", "f1_weighted": "Weighted F1"}


def quality_text(comparison: Comparison) -> str:
    """The conclusion on quality in one sentence."""
    quality = comparison.quality
    if quality is None:
        return f"not compared row by row: {comparison.quality_reason}{_accuracies(comparison)}"
    agreement = f"{format_percent(quality.label_agreement)} of the labels are the same"
    if quality.accuracy_change is None or quality.accuracy_change_ci95 is None:
        reason = quality.reason("accuracy_change")
        text = f"{agreement}; accuracy is not measured: {reason}"
    else:
        change = points(quality.accuracy_change, quality.accuracy_change_ci95)
        interval = points_interval(quality.accuracy_change_ci95)
        text = f"accuracy {change} (95% interval {interval}), {_significance(quality)}; {agreement}"
    if comparison.quality_reason is not None:
        text += f" (forced: {comparison.quality_reason})"
    return text


def _accuracies(comparison: Comparison) -> str:
    """The accuracies of the metrics files; empty where one is not known."""
    before = comparison.baseline.accuracy
    after = comparison.candidate.accuracy
    if before is None or after is None:
        return ""
    return f"; accuracy {before:.4f} and {after:.4f} in the metrics files"


def _significance(quality: QualityComparison) -> str:
    assert quality.accuracy_change_ci95 is not None
    low, high = quality.accuracy_change_ci95
    if low <= 0 <= high:
        return "no difference shown"
    reason = chance_reason(quality, "accuracy")
    if reason is not None:
        return f"no difference shown: {reason}"
    return "better" if low > 0 else "worse"


def points(change: float, interval: tuple[float, float] | None = None) -> str:
    """A change of a fraction in percentage points, in the digits that its interval allows."""
    in_points = None if interval is None else _in_points(interval)
    return format_change(100 * change, in_points, "pp")


def points_interval(interval: tuple[float, float]) -> str:
    """An interval of a change in percentage points."""
    return format_change_interval(_in_points(interval))


def _in_points(interval: tuple[float, float]) -> tuple[float, float]:
    return 100 * interval[0], 100 * interval[1]


def quality_facts(comparison: Comparison) -> list[Fact]:
    """How often the sides agree, and what tests say; empty without predictions of both sides."""
    quality = comparison.quality
    if quality is None:
        return []
    facts = [
        Fact("Rows", f"{quality.num_rows:,}, of which {quality.num_labelled:,} have a label"),
        Fact(
            "Labels changed",
            f"{quality.num_changed:,} ({format_percent(1 - quality.label_agreement)})",
        ),
    ]
    if quality.mcnemar_p is not None:
        facts += [
            Fact(
                "Right on one side",
                f"{quality.num_only_baseline_correct:,} only in the baseline, "
                f"{quality.num_only_candidate_correct:,} only in the candidate",
            ),
            Fact("McNemar's exact test", f"p = {quality.mcnemar_p:.3g}"),
        ]
    return facts


def score_table(comparison: Comparison) -> Table | None:
    """Accuracy and F1 on both sides with the interval of the change; None without labels."""
    quality = comparison.quality
    if quality is None or quality.accuracy_change is None:
        return None
    rows = []
    for name, title in SCORES.items():
        change: float | None = getattr(quality, f"{name}_change")
        interval: tuple[float, float] | None = getattr(quality, f"{name}_change_ci95")
        rows.append(
            (
                title,
                _score(getattr(quality, f"{name}_baseline"), interval),
                _score(getattr(quality, f"{name}_candidate"), interval),
                DASH if change is None else points(change, interval),
                DASH if interval is None else points_interval(interval),
            )
        )
    return Table(
        caption="Quality on the complete data set, row by row",
        header=("Score", "Baseline", "Candidate", "Change", "95% interval (pp)"),
        rows=tuple(rows),
    )


def _score(value: float | None, change: tuple[float, float] | None) -> str:
    """A score in as many digits as the interval of its change, so that the change is visible."""
    if value is None or change is None:
        return format_score(value)
    half_width = (change[1] - change[0]) / 2
    return format_score(value, value - half_width, value + half_width)


def class_table(comparison: Comparison) -> Table | None:
    """The labels that lost and gained most; None where none did."""
    quality = comparison.quality
    if quality is None:
        return None
    changed = [*quality.classes_lost, *quality.classes_gained]
    if not changed:
        return None
    return Table(
        caption="Labels that lost or gained most rows that are predicted right",
        header=("Label", "Rows", "Right before", "Right after", "Change", "F1 before", "F1 after"),
        rows=tuple(_class_cells(item) for item in changed),
    )


def _class_cells(item: ClassChange) -> tuple[str, ...]:
    return (
        item.label,
        format_number(item.support),
        format_number(item.num_correct_baseline),
        format_number(item.num_correct_candidate),
        format_signed(item.num_correct_candidate - item.num_correct_baseline),
        format_score(item.f1_baseline),
        format_score(item.f1_candidate),
    )


def changed_row_table(comparison: Comparison, max_rows: int | None = None) -> Table | None:
    """The rows whose label changed and of which both sides are most confident."""
    quality = comparison.quality
    if quality is None or not quality.changed_rows:
        return None
    names = comparison.label_names
    has_texts = any(row.text is not None for row in quality.changed_rows)
    rows = []
    for row in quality.changed_rows[:max_rows]:
        cells = [
            str(row.row_id),
            _label(row.label_id, names),
            _label(row.predicted_id_baseline, names),
            f"{row.probability_baseline:.3f}",
            _label(row.predicted_id_candidate, names),
            f"{row.probability_candidate:.3f}",
        ]
        if has_texts:
            cells.append(row.text or DASH)
        rows.append(tuple(cells))
    header = ["Row", "True label", "Baseline", "p", "Candidate", "p"]
    if has_texts:
        header.append("Text")
    return Table(
        caption="Rows whose label changed, those first of which both sides are most confident",
        header=tuple(header),
        rows=tuple(rows),
        num_text_columns=len(header),
        note="" if has_texts else "the texts are left out (--show-texts)",
    )


def _label(label_id: int | None, names: Sequence[str]) -> str:
    if label_id is None:
        return DASH
    if label_id >= len(names):
        return str(label_id)
    return names[label_id]
