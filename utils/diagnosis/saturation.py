"""From which batch size on larger ones stop helping, and why: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from utils.schema.diagnosis import Bottleneck, Saturation, SaturationCause, Verdict

MIN_GAIN = 0.05
"""A larger batch that gains less does not help: half of what perf_analyzer calls unstable."""
LIMITS: dict[Verdict, SaturationCause] = {
    "input-bound": "input-bound",
    "memory-bound": "memory-bound",
    "compute-bound": "compute-bound",
}
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


def find_saturation(
    throughputs: Sequence[Throughput], source: str, bottlenecks: Mapping[int, Bottleneck]
) -> Saturation:
    """Where larger batches stop helping.

    Where tokens computed a second go on growing after it, padding is the reason; else the verdict
    that limits the largest batches.

    Args:
        bottlenecks: by batch size.
    """
    batch_size: int | None = None
    limited_by: SaturationCause | None = None
    if not throughputs:
        sentence = "Step 02 measures which batch size is best."
    else:
        rising = sorted(throughputs, key=attrgetter("batch_size"))
        last = rising[-1]
        saturated = _first_saturated(rising)
        if saturated is last:
            sentence = _still_helping(last, len(rising))
        else:
            batch_size = saturated.batch_size
            limited_by = _cause(saturated, last, bottlenecks)
            reason = _reason(limited_by, saturated, last, bottlenecks)
            sentence = (
                f"From batch size {batch_size} on, larger batches are not faster, because {reason}."
            )
    return Saturation(
        batch_size=batch_size,
        verdict_at_smallest=_verdict_at(bottlenecks, min(bottlenecks, default=None)),
        verdict_at_largest=_verdict_at(bottlenecks, max(bottlenecks, default=None)),
        limited_by=limited_by,
        source=source,
        sentence=sentence,
    )


def _verdict_at(bottlenecks: Mapping[int, Bottleneck], size: int | None) -> Verdict | None:
    return None if size is None else bottlenecks[size].verdict


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
    return f"Larger batches are faster up to the largest batch size, {last.batch_size}: {reason}."


def _cause(
    saturated: Throughput, last: Throughput, bottlenecks: Mapping[int, Bottleneck]
) -> SaturationCause | None:
    """What limits the larger batches; None where neither arithmetic nor the memory does."""
    if last.computed_tokens > (1 + MIN_GAIN) * saturated.computed_tokens:
        return "padding"
    return LIMITS.get(bottlenecks[max(bottlenecks)].verdict)


def _reason(
    cause: SaturationCause | None,
    saturated: Throughput,
    last: Throughput,
    bottlenecks: Mapping[int, Bottleneck],
) -> str:
    """The cause in a clause."""
    if cause == "padding":
        return (
            f"padding grows from {saturated.padding_fraction:.0%} to {last.padding_fraction:.0%}"
            f" of the tokens at {last.batch_size} and uses up what batching saves"
        )
    if cause is None:
        return (
            "no more tokens are computed per second; batch size"
            f" {max(bottlenecks)} itself is limited neither by arithmetic nor by the memory"
        )
    return f"batch size {max(bottlenecks)} is {cause}"
