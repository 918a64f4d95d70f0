"""Numbers in, verdict and wins out: pure functions without torch, files or printing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from utils.config_loader import ModelConfig

INPUT_SHARE = 0.5
"""Above half, a model twice as fast would still not make the batch twice as fast: the input decides."""
CEILING_SHARE = 0.6
"""Real operators reach 60 to 90% of a ceiling; with 60% of the time explained by one, little else is left to win."""
DEVICE_BUSY_SHARE = 0.5
"""Below half, the device waits longer for the host than it works."""
OVERHEAD_SHARE = 0.5
"""From half on, starting operators takes longer than all they do."""
DOUBLING_GROWTH = 0.10
"""A batch twice as large that takes at most this much longer: the time does not depend on the work."""
SMALLEST_WIN = 0.01
"""Less than 1% of the batch time lies within the spread of the measurement."""
MOST_WINS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What was measured and counted at one batch size, per batch; latencies from untraced runs.

    Args:
        matmul_limited_ms, copy_limited_ms: time at the ceilings of the operators that each of them limits.
        op_calls: operators started in one forward; ``dispatch_us`` is what starting one takes.
        device_busy_ms: CUDA kernels' merged time in a forward; None on the CPU and where it is not measured.
        doubling_growth: by how much a batch put twice into one takes longer (1 is twice); None where it was not tried.
        unknown_operators: operators without a FLOP formula; their bytes count, their FLOPs are not in ``flops``.
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
    def shares(self) -> dict[str, float]:
        """Parts of the forward (``input``: of the batch time) that each cause explains; at most 1 each."""
        parts = {"compute": self.matmul_limited_ms, "memory": self.copy_limited_ms, "overhead": self.overhead_ms}
        shares = {name: min(1.0, part / self.forward_ms) for name, part in parts.items()}
        return {"input": self.input_ms / self.total_ms, **shares}

    def to_dict(self) -> dict[str, Any]:
        shares = {f"{name}_share": share for name, share in self.shares.items()}
        return {**asdict(self), **shares, "overhead_ms": self.overhead_ms}


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What limits one batch size, the rule that decided, and one sentence for a person."""

    verdict: str
    rule: str
    sentence: str


def decide(evidence: Evidence) -> Verdict:
    """The verdict; the first rule that holds decides."""
    shares, forward = evidence.shares, f"the {evidence.forward_ms:.3g} ms of the forward pass"
    compute, memory = shares["compute"], shares["memory"]

    def because(verdict: str, rule: str, reason: str) -> Verdict:
        return Verdict(verdict=verdict, rule=rule, sentence=f"Batch size {evidence.batch_size} is {verdict}: {reason}.")

    if shares["input"] > INPUT_SHARE:
        return because("input-bound", f"tokenising and copying > {INPUT_SHARE:.0%} of the batch time",
                       f"tokenising and copying take {shares['input']:.0%} of its {evidence.total_ms:.3g} ms")
    if compute + memory >= CEILING_SHARE:
        rule = f"time at the measured ceilings >= {CEILING_SHARE:.0%} of the forward, the larger part decides"
        if compute >= memory:
            return because("compute-bound", rule, f"arithmetic at the measured ceiling alone takes {compute:.0%} of {forward}")
        return because("memory-bound", rule, f"moving bytes at the measured ceiling alone takes {memory:.0%} of {forward}")
    if evidence.device_busy_ms is not None:
        busy = evidence.device_busy_ms / evidence.forward_ms
        if busy < DEVICE_BUSY_SHARE:
            return because("overhead-bound", f"device busy < {DEVICE_BUSY_SHARE:.0%} of the forward",
                           f"the device works in {busy:.0%} of {forward} and waits for the host in the rest")
    elif (calls := evidence.op_calls * evidence.dispatch_us / 1e3 / evidence.forward_ms) >= OVERHEAD_SHARE:
        return because("overhead-bound", f"starting operators >= {OVERHEAD_SHARE:.0%} of the forward",
                       f"starting {evidence.op_calls:,.0f} operators takes {min(1.0, calls):.0%} of {forward}")
    growth = evidence.doubling_growth
    if growth is not None and abs(growth) <= DOUBLING_GROWTH:  # much less than nothing is noise, no answer
        return because("overhead-bound", f"a doubled batch takes at most {DOUBLING_GROWTH:.0%} longer",
                       f"twice the work changes {forward} by only {growth:+.0%}")
    largest = max(shares, key=lambda name: shares[name])
    sentence = f"Batch size {evidence.batch_size} is near no limit: {largest} is largest with {shares[largest]:.0%}."
    return Verdict(verdict="none-near", rule="no rule holds", sentence=sentence)


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Operators of one kind in one batch: untraced milliseconds, milliseconds at the ceilings, calls."""

    kind: str
    measured_ms: float
    attainable_ms: float
    calls: float


Win = dict[str, Any]
"""What removing one cause could win at most, ``win_ms`` and ``win_pct`` of a batch; its title, cause, evidence, what to try and
the setting that does so."""


def find_wins(
    found: Evidence, groups: Sequence[Group], model: ModelConfig, batch_sizes: Sequence[int], bfloat16_speedup: float | None = None
) -> list[Win]:
    """The three largest wins of at least 1% of the batch time. They overlap: they do not add up.

    Args:
        bfloat16_speedup: of matrix products; None where the precision is no choice.
    """
    wins = (*_input_wins(found), *_overhead_wins(found, batch_sizes), *_operator_wins(found, groups, model),
            *_precision_wins(found, model, bfloat16_speedup))
    large_enough = [win for win in wins if win["win_pct"] >= 100 * SMALLEST_WIN]
    return sorted(large_enough, key=lambda win: win["win_ms"], reverse=True)[:MOST_WINS]


def _win(found: Evidence, win_ms: float, title: str, *, cause: str, advice: str, setting: str | None, evidence: str) -> Win:
    return {"title": title, "cause": cause, "win_ms": win_ms, "win_pct": 100 * win_ms / found.total_ms, "try": advice,
            "setting": setting, "evidence": evidence}


def _input_wins(found: Evidence) -> Iterable[Win]:
    if found.padding_fraction is not None:  # what overhead takes does not shrink with the tokens
        yield _win(
            found, found.padding_fraction * (found.forward_ms - found.overhead_ms), "padding",
            cause="short texts are filled up to the longest of their batch, and the model computes the filling",
            advice="group texts of like length", setting="evaluation.batching=token_budget",
            evidence=f"{found.padding_fraction:.1%} of the tokens of the profiled batches are padding",
        )
    yield _win(
        found, min(found.input_ms, found.forward_ms), "tokenising and copying", setting=None,
        cause="they run before and after the model, not beside it",
        advice="tokenise and copy the next batch while the model runs (prefetch), as step 02's evaluation does",
        evidence=f"tokenising {found.tokenize_ms:.3g} ms, copying "
        f"{found.host_to_device_ms + found.device_to_host_ms:.3g} ms, forward {found.forward_ms:.3g} ms",
    )


def _overhead_wins(found: Evidence, batch_sizes: Sequence[int]) -> Iterable[Win]:
    larger = ",".join(map(str, (*batch_sizes, 2 * found.batch_size)))
    yield _win(
        found, found.overhead_ms, "overhead", cause="the host's work to start operators, the same for every batch size",
        advice="a larger batch of texts of like length, or torch.compile, which starts fewer operators",
        setting=f"profiling.batch_sizes=[{larger}]" if found.batch_size == max(batch_sizes) else None,
        evidence=f"{found.op_calls:,.0f} operators at {found.dispatch_us:.3g} us"
        + ("" if found.device_busy_ms is None else f"; device busy {found.device_busy_ms:.3g} ms")
        + ("" if found.doubling_growth is None else f"; twice the batch takes {found.doubling_growth:+.0%} time"),
    )


def _operator_wins(found: Evidence, groups: Sequence[Group], model: ModelConfig) -> Iterable[Win]:
    def excess(group: Group) -> float:
        # On the CPU an operator's time holds the price of starting it, which is a win of its own.
        starting = group.calls * found.dispatch_us / 1e3 if found.device == "cpu" else 0.0
        return group.measured_ms - group.attainable_ms - starting

    if not groups:
        return
    worst = max(groups, key=excess)
    advice, setting = "torch.compile, which fuses operators so that intermediate results are not stored", None
    if worst.kind == "attention" and model.attn_implementation == "eager":
        advice, setting = "fused attention", "model.attn_implementation=sdpa"
    elif worst.kind == "matrix product" and found.device == "cuda" and model.dtype == "float32":
        if model.matmul_precision == "highest":
            advice, setting = "TF32 for matrix products", "model.matmul_precision=high"
    elif worst.kind in ("matrix product", "attention"):
        advice = "larger or better filled batches, whose shapes reach the ceiling"
    yield _win(
        found, max(0.0, excess(worst)), f"slow operators: {worst.kind}", advice=advice, setting=setting,
        cause="they take longer than their FLOPs and bytes need at the measured ceilings",
        evidence=f"{worst.measured_ms:.3g} ms where {worst.attainable_ms:.3g} ms are attainable, {worst.calls:,.0f} calls",
    )


def _precision_wins(found: Evidence, model: ModelConfig, bfloat16_speedup: float | None) -> Iterable[Win]:
    if bfloat16_speedup is None or bfloat16_speedup <= 1:
        return
    saved = found.matmul_limited_ms * (1 - 1 / bfloat16_speedup) + found.copy_limited_ms / 2
    yield _win(
        found, min(saved, found.floor_ms), "precision", setting="model.dtype=bfloat16", advice="bfloat16; compare accuracy",
        cause=f"weights and activations are {model.dtype}",
        evidence=f"matrix products reach {bfloat16_speedup:.1f} times the FLOP/s in bfloat16, and half the bytes move",
    )
