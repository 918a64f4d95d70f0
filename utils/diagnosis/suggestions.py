"""What removing each cause of lost time would save, and what to try."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from utils.core.rounding import three_digits
from utils.diagnosis.applied import TOKEN_BUDGET, is_applied
from utils.diagnosis.bottleneck import INPUT_SHARE
from utils.diagnosis.evidence import Evidence
from utils.diagnosis.findings import Findings, PresentSettings
from utils.diagnosis.forecast import Forecast, in_file_order
from utils.diagnosis.headline import rank
from utils.diagnosis.kernel_suggestions import (
    attention_suggestions,
    compile_setting,
    fusion_suggestions,
    operator_suggestions,
    precision_suggestions,
    slow_layer_suggestions,
)
from utils.schema.diagnosis import Proposal, Suggestion

MIN_SAVING = 0.01
"""Less than 1% of the batch time lies within the spread of the measurement."""
LONG_TEXTS = 0.95
"""Share of the texts that a smaller ``max_length`` must not truncate."""
LENGTH_STEP = 8
"""Lengths are rounded up to a multiple of 8, which matrix units like."""


def rank_suggestions(findings: Findings, settings: PresentSettings) -> tuple[Suggestion, ...]:
    """All suggestions that save at least 1% of the batch time, what is worth a try first.

    They overlap: savings do not add up. What the settings do already is left out.
    """
    proposals = [
        *_batching_suggestions(findings, settings),
        *_host_suggestions(findings, settings),
        *slow_layer_suggestions(findings),
        *operator_suggestions(findings, settings),
        *fusion_suggestions(findings, settings),
        *attention_suggestions(findings, settings),
        *precision_suggestions(findings, settings),
    ]
    batch_ms = findings.evidence.total_ms
    suggestions = []
    for proposal in proposals:
        is_large = proposal.saving_ms >= MIN_SAVING * batch_ms
        if is_large and not is_applied(proposal.setting, settings):
            suggestions.append(make_suggestion(proposal, batch_ms))
    return tuple(sorted(suggestions, key=rank))


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


def _batching_suggestions(findings: Findings, settings: PresentSettings) -> Iterator[Proposal]:
    """What other batches of the same texts would take, padding and fixed costs together."""
    forecast = findings.forecast
    if forecast is None:
        return
    yield _grouping_by_length(findings.evidence, forecast)
    larger = 2 * findings.evidence.batch_size
    # Smaller sizes than the sweep's largest have been tried by it.
    is_new = findings.evidence.batch_size >= findings.largest_batch
    if is_new and (findings.too_large is None or larger < findings.too_large):
        yield _larger_batches(findings.evidence, forecast, settings, larger)
    yield from _shorter_texts(findings.evidence, forecast, settings)


def _grouping_by_length(evidence: Evidence, forecast: Forecast) -> Proposal:
    if evidence.padding_ms >= evidence.overhead_ms:
        title = "Less padding"
        cause = (
            "short texts are filled up with padding to the longest of their batch, and the model"
            " computes the padding too"
        )
    else:
        title = "Fuller batches"
        cause = (
            "each batch starts all operators again, and larger batches in file order would have"
            " more padding"
        )
    return Proposal(
        title=title,
        cause=cause,
        saving_ms=evidence.forward_ms * (1 - forecast.best_budget_fraction()),
        advice="put texts of similar length into the same batch",
        setting=TOKEN_BUDGET,
        evidence=_batching_evidence(evidence, forecast),
    )


def _larger_batches(
    evidence: Evidence, forecast: Forecast, settings: PresentSettings, larger: int
) -> Proposal:
    sizes = sorted({*settings.profiling.batch_sizes, larger})
    remaining = forecast.remaining_fraction(in_file_order(larger))
    return Proposal(
        title="Larger batches",
        cause="every batch starts all operators again",
        saving_ms=evidence.forward_ms * (1 - remaining),
        advice=f"batches of {larger} texts",
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
        title="Shorter texts",
        cause="few texts are much longer than the others",
        saving_ms=evidence.forward_ms * (1 - forecast.remaining_fraction(max_length=max_length)),
        advice=f"truncate texts at {max_length} tokens, and compare the accuracy",
        setting=f"profiling.max_length={max_length}",
        evidence=f"{longer:.1%} of the texts are longer; {_fit_quality(forecast)}",
    )


def _batching_evidence(evidence: Evidence, forecast: Forecast) -> str:
    larger = 2 * evidence.batch_size
    return (
        f"{evidence.padding_fraction or 0:.1%} of the tokens of the profiled batches are padding;"
        f" in batches of {larger} in file order it would be {forecast.padding_at(larger):.1%};"
        f" {_fit_quality(forecast)}"
    )


def _fit_quality(forecast: Forecast) -> str:
    return f"predicted from measured times with an error of {forecast.model.error:.0%}"


def _host_suggestions(findings: Findings, settings: PresentSettings) -> Iterator[Proposal]:
    """What the host does before, beside and after the model."""
    evidence = findings.evidence
    copying_ms = evidence.host_to_device_ms + evidence.device_to_host_ms
    times = (
        f"tokenising takes {three_digits(evidence.tokenize_ms)} ms, copying "
        f"{three_digits(copying_ms)} ms, "
        f"the model {three_digits(evidence.forward_ms)} ms"
    )
    if evidence.tokenize_ms / evidence.total_ms > INPUT_SHARE:
        yield Proposal(
            title="Faster tokeniser",
            cause="tokenising takes longer than all the rest",
            saving_ms=evidence.tokenize_ms,
            advice="a fast tokenizer, in several processes, or texts tokenised once and stored",
            evidence=times,
        )
    advice = (
        "in a loop or service of your own, tokenise and copy the next batch while the model"
        " runs (prefetch); the optimised evaluation does so already"
    )
    if evidence.device == "cpu":
        advice += "; on a CPU it helps as far as the model leaves cores idle"
    yield Proposal(
        title="Prepare the input in the background",
        cause="tokenising and copying run before and after the model, not at the same time",
        saving_ms=_hidden_input_ms(evidence, findings.cpu_threads),
        advice=advice,
        prediction="upper-bound" if evidence.device == "cpu" else "estimate",
        evidence=times,
    )
    advice = "compile the model with torch.compile, so that fewer operators are started"
    if settings.evaluation.compile:
        advice = "CUDA graphs or larger batches (the evaluation is compiled already)"
    yield Proposal(
        title="Start fewer operators",
        cause="the CPU takes time to start each operator, however large the batch is",
        saving_ms=evidence.overhead_ms,
        advice=advice,
        prediction="upper-bound",
        setting=compile_setting(settings),
        evidence=overhead_evidence(evidence),
    )


def _hidden_input_ms(evidence: Evidence, cpu_threads: int | None) -> float:
    """What preparing the input in the background hides: no more than the model takes.

    On a CPU the model's threads do this work too. If it is spread over all of them evenly, it takes
    its time over their number, so that the rest is saved at most.
    """
    hidden_ms = min(evidence.input_ms, evidence.forward_ms)
    if cpu_threads is None:
        return hidden_ms
    return hidden_ms * (1 - 1 / cpu_threads)


def overhead_evidence(evidence: Evidence) -> str:
    """The calculation that the overhead comes from: its terms yield ``overhead_ms``."""
    overhead = f"{three_digits(evidence.overhead_ms)} ms"
    forward = f"{three_digits(evidence.forward_ms)} ms of the forward pass"
    if evidence.device_busy_ms is not None:
        return (
            f"the device works in {three_digits(evidence.device_busy_ms)} of the {forward}, "
            f"and waits in the other {overhead}"
        )
    if evidence.overhead_ms >= evidence.forward_ms:
        return (
            f"starting {evidence.op_calls:,.0f} operators at "
            f"{three_digits(evidence.dispatch_us)} us each"
            f" takes as long as the whole forward pass: {overhead}"
        )
    if evidence.doubling_growth is None or evidence.overhead_ms <= evidence.starting_ms:
        return (
            f"starting {evidence.op_calls:,.0f} operators at "
            f"{three_digits(evidence.dispatch_us)} us each"
            f" takes {overhead}"
        )
    growth = max(0.0, evidence.doubling_growth)
    return (
        f"a batch of twice the size takes {growth:.0%} longer, so that {1 - growth:.0%} of the"
        f" {forward} does not depend on the size; without the "
        f"{three_digits(evidence.roofline_ms)} ms that"
        f" arithmetic and memory need at best, {overhead} remain"
    )
