"""The suggestions of a diagnosis in words, for the terminal and the reports alike."""

from __future__ import annotations

from utils.reporting.formatting import format_number
from utils.schema.diagnosis import Diagnosis, Suggestion, Verification


def suggestion_lines(diagnosis: Diagnosis) -> list[str]:
    """The suggestions that save most, each with its cause and what to try.

    Savings overlap: they do not add up.
    """
    return [_suggestion_line(suggestion) for suggestion in diagnosis.suggestions]


def _suggestion_line(suggestion: Suggestion) -> str:
    saving = format_number(suggestion.saving_ms, "ms")
    share = f"{format_number(suggestion.saving_pct)}%"
    speedup = ""
    if suggestion.predicted_speedup is not None:
        speedup = f", {_prediction_text(suggestion, suggestion.predicted_speedup)}"
    setting = "no matching setting"
    if suggestion.setting is not None:
        setting = f"--set {suggestion.setting}"
    return (
        f"{suggestion.title}: up to {saving} ({share}) of a batch{speedup}; "
        f"{suggestion.cause}: {suggestion.evidence}. Try: {suggestion.advice} ({setting})"
    )


def _prediction_text(suggestion: Suggestion, predicted_speedup: float) -> str:
    bound = "at most " if suggestion.prediction == "upper-bound" else ""
    return f"{bound}{predicted_speedup:.2f} times as fast"


def verified_lines(diagnosis: Diagnosis) -> list[str]:
    """What trying the suggestions showed, each alone; empty where they were not tried."""
    lines = []
    for suggestion in diagnosis.all_suggestions:
        if suggestion.verification is not None:
            setting = suggestion.setting or "no setting"
            outcome = _verification_text(suggestion, suggestion.verification)
            lines.append(f"{suggestion.title} ({setting}): {outcome}")
    return lines


def _verification_text(suggestion: Suggestion, verification: Verification) -> str:
    if verification.measured_speedup is None:
        return f"not tried: {verification.reason}"
    text = f"measured {verification.measured_speedup:.2f}"
    if verification.predicted_speedup is not None:
        predicted = _prediction_text(suggestion, verification.predicted_speedup)
        text = f"predicted {predicted}, {text}"
    num_texts = format_number(verification.num_texts)
    rounds = f"{verification.num_rounds} rounds of {num_texts} texts"
    if verification.ci95 is not None:
        low, high = verification.ci95
        rounds = f"95% interval {low:.2f} to {high:.2f}, {rounds}"
    text += f" ({rounds})"
    if verification.label_agreement is not None:
        text += f"; {verification.label_agreement:.2%} of the labels equal"
    return text
