"""The suggestions of a diagnosis in words, for the terminal and the reports alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from utils.reporting.formatting import DASH, format_number


def suggestion_lines(diagnosis: Mapping[str, Any]) -> list[str]:
    """The suggestions that save most, each with its cause and what to try.

    Savings overlap: they do not add up.
    """
    return [_suggestion_line(suggestion) for suggestion in diagnosis["suggestions"]]


def _suggestion_line(suggestion: Mapping[str, Any]) -> str:
    speedup = ""
    if suggestion.get("predicted_speedup") is not None:
        speedup = f", {_speedup_text(suggestion, suggestion['predicted_speedup'])}"
    setting = "no matching setting"
    if suggestion.get("setting"):
        setting = f"--set {suggestion['setting']}"
    return (
        f"{suggestion['title']}: up to {format_number(suggestion['saving_ms'], 'ms')}"
        f" ({format_number(suggestion['saving_pct'])}%) of a batch{speedup};"
        f" {suggestion.get('cause') or DASH}: {suggestion.get('evidence') or DASH}."
        f" Try: {suggestion.get('advice') or DASH} ({setting})"
    )


def _speedup_text(suggestion: Mapping[str, Any], predicted: float) -> str:
    bound = "at most " if suggestion.get("prediction") == "upper-bound" else ""
    return f"{bound}{predicted:.2f} times as fast"


def verified_lines(diagnosis: Mapping[str, Any]) -> list[str]:
    """What trying the suggestions showed, each alone; empty where they were not tried."""
    lines = []
    for suggestion in (*diagnosis["suggestions"], *diagnosis.get("further_suggestions", ())):
        if suggestion.get("verification"):
            setting = suggestion["setting"] or "no setting"
            lines.append(f"{suggestion['title']} ({setting}): {_verification_text(suggestion)}")
    return lines


def _verification_text(suggestion: Mapping[str, Any]) -> str:
    verified = suggestion["verification"]
    if verified["reason"]:
        return f"not tried: {verified['reason']}"
    low, high = verified["ci95"]
    return (
        f"predicted {_speedup_text(suggestion, verified['predicted_speedup'])},"
        f" measured {verified['measured_speedup']:.2f}"
        f" (95% interval {low:.2f} to {high:.2f}, {verified['num_rounds']} rounds of"
        f" {format_number(verified['num_texts'])} texts);"
        f" {verified['label_agreement']:.2%} of the labels equal"
    )
