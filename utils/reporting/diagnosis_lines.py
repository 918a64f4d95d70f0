"""The suggestions of a diagnosis in words, for the terminal and the reports alike."""

from __future__ import annotations

from utils.reporting.formatting import format_number
from utils.schema.baseline import EVALUATION_ROAD, SWEEP_ROAD
from utils.schema.diagnosis import Diagnosis, Prediction, Suggestion, Verification

WIDE_INTERVAL = 0.1
"""The upper end of a speed-up's interval over the lower one, less 1, from which it is rough."""


def suggestion_lines(diagnosis: Diagnosis) -> list[str]:
    """The suggestions that are worth a try first, each with its cause and what to try.

    Savings overlap: they do not add up.
    """
    return [_suggestion_line(suggestion) for suggestion in diagnosis.suggestions]


def _suggestion_line(suggestion: Suggestion) -> str:
    text = (
        f"{suggestion.title}: {_gain_text(suggestion)}. Why: {suggestion.cause} "
        f"({suggestion.evidence}). Try: {suggestion.advice} ({setting_text(suggestion)})"
    )
    if suggestion.caution is not None:
        text += f". Rough: {suggestion.caution}"
    return text


def _gain_text(suggestion: Suggestion) -> str:
    """What it brings: what was measured replaces what was predicted."""
    verification = suggestion.verification
    if verification is not None and verification.measured_speedup is not None:
        text = f"measured {verification.measured_speedup:.2f} times as fast"
        if verification.ci95 is not None:
            low, high = verification.ci95
            text += f" (95% interval {low:.2f} to {high:.2f})"
        return text
    amount = "at most" if suggestion.prediction == "upper-bound" else "about"
    saving = format_number(suggestion.saving_ms, "ms")
    text = f"saves {amount} {saving} ({suggestion.saving_pct:.0f}%) of a batch"
    if suggestion.predicted_speedup is not None:
        text += f", {_prediction_text(suggestion.prediction, suggestion.predicted_speedup)}"
    return text


def setting_text(suggestion: Suggestion) -> str:
    """How to try a suggestion, and which road that changes."""
    setting = suggestion.setting
    if setting is None:
        return "no setting does it"
    if setting.startswith("evaluation."):
        return f"--set {setting}, changes the {EVALUATION_ROAD}"
    if setting.startswith("profiling.batch_sizes"):
        return f"--set {setting}, changes the {SWEEP_ROAD}"
    return f"--set {setting}, changes both roads"


def _prediction_text(prediction: Prediction | None, predicted_speedup: float) -> str:
    bound = "at most " if prediction == "upper-bound" else ""
    return f"{bound}{predicted_speedup:.2f} times as fast"


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
    text = f"measured {verification.measured_speedup:.2f}"
    if verification.predicted_speedup is not None:
        predicted = _prediction_text(prediction, verification.predicted_speedup)
        text = f"predicted {predicted}, {text}"
    num_texts = format_number(verification.num_texts)
    rounds = f"{verification.num_rounds} rounds of {num_texts} texts"
    if verification.ci95 is not None:
        low, high = verification.ci95
        rounds = f"95% interval {low:.2f} to {high:.2f}, {rounds}"
        if high / low - 1 > WIDE_INTERVAL:
            rounds += "; the interval is wide: try it again on a quieter machine"
    text += f" ({rounds})"
    if verification.label_agreement is not None:
        text += f"; {_label_text(verification.label_agreement, verification)}"
    return text


def _label_text(share: float, verification: Verification) -> str:
    """The share of equal labels, as exactly as its interval allows."""
    if verification.label_agreement_ci95 is None:
        return f"{share:.2%} of the labels equal"
    low, high = verification.label_agreement_ci95
    count = format_number(verification.num_label_texts)
    return f"{share:.1%} of {count} labels equal (95% interval {low:.1%} to {high:.1%})"
