"""What removing each cause of lost time would save, and what to try."""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from operator import attrgetter

import numpy as np

from utils.diagnosis.bottleneck import INPUT_SHARE
from utils.diagnosis.evidence import Evidence
from utils.diagnosis.findings import Findings, OperatorGroup, PresentSettings
from utils.diagnosis.forecast import Forecast, in_file_order
from utils.schema.diagnosis import Proposal, Suggestion

MIN_SAVING = 0.01
"""Less than 1% of the batch time lies within the spread of the measurement."""
DEVICE_BOUND_SHARE = 0.9
"""Share of the forward from which on a CUDA device is busy throughout, so that kernels decide."""
SLOW_LAYER = 2.0
MIN_PEERS = 3
"""A module that takes twice as long as in the other layers, three at least in all, is slow."""
SLOW_LAYER_SHARE = 0.05
"""Of the forward that a slow layer has to cost: less may be one interrupt of a few calls."""
LONG_TEXTS = 0.95
"""Share of the texts that a smaller ``max_length`` must not truncate."""
LENGTH_STEP = 8
"""Lengths are rounded up to a multiple of 8, which matrix units like."""
TOKEN_BUDGET = "evaluation.batching=token_budget"
COMPILE = "evaluation.compile=true"


def rank_suggestions(findings: Findings, settings: PresentSettings) -> tuple[Suggestion, ...]:
    """All suggestions that save at least 1% of the batch time, the largest saving first.

    They overlap: savings do not add up.
    """
    proposals = [
        *_batching_suggestions(findings, settings),
        *_host_suggestions(findings.evidence, settings),
        *_slow_layer_suggestions(findings),
        *_operator_suggestions(findings, settings),
        *_precision_suggestions(findings, settings),
    ]
    batch_ms = findings.evidence.total_ms
    large_enough = [one for one in proposals if one.saving_ms >= MIN_SAVING * batch_ms]
    large_enough.sort(key=attrgetter("saving_ms"), reverse=True)
    return tuple(make_suggestion(proposal, batch_ms) for proposal in large_enough)


def make_suggestion(proposal: Proposal, batch_ms: float) -> Suggestion:
    """The proposal with its share of a batch of ``batch_ms``, from texts to logits."""
    remaining_ms = batch_ms - proposal.saving_ms
    predicted_speedup = None
    if remaining_ms > 0:
        predicted_speedup = batch_ms / remaining_ms
    return Suggestion(
        **dict(proposal),
        saving_pct=100 * proposal.saving_ms / batch_ms,
        predicted_speedup=predicted_speedup,
    )


def max_kernel_saving_ms(evidence: Evidence, forecast: Forecast | None) -> float:
    """Milliseconds of the forward that faster kernels can save at most.

    - The device's busy time is not known, as on the CPU: the forward less the overhead.
    - It is known, and there is a forecast: the forward less the forecast's fixed time, which the
      host takes to start the kernels.
    - It is known without a forecast: the busy time where the device never waits, otherwise 0.
    """
    if evidence.device_busy_ms is None:
        return evidence.forward_ms - evidence.overhead_ms
    if forecast is not None:
        return max(0.0, evidence.forward_ms - forecast.model.fixed_ms)
    if _device_never_waits(evidence):
        return evidence.device_busy_ms
    return 0.0


def _device_never_waits(evidence: Evidence) -> bool:
    """Whether the device is busy throughout the forward; on the CPU the host is the device."""
    if evidence.device_busy_ms is None:
        return True
    return evidence.device_busy_ms >= DEVICE_BOUND_SHARE * evidence.forward_ms


def _batching_suggestions(findings: Findings, settings: PresentSettings) -> Iterator[Proposal]:
    """What other batches of the same texts would take, padding and fixed costs together."""
    forecast = findings.forecast
    if forecast is None:
        return
    yield _grouping_by_length(findings.evidence, forecast, settings)
    larger = 2 * findings.evidence.batch_size
    # Smaller sizes than the sweep's largest have been tried by it.
    is_new = findings.evidence.batch_size >= findings.largest_batch
    if is_new and (findings.too_large is None or larger < findings.too_large):
        yield _larger_batches(findings.evidence, forecast, settings, larger)
    yield from _shorter_texts(findings.evidence, forecast, settings)


def _grouping_by_length(
    evidence: Evidence, forecast: Forecast, settings: PresentSettings
) -> Proposal:
    if evidence.padding_ms >= evidence.overhead_ms:
        title = "padding"
        cause = (
            "short texts are filled up to the longest of their batch, and the model computes the"
            " filling"
        )
    else:
        title = "small batches"
        cause = "each batch starts all operators again; in file order larger ones would be padded"
    advice = "group texts of similar length"
    if settings.evaluation.batching == "token_budget":
        advice += ", as step 02's evaluation does here"
    return Proposal(
        title=title,
        cause=cause,
        saving_ms=evidence.forward_ms * (1 - forecast.best_budget_fraction()),
        advice=advice,
        setting=TOKEN_BUDGET,
        evidence=_batching_evidence(evidence, forecast),
    )


def _larger_batches(
    evidence: Evidence, forecast: Forecast, settings: PresentSettings, larger: int
) -> Proposal:
    sizes = sorted({*settings.profiling.batch_sizes, larger})
    remaining = forecast.remaining_fraction(in_file_order(larger))
    return Proposal(
        title="batch size",
        cause="every batch starts all operators again",
        saving_ms=evidence.forward_ms * (1 - remaining),
        advice=f"batches of {larger}",
        setting=f"profiling.batch_sizes=[{','.join(map(str, sizes))}]",
        evidence=_batching_evidence(evidence, forecast),
        batch_size=larger,
    )


def _shorter_texts(
    evidence: Evidence, forecast: Forecast, settings: PresentSettings
) -> Iterator[Proposal]:
    quantile = float(np.quantile(forecast.lengths, LONG_TEXTS))
    max_length = LENGTH_STEP * math.ceil(quantile / LENGTH_STEP)
    if max_length >= min(settings.profiling.max_length, int(forecast.lengths.max())):
        return
    longer = float((forecast.lengths > max_length).mean())
    yield Proposal(
        title="long texts",
        cause="few texts are much longer than the others",
        saving_ms=evidence.forward_ms * (1 - forecast.remaining_fraction(max_length=max_length)),
        advice=f"truncate texts at {max_length} tokens; compare accuracy",
        setting=f"profiling.max_length={max_length}",
        evidence=f"{longer:.1%} of the texts are longer; {_fit_quality(forecast)}",
    )


def _batching_evidence(evidence: Evidence, forecast: Forecast) -> str:
    larger = 2 * evidence.batch_size
    return (
        f"{evidence.padding_fraction or 0:.1%} of the tokens of the profiled batches are padding;"
        f" at {larger} in file order it would be {forecast.padding_at(larger):.1%};"
        f" {_fit_quality(forecast)}"
    )


def _fit_quality(forecast: Forecast) -> str:
    return f"forward times fitted within {forecast.model.error:.0%}"


def _host_suggestions(evidence: Evidence, settings: PresentSettings) -> Iterator[Proposal]:
    """What the host does before, beside and after the model."""
    copying_ms = evidence.host_to_device_ms + evidence.device_to_host_ms
    times = (
        f"tokenising {evidence.tokenize_ms:.3g} ms, copying {copying_ms:.3g} ms,"
        f" forward {evidence.forward_ms:.3g} ms"
    )
    if evidence.tokenize_ms / evidence.total_ms > INPUT_SHARE:
        yield Proposal(
            title="slow tokeniser",
            cause="it takes longer than all the rest",
            saving_ms=evidence.tokenize_ms,
            advice="a fast tokenizer, in several processes, or texts tokenised once and stored",
            evidence=times,
        )
    yield Proposal(
        title="tokenising and copying",
        cause="they run before and after the model, not beside it",
        # Prefetching hides no more than the model takes.
        saving_ms=min(evidence.input_ms, evidence.forward_ms),
        advice=(
            "tokenise and copy the next batch while the model runs (prefetch), as step 02's"
            " evaluation does"
        ),
        evidence=times,
    )
    yield Proposal(
        title="overhead",
        cause="the host's work to start operators, the same for every batch size",
        saving_ms=evidence.overhead_ms,
        advice="torch.compile, which starts fewer operators",
        prediction="upper-bound",
        setting=_compile_setting(settings),
        evidence=_overhead_evidence(evidence),
    )


def _overhead_evidence(evidence: Evidence) -> str:
    parts = [f"{evidence.op_calls:,.0f} operators at {evidence.dispatch_us:.3g} us"]
    if evidence.device_busy_ms is not None:
        parts.append(f"device busy {evidence.device_busy_ms:.3g} ms")
    if evidence.doubling_growth is not None:
        parts.append(f"twice the batch takes {evidence.doubling_growth:+.0%} time")
    return "; ".join(parts)


def _compile_setting(settings: PresentSettings) -> str | None:
    """None where the model is compiled already."""
    return None if settings.evaluation.compile else COMPILE


def _slow_layer_suggestions(findings: Findings) -> Iterator[Proposal]:
    """The module that takes longest beyond what the same module takes in the other layers."""
    evidence = findings.evidence
    excess_ms, own_ms, name = 0.0, 0.0, ""
    for peers in _modules_by_role(findings.module_ms):
        if len(peers) < MIN_PEERS:
            continue
        *others, (slowest_ms, slowest) = sorted(peers)
        others_ms = statistics.median(ms for ms, _ in others)
        more_ms = slowest_ms - others_ms
        if slowest_ms > SLOW_LAYER * others_ms and more_ms > excess_ms:
            excess_ms, own_ms, name = more_ms, slowest_ms, slowest
    if excess_ms < SLOW_LAYER_SHARE * evidence.forward_ms:
        return
    yield Proposal(
        title=f"slow layer: {name}",
        cause="this module takes longer than the same module of the other layers",
        saving_ms=min(excess_ms, evidence.forward_ms),
        advice=f"look at what {name} does that the same module of the other layers does not",
        # Kernels that end while the device waits for the host anyway shorten nothing.
        prediction="estimate" if _device_never_waits(evidence) else "upper-bound",
        evidence=f"{own_ms:.3g} ms, the others {own_ms - excess_ms:.3g} ms",
    )


def _modules_by_role(module_ms: Mapping[str, float]) -> list[list[tuple[float, str]]]:
    """Modules that differ in the number of their layer alone: milliseconds and name."""
    by_role: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for name, own_ms in module_ms.items():
        role, num_replaced = re.subn(r"\.\d+(?=\.|$)", ".*", name, count=1)
        if num_replaced:
            by_role[role].append((own_ms, name))
    return list(by_role.values())


def _operator_suggestions(findings: Findings, settings: PresentSettings) -> Iterator[Proposal]:
    """The kind of operators that takes longest beyond what the ceilings allow."""
    if not findings.groups:
        return
    evidence = findings.evidence
    worst = max(findings.groups, key=lambda group: _excess_ms(group, evidence))
    if worst.kind == "attention" and settings.model.attn_implementation == "eager":
        advice = "fused attention"
        setting: str | None = "model.attn_implementation=sdpa"
    elif worst.kind in ("matrix product", "attention"):
        advice = "larger or better filled batches, whose shapes reach the ceiling"
        setting = None
    else:
        advice = "torch.compile, which fuses operators so that intermediate results are not stored"
        setting = _compile_setting(settings)
    excess_ms = _excess_ms(worst, evidence)
    saving_ms = min(excess_ms, max_kernel_saving_ms(evidence, findings.forecast))
    yield Proposal(
        title=f"slow operators: {worst.kind}",
        cause="they take longer than their FLOPs and bytes need at the measured ceilings",
        saving_ms=max(0.0, saving_ms),
        advice=advice,
        prediction="upper-bound",
        setting=setting,
        evidence=(
            f"{worst.measured_ms:.3g} ms where {worst.attainable_ms:.3g} ms are attainable,"
            f" {worst.calls:,.0f} calls"
        ),
    )


def _excess_ms(group: OperatorGroup, evidence: Evidence) -> float:
    """Time beyond the ceilings."""
    excess_ms = group.measured_ms - group.attainable_ms
    if evidence.device == "cpu":
        # An operator's time includes that of starting it, which is a suggestion of its own.
        excess_ms -= group.calls * evidence.dispatch_us / 1e3
    return excess_ms


def _precision_suggestions(findings: Findings, settings: PresentSettings) -> Iterator[Proposal]:
    """The matrix products' own time, faster as the largest of them are in another precision."""
    evidence = findings.evidence
    products = [group for group in findings.groups if group.kind == "matrix product"]
    products_ms = sum(group.measured_ms for group in products)
    for setting, speedup in findings.product_speedups.items():
        if speedup <= 1:
            continue
        saving_ms = products_ms * (1 - 1 / speedup)
        if "dtype" in setting:
            # The other operators move half the bytes.
            saving_ms += evidence.copy_limited_ms / 2
        yield Proposal(
            title="precision",
            cause=(
                f"matrix products run in {settings.model.dtype}, matmul_precision"
                f" {settings.model.matmul_precision}"
            ),
            saving_ms=min(saving_ms, max_kernel_saving_ms(evidence, findings.forecast)),
            advice=f"{setting.rpartition('.')[2]}; compare accuracy",
            # On a CPU the other operators may become slower by more than the products save.
            prediction="estimate" if evidence.device == "cuda" else "upper-bound",
            setting=setting,
            evidence=(
                f"matrix products take {products_ms:.3g} ms; the largest of them are"
                f" {speedup:.1f} times faster with it"
            ),
        )
