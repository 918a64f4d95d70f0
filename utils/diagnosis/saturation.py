"""From which batch size on larger ones stop helping, and why: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from utils.diagnosis.bottleneck import Bottleneck

MIN_GAIN = 0.05
"""A larger batch that gains less does not help: half of what perf_analyzer calls unstable."""
LIMITS = frozenset(("input-bound", "memory-bound", "compute-bound"))
"""Verdicts under which larger batches cannot help; under the others they would."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """Of one batch size, over the same texts as the other sizes."""

    batch_size: int
    samples_per_s: float
    padding_fraction: float

    @property
    def computed_tokens(self) -> float:
        """Tokens a second, padding counted, but for a factor that all sizes share."""
        # Texts may be empty, all of them: then everything is padding.
        return self.samples_per_s / max(1 - self.padding_fraction, 1e-6)


@dataclass(frozen=True, kw_only=True, slots=True)
class Saturation:
    """Where larger batches stop helping.

    Args:
        batch_size: the smallest that no larger one beats by more than ``MIN_GAIN``; None where
            larger ones help to the end, or no throughput is known.
        verdict_at_smallest, verdict_at_largest: of the smallest and the largest batch size that was profiled.
        limited_by: ``padding`` or the verdict that limits the larger ones; None where it is not known.
        source: where the throughputs come from.
    """

    batch_size: int | None
    verdict_at_smallest: str | None
    verdict_at_largest: str | None
    limited_by: str | None
    source: str
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "verdict_at_smallest": self.verdict_at_smallest,
            "verdict_at_largest": self.verdict_at_largest,
            "limited_by": self.limited_by,
            "source": self.source,
            "sentence": self.sentence,
        }


def find_saturation(
    throughputs: Sequence[Throughput], source: str, bottlenecks: Mapping[int, Bottleneck]
) -> Saturation:
    """Where larger batches stop helping.

    Where tokens computed a second go on growing after it, padding is the reason; else the verdict
    that limits the largest batches.

    Args:
        bottlenecks: by batch size.
    """
    batch_size = None
    limited_by = None
    if not throughputs:
        sentence = "Which batch size is best, step 02 measures."
    else:
        rising = sorted(throughputs, key=attrgetter("batch_size"))
        last = rising[-1]
        saturated = _first_saturated(rising)
        if saturated is last:
            sentence = _still_helping(last, len(rising))
        else:
            batch_size = saturated.batch_size
            limited_by, reason = _reason(saturated, last, bottlenecks)
            sentence = (
                f"From batch size {batch_size} on larger batches stop helping, because {reason}."
            )
    return Saturation(
        batch_size=batch_size,
        verdict_at_smallest=bottlenecks[min(bottlenecks)].verdict if bottlenecks else None,
        verdict_at_largest=bottlenecks[max(bottlenecks)].verdict if bottlenecks else None,
        limited_by=limited_by,
        source=source,
        sentence=sentence,
    )


def _first_saturated(rising: Sequence[Throughput]) -> Throughput:
    """The smallest that none of the larger ones beats by more than ``MIN_GAIN``."""
    best_above = 0.0
    saturated = rising[-1]
    for throughput in reversed(rising):
        if best_above <= (1 + MIN_GAIN) * throughput.samples_per_s:
            saturated = throughput
        best_above = max(best_above, throughput.samples_per_s)
    return saturated


def _still_helping(last: Throughput, number: int) -> str:
    reason = "no larger one was tried" if number > 1 else "it is the only one that was tried"
    return f"Larger batches help up to the largest batch size, {last.batch_size}: {reason}."


def _reason(
    saturated: Throughput, last: Throughput, bottlenecks: Mapping[int, Bottleneck]
) -> tuple[str | None, str]:
    """What limits the larger batches, as a word and in a clause."""
    if last.computed_tokens > (1 + MIN_GAIN) * saturated.computed_tokens:
        clause = (
            f"padding grows from {saturated.padding_fraction:.0%} to {last.padding_fraction:.0%}"
            f" of the tokens at {last.batch_size} and uses up what batching saves"
        )
        return "padding", clause
    largest = max(bottlenecks)
    verdict = bottlenecks[largest].verdict
    if verdict in LIMITS:
        return verdict, f"batch size {largest} is {verdict}"
    return None, "tokens computed a second no longer grow, though no ceiling is near"
