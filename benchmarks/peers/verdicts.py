"""Rows of the comparison: each value with its bar, where it has one."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import torch

from benchmarks import common
from benchmarks.common import Row
from benchmarks.peers.contestants import (
    COMPILED,
    EVALUATOR,
    PIPELINE,
    PLAIN,
    TRAINER,
    Evaluator,
    LabelIds,
    Timings,
    time_rounds,
)
from utils.diagnosis import roofline

# How many times faster than its peers the evaluator has to be. On CUDA: batches of 32 in file order
# compute 3.9 times the tokens; benchmarks/expectation.py has the arithmetic.
MIN_SPEEDUP_CUDA = {PIPELINE: 3.9}
MIN_SPEEDUP_CPU = {PLAIN: 4.5, PIPELINE: 4.5, TRAINER: 4.5}
# The speed on CUDA as a fraction of the limit: the pessimistic end of benchmarks/expectation.py for
# full batches that run operator by operator. In float32 products take nearly all the time, in
# bfloat16 element-wise operators take longer than the products.
MIN_SHARE = {"float32": 0.63, "bfloat16": 0.31, "float16": 0.31}


def speedup(
    peer_s: Sequence[float], evaluator_s: Sequence[float]
) -> tuple[float, tuple[float, float] | None]:
    """How many times faster the evaluator is, over the rounds.

    Returns:
        The median of the two times' ratio, and the least and the largest ratio. Of n rounds that
        range holds the median with a probability of 1 - 2^(1-n): a round in which the machine was
        slow counts once.
    """
    ratios = [peer / own for peer, own in zip(peer_s, evaluator_s, strict=True)]
    if len(ratios) == 1:
        return ratios[0], None
    return median(ratios), (min(ratios), max(ratios))


def peer_rows(
    timings: Timings, absent: dict[str, str], names: Sequence[str], *, dtype: str, is_cuda: bool
) -> list[Row]:
    """The speed over each peer, and whether its labels are the same.

    Args:
        absent: why the peers that did not run did not.
        names: the peers that were asked for.
    """
    bars = MIN_SPEEDUP_CUDA if is_cuda else MIN_SPEEDUP_CPU
    rows = []
    for name in names:
        if name in absent:
            rows.append(_absent_row(name, absent[name], bars.get(name)))
        elif name not in timings.seconds:
            rows.append(common.not_here(f"speed over {name}", "not run yet"))
        else:
            rows.append(_speed_row(name, timings, bars.get(name)))
            rows.append(_labels_row(name, timings, is_exact=dtype == "float32"))
    return rows


def _absent_row(name: str, reason: str, bar: float | None) -> Row:
    check = f"speed over {name}"
    measured = f"not run: {reason}"
    if name == COMPILED:
        # That is the project's own failure.
        return common.checked(check, False, expected=_bar_text(bar), measured=measured)
    return common.reported(check, measured, expected=_bar_text(bar))


def _speed_row(name: str, timings: Timings, bar: float | None) -> Row:
    check = f"speed over {name}"
    times_faster, interval = speedup(timings.seconds[name], timings.seconds[EVALUATOR])
    measured = f"{times_faster:.2f} times"
    if interval is not None:
        level = 1 - 2.0 ** (1 - len(timings.seconds[name]))
        measured += f" ({level:.0%}: {interval[0]:.2f} to {interval[1]:.2f})"
    if bar is None:
        return common.reported(check, measured, expected=_bar_text(bar))
    return common.checked(check, times_faster >= bar, expected=_bar_text(bar), measured=measured)


def _bar_text(bar: float | None) -> str:
    if bar is None:
        return "reported"
    return f">= {bar:g} times"


def _labels_row(name: str, timings: Timings, *, is_exact: bool) -> Row:
    check = f"labels as {name}"
    agreement = label_agreement(timings.labels[name], timings.labels[EVALUATOR])
    measured = f"{agreement:.3%}"
    if is_exact:
        return common.checked(check, agreement == 1.0, expected="100%", measured=measured)
    return common.reported(check, measured, expected="reported")


def label_agreement(one: LabelIds, other: LabelIds) -> float:
    """The fraction of texts with the same label."""
    return float((one == other).mean())


def limit_row(share: float, *, dtype: str, is_cuda: bool) -> Row:
    """The speed as a fraction of the limit.

    Args:
        share: that fraction; the limit is the rate at which the measured ceiling would compute the
            matrix products of all real tokens.
    """
    check = "share of the limit"
    bar = MIN_SHARE[dtype]
    if not is_cuda:
        return common.reported(check, f"{share:.1%}", expected="reported")
    return common.checked(check, share >= bar, expected=f">= {bar:.0%}", measured=f"{share:.1%}")


def compiled_rows(
    timings: Timings, absent: dict[str, str], limit_s: float, *, dtype: str, is_cuda: bool
) -> list[Row]:
    """The speed, the labels and the share of the limit of ``evaluation.compile``.

    Args:
        timings: rounds of the evaluator, compiled and not.
        absent: why it was not compiled.
        limit_s: how long the texts take at the limit.
    """
    rows = peer_rows(timings, absent, [COMPILED], dtype=dtype, is_cuda=is_cuda)
    if COMPILED in timings.seconds:
        share = limit_s / median(timings.seconds[COMPILED])
        rows.append(
            common.reported("share of the limit, compiled", f"{share:.1%}", expected="reported")
        )
    return rows


def tf32_rows(
    evaluator: Evaluator, texts: list[str], exact: LabelIds, flops: float, num_rounds: int
) -> list[Row]:
    """The same float32 weights with their products in TF32.

    Args:
        exact: the labels in float32.
        flops: what the texts need.
    """
    device = evaluator.loaded.device
    torch.set_float32_matmul_precision("high")
    try:
        evaluator(texts)
        ceiling = roofline.measure_matmul_flops_per_s(device, evaluator.loaded.model.dtype)
        timings = time_rounds({EVALUATOR: evaluator}, texts, num_rounds)
    finally:
        torch.set_float32_matmul_precision("highest")
    rate = len(texts) * num_rounds / sum(timings.seconds[EVALUATOR])
    share = rate * flops / len(texts) / ceiling
    agreement = label_agreement(timings.labels[EVALUATOR], exact)
    return [
        common.reported("TF32: rows/s", f"{rate:,.0f}", expected="reported"),
        common.reported("TF32: share of its ceiling", f"{share:.1%}", expected="reported"),
        common.reported("TF32: labels as float32", f"{agreement:.3%}", expected="reported"),
    ]
