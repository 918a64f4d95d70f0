"""What limits a batch size: pure functions from evidence to verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from utils.core.rounding import three_digits
from utils.diagnosis.evidence import Evidence
from utils.schema.diagnosis import Bottleneck, Confidence, Verdict

INPUT_SHARE = 0.5
"""From half on, even a model that took no time would not make the batch more than twice as fast."""
CEILING_SHARE = 0.6
"""Real operators reach 60 to 90% of a ceiling: above it, little of the time can be saved."""
DEVICE_IDLE_SHARE = 0.5
"""From half on, the device waits longer for the host than it works."""
OVERHEAD_SHARE = 0.5
"""From half on, starting operators takes longer than all they do."""
DOUBLING_GROWTH = 0.10
"""Where doubling a batch changes its time by at most this, up or down, the time does not depend on
the work."""
PADDING_SHARE = 0.10
"""Padding that takes a tenth of the forward is named whatever else limits it."""
CONFIDENCE_RULE = (
    "high: every number that decided is further from its threshold than it varies, and the"
    " arithmetic (FLOPs) of every operator is known"
)

LIMITED_BY: dict[Verdict, str] = {
    "input-bound": "is limited by preparing the input (input-bound)",
    "overhead-bound": "is limited by starting operators (overhead-bound)",
    "memory-bound": "is limited by the speed of the memory (memory-bound)",
    "compute-bound": "is limited by arithmetic (compute-bound)",
    "no-dominant-limit": "has no dominant limit",
}
"""The verdict in a sentence, for a reader who does not know the word."""
PARTS = {
    "input": "preparing the input",
    "compute": "arithmetic",
    "memory": "moving bytes",
    "overhead": "starting operators",
    "rest": "operators that are slower than this machine's best",
}
"""What each part of the time of a batch is spent on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rule:
    """It holds where ``value``, which may be off by ``spread``, reaches ``threshold``."""

    verdict: Verdict
    text: str
    value: float
    threshold: float
    reason: str
    spread: float

    @property
    def holds(self) -> bool:
        return self.value >= self.threshold

    @property
    def nearness(self) -> float:
        return self.value / self.threshold

    @property
    def is_clear(self) -> bool:
        """Whether the value lies further from the threshold than it spreads."""
        return abs(self.nearness - 1) > self.spread


def classify_bottleneck(evidence: Evidence) -> Bottleneck:
    """The verdict; the first rule that holds decides."""
    rules = _rules(evidence)
    evaluated: list[_Rule] = []
    for rule in rules:
        evaluated.append(rule)
        if rule.holds:
            return _bottleneck(evidence, evaluated, rule)
    nearest = max(rules, key=lambda rule: rule.nearness)
    return _bottleneck(
        evidence,
        evaluated,
        replace(
            nearest,
            verdict="no-dominant-limit",
            text=f"no rule holds; nearest: {nearest.text}",
            reason=_reason_without_limit(evidence),
        ),
    )


def _reason_without_limit(evidence: Evidence) -> str:
    """The largest part of the time, which no rule calls a limit."""
    largest, largest_ms = max(_parts_ms(evidence).items(), key=lambda item: item[1])
    growth = evidence.doubling_growth
    # The overhead is then what does not grow with the batch. By the rule of the doubled batch that
    # is no limit, even if it is most of the time.
    if largest == "overhead" and growth is not None and evidence.starting_ms < largest_ms:
        return (
            f"twice the work changes {_forward(evidence)} by {growth:+.1%}; up to"
            f" {DOUBLING_GROWTH:.0%}, more or less, starting operators would be the limit"
        )
    share = largest_ms / evidence.total_ms
    return f"the largest part of a batch's time is {PARTS[largest]} with {share:.0%}"


def _parts_ms(evidence: Evidence) -> dict[str, float]:
    """What each part takes of a batch, by its name in ``PARTS``.

    The shares of the evidence could not be compared: those of arithmetic, memory and overhead are
    of the forward pass alone.
    """
    forward_ms = evidence.forward_ms
    compute_ms = min(forward_ms, evidence.matmul_limited_ms)
    memory_ms = min(forward_ms, evidence.copy_limited_ms)
    explained_ms = compute_ms + memory_ms + evidence.overhead_ms
    return {
        "input": evidence.input_ms,
        "compute": compute_ms,
        "memory": memory_ms,
        "overhead": evidence.overhead_ms,
        "rest": max(0.0, forward_ms - explained_ms),
    }


def _bottleneck(evidence: Evidence, evaluated: Sequence[_Rule], decisive: _Rule) -> Bottleneck:
    """The verdict of the decisive rule.

    Args:
        evaluated: every rule that had to be looked at.
    """
    verdict = decisive.verdict
    sentence = f"Batch size {evidence.batch_size} {LIMITED_BY[verdict]}: {decisive.reason}"
    return Bottleneck(
        batch_size=evidence.batch_size,
        verdict=verdict,
        rule=decisive.text,
        value=decisive.value,
        threshold=decisive.threshold,
        confidence=_confidence(verdict, evaluated, evidence),
        sentence=f"{sentence}{_padding_clause(evidence)}.",
    )


def _confidence(verdict: Verdict, evaluated: Sequence[_Rule], evidence: Evidence) -> Confidence:
    # Whatever the operators compute, the input decides before they begin.
    flops_known = verdict == "input-bound" or not evidence.unknown_operators
    if flops_known and all(rule.is_clear for rule in evaluated):
        return "high"
    return "low"


def _padding_clause(evidence: Evidence) -> str:
    share = evidence.padding_ms / evidence.forward_ms
    if share < PADDING_SHARE:
        return ""
    return (
        f"; {evidence.padding_fraction:.0%} of its tokens are padding, which takes {share:.0%}"
        " of the forward pass"
    )


def _rules(evidence: Evidence) -> list[_Rule]:
    """In the order in which they decide.

    The busy time is known only where a trace of a CUDA device has it, doubling was tried only on
    the CPU: see ``Evidence``.
    """
    rules = [_input_rule(evidence), _ceiling_rule(evidence)]
    if evidence.device_busy_ms is None:
        rules.append(_starting_rule(evidence))
    else:
        rules.append(_idle_rule(evidence, evidence.device_busy_ms))
    if evidence.doubling_growth is not None:
        rules.append(_doubling_rule(evidence, evidence.doubling_growth))
    return rules


def _input_rule(evidence: Evidence) -> _Rule:
    share = evidence.shares.input
    return _Rule(
        verdict="input-bound",
        text=f"tokenising and copying >= {INPUT_SHARE:.0%} of the batch time",
        value=share,
        threshold=INPUT_SHARE,
        reason=(
            f"tokenising and copying take {share:.0%} of its {three_digits(evidence.total_ms)} ms"
        ),
        spread=evidence.time_spread,
    )


def _ceiling_rule(evidence: Evidence) -> _Rule:
    compute = evidence.shares.compute
    memory = evidence.shares.memory
    verdict: Verdict = "memory-bound"
    work = "moving bytes"
    if compute >= memory:
        verdict = "compute-bound"
        work = "arithmetic"
    return _Rule(
        verdict=verdict,
        text=(
            f"time at the measured ceilings >= {CEILING_SHARE:.0%} of the forward, the larger part"
            " decides"
        ),
        value=compute + memory,
        threshold=CEILING_SHARE,
        reason=(
            f"{work} at the highest speed of this machine alone takes "
            f"{max(compute, memory):.0%} of {_forward(evidence)}"
        ),
        spread=evidence.time_spread + evidence.ceiling_spread,
    )


def _idle_rule(evidence: Evidence, device_busy_ms: float) -> _Rule:
    idle = 1 - device_busy_ms / evidence.forward_ms
    return _Rule(
        verdict="overhead-bound",
        text=f"device idle >= {DEVICE_IDLE_SHARE:.0%} of the forward",
        value=idle,
        threshold=DEVICE_IDLE_SHARE,
        reason=(
            f"the device works in {1 - idle:.0%} of {_forward(evidence)} and waits for the host in"
            " the rest"
        ),
        spread=evidence.time_spread,
    )


def _starting_rule(evidence: Evidence) -> _Rule:
    share = evidence.starting_ms / evidence.forward_ms
    return _Rule(
        verdict="overhead-bound",
        text=f"starting operators >= {OVERHEAD_SHARE:.0%} of the forward",
        value=share,
        threshold=OVERHEAD_SHARE,
        reason=(
            f"starting {evidence.op_calls:,.0f} operators takes {min(1.0, share):.0%} of"
            f" {_forward(evidence)}"
        ),
        spread=evidence.time_spread,
    )


def _doubling_rule(evidence: Evidence, growth: float) -> _Rule:
    # The size of the change counts: a doubled batch that takes much less time is noise. The value
    # is 1 - |growth|, because a rule holds where its value reaches the threshold.
    return _Rule(
        verdict="overhead-bound",
        text=(
            f"doubling the batch changes the forward by at most {DOUBLING_GROWTH:.0%}"
            " (value: 1 - |growth|)"
        ),
        value=1 - abs(growth),
        threshold=1 - DOUBLING_GROWTH,
        reason=f"twice the work changes {_forward(evidence)} by only {growth:+.0%}",
        spread=evidence.time_spread,
    )


def _forward(evidence: Evidence) -> str:
    return f"the {three_digits(evidence.forward_ms)} ms of the forward pass"
