"""The diagnosis in a few sentences: the verdict, how sure it is, and what to try first."""

from __future__ import annotations

from collections.abc import Sequence

from utils.core.rounding import round_value
from utils.schema.baseline import SWEEP_ROAD
from utils.schema.diagnosis import Bottleneck, Saturation, Suggestion, Verification


def main_bottleneck_text(
    bottleneck: Bottleneck,
    saturation: Saturation | None,
    suggestions: Sequence[Suggestion],
    *,
    is_noisy: bool = False,
) -> str:
    """The verdict, where larger batches stop helping, and the first suggestion.

    Args:
        suggestions: in the order in which they are worth a try.
        is_noisy: no batch size of the sweep is stable, so that what is predicted is rough.
    """
    sentences = [
        f"In the {SWEEP_ROAD}: {bottleneck.sentence}",
        _confidence_sentence(bottleneck),
    ]
    if saturation is not None:
        sentences.append(saturation.sentence)
    sentences.append(_first_sentence(suggestions, is_noisy))
    return " ".join(sentences)


def _confidence_sentence(bottleneck: Bottleneck) -> str:
    if not bottleneck.doubts:
        return f"Confidence: {bottleneck.confidence}."
    return (
        f"Confidence: {bottleneck.confidence}, because {'; '.join(bottleneck.doubts)}. "
        "What follows is rough for the same reason."
    )


def _first_sentence(suggestions: Sequence[Suggestion], is_noisy: bool) -> str:
    if not suggestions:
        return "No suggestion would save 1% of the time or more."
    first = suggestions[0]
    start = "First to try"
    verification = first.verification
    if verification is not None and verification.measured_speedup is not None:
        if not is_faster(verification):
            return "What was tried made nothing measurably faster."
        rounded = round_value(verification.measured_speedup, *(verification.ci95 or ()))
        gain = f"measured: {rounded.value} times as fast"
    else:
        amount = "about" if first.prediction == "estimate" else "at most"
        if is_noisy:
            start = "Measure again first, because no time is stable; then try"
        gain = f"predicted to save {amount} {first.saving_pct:.0f}% of the time of a batch"
    text = f"{start}: {first.advice} ({gain})."
    if first.caution is not None:
        text += f" This is a rough estimate: {first.caution}."
    return text


def rank(suggestion: Suggestion) -> tuple[int, float]:
    """The key by which suggestions are sorted: what is worth a try comes first.

    What was measured to be faster, the fastest on top; then what is known to be saved, what may be
    saved at most, what rests on too few calls; last what was tried in vain.
    """
    verification = suggestion.verification
    if verification is not None and verification.measured_speedup is not None:
        place = 0 if is_faster(verification) else 4
        return (place, -verification.measured_speedup)
    if suggestion.caution is not None:
        return (3, -suggestion.saving_ms)
    place = 1 if suggestion.prediction == "estimate" else 2
    return (place, -suggestion.saving_ms)


def is_faster(verification: Verification) -> bool:
    """Whether trying it has shown a speed-up that is more than chance."""
    if verification.measured_speedup is None:
        return False
    if verification.ci95 is None:
        return verification.measured_speedup > 1.0
    return verification.ci95[0] > 1.0
