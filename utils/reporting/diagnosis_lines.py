"""The suggestions of a diagnosis in words, for the terminal and the reports alike."""

from __future__ import annotations

from utils.reporting.formatting import format_number, format_percent, speedup_text
from utils.reporting.text_layout import PAGE, verbatim
from utils.schema.baseline import EVALUATION_ROAD, SWEEP_ROAD
from utils.schema.diagnosis import Diagnosis, Prediction, Suggestion, Verification

INDENT = "   "
WIDE_INTERVAL = 0.1
"""The upper end of a speed-up's interval over the lower one, less 1, from which it is rough."""


def suggestion_lines(diagnosis: Diagnosis) -> list[str]:
    """The suggestions that are worth a try first: gain, what to try, the setting, and why.

    Lines of at most 80 columns but for the settings, which are there to be copied; none without
    suggestions.
    """
    if not diagnosis.suggestions:
        return []
    size = diagnosis.detail_batch_size
    start = "What to try."
    if diagnosis.noise is not None:
        start = "What to try after measuring again, because no time is stable."
    lines = PAGE.wrap(
        f"{start} Savings are of a batch of {size} ({SWEEP_ROAD}); they overlap, so that they do "
        "not add up."
    )
    for place, suggestion in enumerate(diagnosis.suggestions, start=1):
        title = f"{suggestion.title}: {_gain_text(suggestion)}"
        lines += PAGE.wrap(title, f"{place}. ", INDENT)
        lines += _paragraph("Try", f"{suggestion.advice}{_road_clause(suggestion.setting)}")
        if suggestion.setting is not None:
            lines.append(verbatim(f"--set {suggestion.setting}"))
        lines += _paragraph("Why", f"{suggestion.cause}: {suggestion.evidence}")
        if suggestion.caution is not None:
            lines += _paragraph("Rough", suggestion.caution)
    return lines


def _paragraph(name: str, text: str) -> list[str]:
    return PAGE.wrap(f"{name}: {text}.", INDENT, INDENT)


def _road_clause(setting: str | None) -> str:
    """Which of the two measurements a setting changes."""
    if setting is None:
        return "; no setting does it"
    if setting.startswith("evaluation."):
        return f"; this changes the {EVALUATION_ROAD}"
    if setting.startswith("profiling.batch_sizes"):
        return f"; this changes the {SWEEP_ROAD}"
    return f"; this changes the {SWEEP_ROAD} and the {EVALUATION_ROAD}"


def _gain_text(suggestion: Suggestion) -> str:
    """What it brings: what was measured replaces what was predicted."""
    verification = suggestion.verification
    if verification is not None and verification.measured_speedup is not None:
        return f"measured {speedup_text(verification.measured_speedup, verification.ci95)}"
    amount = "at most" if suggestion.prediction == "upper-bound" else "about"
    saving = format_number(suggestion.saving_ms, "ms")
    text = f"saves {amount} {saving} ({suggestion.saving_pct:.0f}%) of a batch"
    if suggestion.predicted_speedup is not None:
        text += f", {_prediction_text(suggestion.prediction, suggestion.predicted_speedup)}"
    return text


def _prediction_text(prediction: Prediction | None, predicted_speedup: float) -> str:
    bound = "at most " if prediction == "upper-bound" else ""
    return f"{bound}{speedup_text(predicted_speedup)}"


def verified_lines(diagnosis: Diagnosis) -> list[str]:
    """What trying the suggestions showed, each alone; empty where they were not tried."""
    lines = []
    for suggestion in diagnosis.all_suggestions:
        if suggestion.verification is not None:
            setting = suggestion.setting or "no setting"
            outcome = _verification_text(suggestion.prediction, suggestion.verification)
            lines.append(f"{suggestion.title} ({setting}): {outcome}")
    for tried in diagnosis.tried_settings:
        lines.append(f"{tried.setting}: {_verification_text(None, tried)}")
    return lines


def _verification_text(prediction: Prediction | None, verification: Verification) -> str:
    if verification.measured_speedup is None:
        return f"not tried: {verification.reason}"
    text = f"measured {speedup_text(verification.measured_speedup, verification.ci95)}"
    if verification.predicted_speedup is not None:
        predicted = _prediction_text(prediction, verification.predicted_speedup)
        text = f"predicted {predicted}, {text}"
    num_texts = format_number(verification.num_texts)
    rounds = f"{verification.num_rounds} rounds of {num_texts} texts"
    if verification.ci95 is not None:
        low, high = verification.ci95
        if high / low - 1 > WIDE_INTERVAL:
            rounds += "; the interval is wide: try it again on a quieter machine"
    text += f", in {rounds}"
    if verification.label_agreement is not None:
        text += f"; {_label_text(verification.label_agreement, verification)}"
    return text


def _label_text(share: float, verification: Verification) -> str:
    """The share of equal labels, as exactly as its interval allows."""
    if verification.label_agreement_ci95 is None:
        return f"{format_percent(share)} of the labels equal"
    low, high = verification.label_agreement_ci95
    count = format_number(verification.num_label_texts)
    interval = f"95% interval {format_percent(low)} to {format_percent(high)}"
    return f"{format_percent(share)} of {count} labels equal ({interval})"
