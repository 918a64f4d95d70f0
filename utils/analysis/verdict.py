"""Numbers in, verdict out: pure functions without torch, files or printing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from utils.analysis.forecast import Timed

INPUT_SHARE = 0.5
"""From half on, even a model that took no time would not make the batch more than twice as fast: the input decides."""
CEILING_SHARE = 0.6
"""Real operators reach 60 to 90% of a ceiling; with 60% of the time explained by one, little else is left to win."""
DEVICE_IDLE_SHARE = 0.5  # from half on, the device waits longer for the host than it works
OVERHEAD_SHARE = 0.5  # from half on, starting operators takes longer than all they do
DOUBLING_GROWTH = 0.10  # a batch twice as large that takes at most this much longer: the time does not depend on the work
PADDING_SHARE = 0.10  # padding that takes a tenth of the forward is worth a word whatever else limits it
HELPS = 0.05  # a larger batch size that is not this much faster does not help: half of what perf_analyzer calls unstable
CONFIDENCE = "high: every number that decided lies further from its threshold than it spreads, and every operator's FLOPs are known"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What was measured and counted at one batch size, per batch; latencies from untraced runs.

    Args:
        matmul_limited_ms, copy_limited_ms: time at the ceilings of the operators that each of them limits.
        op_calls: operators started in one forward; ``dispatch_us`` is what starting one takes.
        device_busy_ms: CUDA kernels' merged time in a forward; None on the CPU and where it is not measured.
        doubling_growth: by how much a batch put twice into one takes longer (1 is twice); None where it was not tried.
        unknown_operators: operators without a FLOP formula; their bytes count, their FLOPs are not in ``flops``.
        timed: rows, padded length and milliseconds of each batch's forward.
        time_spread: the middle repeat's time over the fastest's, less 1; ``ceiling_spread``: the same of the ceilings.
    """

    device: str
    batch_size: int
    tokenize_ms: float
    host_to_device_ms: float
    forward_ms: float
    device_to_host_ms: float
    matmul_limited_ms: float
    copy_limited_ms: float
    op_calls: float
    dispatch_us: float
    flops: float
    bytes_moved: float
    device_busy_ms: float | None = None
    doubling_growth: float | None = None
    padding_fraction: float | None = None
    unknown_operators: tuple[str, ...] = ()
    timed: tuple[Timed, ...] = ()
    time_spread: float = 0.0
    ceiling_spread: float = 0.0

    @property
    def input_ms(self) -> float:
        return self.tokenize_ms + self.host_to_device_ms + self.device_to_host_ms

    @property
    def total_ms(self) -> float:
        return self.input_ms + self.forward_ms

    @property
    def floor_ms(self) -> float:
        """Time of the forward at the ceilings; never above what was measured (caches can beat a ceiling)."""
        return min(self.forward_ms, self.matmul_limited_ms + self.copy_limited_ms)

    @property
    def overhead_ms(self) -> float:
        """Forward time that is neither arithmetic nor copying: the host's work to start operators.

        On CUDA the device's idle time. On the CPU the started operators times the price of starting one or, if that is
        more, the part that a doubled batch shows not to grow (2 t(B) - t(2B) of a straight line), less the floor.
        """
        if self.device_busy_ms is not None:
            return max(0.0, self.forward_ms - self.device_busy_ms)
        growth = 1.0 if self.doubling_growth is None else max(0.0, self.doubling_growth)
        fixed = (1 - growth) * self.forward_ms - self.floor_ms
        return min(self.forward_ms, max(self.op_calls * self.dispatch_us / 1e3, fixed))

    @property
    def padding_ms(self) -> float:
        """Forward time spent on padding; what starting operators takes does not shrink with the tokens."""
        return (self.padding_fraction or 0.0) * (self.forward_ms - self.overhead_ms)

    @property
    def shares(self) -> dict[str, float]:
        """Parts of the forward (``input``: of the batch time) that each cause explains; at most 1 each."""
        parts = {"compute": self.matmul_limited_ms, "memory": self.copy_limited_ms, "overhead": self.overhead_ms}
        shares = {name: min(1.0, part / self.forward_ms) for name, part in parts.items()}
        return {"input": self.input_ms / self.total_ms, **shares}

    def to_dict(self) -> dict[str, Any]:
        shares = {f"{name}_share": share for name, share in self.shares.items()}
        return {**asdict(self), **shares, "overhead_ms": self.overhead_ms, "padding_ms": self.padding_ms}


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What limits one batch size, the rule that decided with its number and threshold, and one sentence for a person."""

    verdict: str
    rule: str
    number: float
    threshold: float
    confidence: str
    sentence: str


class _Rule(NamedTuple):
    """A rule holds where ``number`` reaches ``threshold``; ``spread`` is by how much the number could be another."""

    verdict: str
    text: str
    number: float
    threshold: float
    reason: str
    spread: float


def decide(found: Evidence) -> Verdict:
    """The verdict; the first rule that holds decides."""
    tried: list[_Rule] = []
    for rule in _rules(found):
        tried.append(rule)
        if rule.number >= rule.threshold:
            verdict, text, said = rule.verdict, rule.text, f"is {rule.verdict}: {rule.reason}"
            break
    else:
        rule, shares = max(tried, key=lambda rule: rule.number / rule.threshold), found.shares
        largest = max(shares, key=lambda name: shares[name])
        verdict, text = "none-near", f"no rule holds; nearest: {rule.text}"
        said = f"is near no limit: {largest} is largest with {shares[largest]:.0%}"
    if (padded := found.padding_ms / found.forward_ms) >= PADDING_SHARE:
        said += f"; {found.padding_fraction:.0%} of its tokens are padding, which takes {padded:.0%} of the forward pass"
    known = verdict == "input-bound" or not found.unknown_operators
    clear = all(abs(one.number / one.threshold - 1) > one.spread for one in tried)
    return Verdict(
        verdict=verdict, rule=text, number=rule.number, threshold=rule.threshold, confidence="high" if known and clear else "low",
        sentence=f"Batch size {found.batch_size} {said}.",
    )


def _rules(found: Evidence) -> Iterator[_Rule]:
    shares, spread, forward = found.shares, found.time_spread, f"the {found.forward_ms:.3g} ms of the forward pass"
    yield _Rule("input-bound", f"tokenising and copying >= {INPUT_SHARE:.0%} of the batch time", shares["input"], INPUT_SHARE,
                f"tokenising and copying take {shares['input']:.0%} of its {found.total_ms:.3g} ms", spread)
    larger, doing = max(("compute", "arithmetic"), ("memory", "moving bytes"), key=lambda pair: shares[pair[0]])
    yield _Rule(f"{larger}-bound", f"time at the measured ceilings >= {CEILING_SHARE:.0%} of the forward, the larger part decides",
                shares["compute"] + shares["memory"], CEILING_SHARE,
                f"{doing} at the measured ceiling alone takes {shares[larger]:.0%} of {forward}", spread + found.ceiling_spread)
    if found.device_busy_ms is not None:
        idle = 1 - found.device_busy_ms / found.forward_ms
        yield _Rule("overhead-bound", f"device idle >= {DEVICE_IDLE_SHARE:.0%} of the forward", idle, DEVICE_IDLE_SHARE,
                    f"the device works in {1 - idle:.0%} of {forward} and waits for the host in the rest", spread)
    else:
        starting = found.op_calls * found.dispatch_us / 1e3 / found.forward_ms
        yield _Rule("overhead-bound", f"starting operators >= {OVERHEAD_SHARE:.0%} of the forward", starting, OVERHEAD_SHARE,
                    f"starting {found.op_calls:,.0f} operators takes {min(1.0, starting):.0%} of {forward}", spread)
    if (growth := found.doubling_growth) is not None:  # much less than nothing is noise, no answer
        yield _Rule("overhead-bound", f"a doubled batch takes at most {DOUBLING_GROWTH:.0%} longer", 1 - abs(growth),
                    1 - DOUBLING_GROWTH, f"twice the work changes {forward} by only {growth:+.0%}", spread)


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Throughput of one batch size over the same texts as the other sizes."""

    batch_size: int
    samples_per_s: float
    padding_fraction: float

    @property
    def computed(self) -> float:
        """Tokens a second, padding counted, but for a factor that all sizes share."""
        return self.samples_per_s / max(1 - self.padding_fraction, 1e-6)  # texts may be empty, all of them


def turning_point(speeds: Sequence[Speed], source: str, verdicts: Mapping[int, Verdict]) -> dict[str, Any]:
    """From which batch size on larger ones stop helping, and why.

    It is the smallest that none of the larger ones beats by more than ``HELPS``. Where tokens computed a second go on growing
    after it, padding is the reason; else what the verdict says that limits the larger batches.
    """
    if not speeds:
        return {"batch_size": None, "because": None, "source": source, "sentence": "Which batch size is best, step 02 measures."}
    speeds = sorted(speeds, key=lambda speed: speed.batch_size)
    turn = next(one for one in speeds if all(other.samples_per_s <= (1 + HELPS) * one.samples_per_s
                                             for other in speeds if other.batch_size > one.batch_size))
    last = speeds[-1]
    first, then = (verdicts[pick(verdicts)].verdict for pick in (min, max))
    stops: int | None = turn.batch_size
    limit = then if then in ("input-bound", "memory-bound", "compute-bound") else None  # the others would let larger batches help
    if turn is last:
        stops = limit = None
        still = "no larger one was tried" if len(speeds) > 1 else "it is the only one that was tried"
        sentence = f"Larger batches help up to the largest batch size, {last.batch_size}: {still}."
    else:
        if last.computed > (1 + HELPS) * turn.computed:
            limit = "padding"
            why = (f"padding grows from {turn.padding_fraction:.0%} to {last.padding_fraction:.0%} of the tokens at "
                   f"{last.batch_size} and eats what batching wins")
        elif limit:
            why = f"batch size {max(verdicts)} is {then}"
        else:
            why = "tokens computed a second no longer grow, though no ceiling is near"
        sentence = f"From batch size {stops} on larger batches stop helping, because {why}."
    return {"batch_size": stops, "from_verdict": first, "to_verdict": then, "because": limit, "source": source,
            "sentence": sentence}
