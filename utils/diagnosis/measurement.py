"""The evidence of one batch size: timed untraced and counted, then on CUDA traced on the device.

A trace leaves CUPTI attached to the process, which makes later launches of kernels slower (training
by 10 to 20%, pytorch issue 144455). So all batch sizes are timed before the first one is traced.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd
import torch

from utils.core.rounding import three_digits
from utils.diagnosis import operators, tracing
from utils.diagnosis.evidence import Evidence
from utils.diagnosis.workload import Inputs, Workload, make_batches
from utils.model import costs
from utils.model.encoding import encode_batch
from utils.model_utils import LoadedModel
from utils.schema.ceilings import Ceilings
from utils.schema.diagnosis import TimedForward
from utils.schema.warning_codes import WarningCode
from utils.system.device import synchronize
from utils.system.timing import time_callable, time_calls

TIMED_REPEATS = 3
SECONDS_PER_SIZE = 4.0
"""Timing a size takes about so long at most: with large models fewer batches are taken."""
PROBED_PART = 4
"""A quarter of the rows and of the tokens are timed too, which distinguishes their costs."""
NOT_TRACED = "the device was not traced"
DOUBLED_UP_TO_S = 0.25
"""A longer forward is not decided by the host's work to start operators: doubling shows nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredSize:
    """One batch size: its batches, what was measured, and what is wrong with it."""

    workload: Workload
    evidence: Evidence
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseTimes:
    """Milliseconds of each phase per batch: the fastest repeat, then the mean of the batches.

    Args:
        fastest_forwards_ms: of each batch.
        spread: the middle repeats' batch time over the fastest ones', less 1.
    """

    tokenize_ms: float
    host_to_device_ms: float
    forward_ms: float
    device_to_host_ms: float
    fastest_forwards_ms: tuple[float, ...]
    spread: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Counts:
    """What the operators of an average forward have to do at least."""

    op_calls: float
    flops: float
    bytes_moved: float
    matmul_limited_ms: float
    copy_limited_ms: float
    unknown_operators: tuple[str, ...]


def measure_batch_size(
    loaded: LoadedModel, texts: Sequence[str], size: int, max_length: int, ceilings: Ceilings
) -> MeasuredSize:
    """Time (untraced) and count one batch size; ``observe_device`` adds the device's busy time."""
    warnings: tuple[str, ...] = ()
    if len(texts) < size:
        warning = WarningCode.SAMPLE.warn(
            f"batch size {size} is profiled on {len(texts)} texts: dataset.sample_sizes has no more"
        )
        warnings = (warning,)
    workload = Workload(loaded, make_batches(texts, size), max_length)
    first_batch = partial(workload.run, 0, nullcontext)
    batch_s = time_callable(first_batch, loaded.device, repeats=2, warmups=0).fastest_s
    affordable = max(1, int(SECONDS_PER_SIZE / TIMED_REPEATS / batch_s))
    workload = Workload(loaded, workload.batches[:affordable], max_length)
    repeats = 1 if batch_s > SECONDS_PER_SIZE else TIMED_REPEATS
    evidence = _measure(workload, size, repeats, ceilings)
    return MeasuredSize(workload=workload, evidence=evidence, warnings=warnings)


def observe_device(measured: MeasuredSize) -> MeasuredSize:
    """The batch size with the time in which its device works; on the CPU as it is.

    Call it when every batch size is timed: see the module.
    """
    workload = measured.workload
    device = workload.loaded.device
    if device.type == "cpu":
        return measured
    batches = [workload.inputs(index) for index in range(len(workload.batches))]
    busy = tracing.measure_device_busy(
        lambda step: workload.forward(batches[step % len(batches)]),
        steps=len(batches),
        device=device,
    )
    unavailable = dict(measured.evidence.unavailable)
    del unavailable["device_busy_ms"]
    if busy.reason is not None:
        unavailable["device_busy_ms"] = busy.reason
    evidence = measured.evidence.model_copy(
        update={"device_busy_ms": busy.ms, "unavailable": unavailable}
    )
    return replace(measured, evidence=evidence)


def time_phases(workload: Workload, repeats: int = TIMED_REPEATS) -> PhaseTimes:
    """Time every batch ``repeats`` times after a warm-up at its own shape."""
    device = workload.loaded.device
    durations: dict[str, float] = {}

    @contextmanager
    def stopwatch(phase: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        synchronize(device)
        durations[f"{phase}_ms"] = 1e3 * (time.perf_counter() - begin)

    rows = []
    for batch in range(len(workload.batches)):
        for repeat in range(1 + repeats):
            durations = {}
            workload.run(batch, stopwatch)
            # The first warms up.
            if repeat > 0:
                rows.append({"batch": batch, **durations})
    by_batch = pd.DataFrame(rows).set_index("batch").groupby("batch")
    fastest = by_batch.min()
    totals = pd.DataFrame(rows).set_index("batch").sum(axis=1).groupby("batch")
    return PhaseTimes(
        **fastest.mean().to_dict(),
        fastest_forwards_ms=tuple(fastest["forward_ms"]),
        spread=float(totals.median().sum() / totals.min().sum() - 1),
    )


def _measure(workload: Workload, size: int, repeats: int, ceilings: Ceilings) -> Evidence:
    device = workload.loaded.device
    batches = [workload.inputs(index) for index in range(len(workload.batches))]
    times = time_phases(workload, repeats)
    distances = [abs(ms - times.forward_ms) for ms in times.fastest_forwards_ms]
    typical = batches[distances.index(min(distances))]
    counts = _count(workload, batches, ceilings)
    growth = None
    no_growth = _why_no_doubling(device, min(times.fastest_forwards_ms))
    if no_growth is None:
        growth = _growth_when_doubled(workload, typical)
    return Evidence(
        device=device.type,
        batch_size=size,
        tokenize_ms=times.tokenize_ms,
        host_to_device_ms=times.host_to_device_ms,
        forward_ms=times.forward_ms,
        device_to_host_ms=times.device_to_host_ms,
        matmul_limited_ms=counts.matmul_limited_ms,
        copy_limited_ms=counts.copy_limited_ms,
        op_calls=counts.op_calls,
        dispatch_us=ceilings.dispatch_s * 1e6,
        flops=counts.flops,
        bytes_moved=counts.bytes_moved,
        device_busy_ms=None,
        doubling_growth=growth,
        padding_fraction=_padding_fraction(batches),
        unknown_operators=counts.unknown_operators,
        timed_forwards=(
            *_timed_batches(batches, times.fastest_forwards_ms),
            *_time_sub_batches(workload, typical),
        ),
        time_spread=times.spread,
        ceiling_spread=max(ceilings.matmul_spread_pct, ceilings.copy_spread_pct) / 100,
        unavailable=_unavailable(device, no_growth),
    )


def _unavailable(device: torch.device, no_growth: str | None) -> dict[str, str]:
    """Why what shows the host's work to start operators is not known."""
    unavailable = {"device_busy_ms": NOT_TRACED}
    if device.type == "cpu":
        unavailable["device_busy_ms"] = tracing.NO_GPU
    if no_growth is not None:
        unavailable["doubling_growth"] = no_growth
    return unavailable


def _count(workload: Workload, batches: Sequence[Inputs], ceilings: Ceilings) -> _Counts:
    number = len(batches)
    counted = costs.count_op_costs(lambda: [workload.forward(inputs) for inputs in batches])
    limited_s = {"matmul": 0.0, "copy": 0.0}
    for cost in counted:
        seconds, limit = operators.attainable_all_calls(cost, ceilings)
        limited_s[limit] += seconds
    unknown = {cost.name for cost in counted if cost.flops is None}
    return _Counts(
        op_calls=sum(cost.calls for cost in counted) / number,
        flops=sum(cost.flops or 0 for cost in counted) / number,
        bytes_moved=sum(cost.bytes_moved for cost in counted) / number,
        matmul_limited_ms=limited_s["matmul"] / number * 1e3,
        copy_limited_ms=limited_s["copy"] / number * 1e3,
        unknown_operators=tuple(sorted(unknown)),
    )


def _padding_fraction(batches: Sequence[Inputs]) -> float:
    masks = [inputs["attention_mask"] for inputs in batches]
    real = sum(int(mask.sum()) for mask in masks)
    return 1 - real / sum(mask.numel() for mask in masks)


def _timed_batches(
    batches: Sequence[Inputs], forwards_ms: Sequence[float]
) -> Iterator[TimedForward]:
    for inputs, ms in zip(batches, forwards_ms, strict=True):
        num_rows, length = inputs["attention_mask"].shape
        yield TimedForward(num_rows=num_rows, length=length, forward_ms=ms)


def _time_sub_batches(workload: Workload, inputs: Inputs) -> Iterator[TimedForward]:
    """Parts of a batch: batches of similar shapes would not tell what rows and tokens cost.

    Shorter batches come from the tokenizer, which adds the end token that some models read their
    result at.
    """
    device = workload.loaded.device
    num_rows, length = inputs["input_ids"].shape
    texts = next(batch for batch in workload.batches if len(batch) == num_rows)
    few = -(-num_rows // PROBED_PART)
    short = -(-length // PROBED_PART)
    shapes_timed = {(num_rows, length)}
    for rows, max_length in ((few, length), (num_rows, short), (few, short), (1, short)):
        encoded = encode_batch(workload.loaded.tokenizer, texts[:rows], max_length)
        shape = (encoded["input_ids"].shape[0], encoded["input_ids"].shape[1])
        if shape in shapes_timed:
            continue
        shapes_timed.add(shape)
        forward = partial(workload.forward, workload.to_device(encoded))
        times = time_callable(forward, device, repeats=TIMED_REPEATS)
        yield TimedForward(num_rows=shape[0], length=shape[1], forward_ms=1e3 * times.fastest_s)


def _why_no_doubling(device: torch.device, fastest_ms: float) -> str | None:
    """Why no doubled batch is tried; None where one is."""
    if device.type != "cpu":
        return "a CUDA device's idle time is better evidence"
    if fastest_ms > 1e3 * DOUBLED_UP_TO_S:
        return f"starting operators does not decide a forward of {three_digits(fastest_ms)} ms"
    return None


def _growth_when_doubled(workload: Workload, inputs: Inputs) -> float:
    """By how much the forward of a batch put twice into one takes longer."""
    device = workload.loaded.device
    doubled = {name: torch.cat((tensor, tensor)) for name, tensor in inputs.items()}
    once_s = []
    twice_s = []
    for _ in range(1 + TIMED_REPEATS):
        once_s.append(time_calls(partial(workload.forward, inputs), device))
        twice_s.append(time_calls(partial(workload.forward, doubled), device))
    # The first of each warms up.
    return min(twice_s[1:]) / min(once_s[1:]) - 1


def mean_forward_ms(evidence: Evidence, workload: Workload, steps: int) -> float:
    """Untraced forward of the batches that ``steps`` traced steps take, in turn."""
    number = len(workload.batches)
    times_ms = [evidence.timed_forwards[step % number].forward_ms for step in range(steps)]
    return statistics.fmean(times_ms)
