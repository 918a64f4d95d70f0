"""What the device did and why it waited: pure functions over a Chrome trace's events.

Times are in microseconds unless a name says otherwise. The definitions of busy, idle and host
wait are HolisticTraceAnalysis's.
"""

from __future__ import annotations

import re
import statistics
from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, get_args

import pandas as pd

from utils.schema.profile import IdleCause, KernelSummary

Event = Mapping[str, Any]
Interval = tuple[float, float]

ON_DEVICE = frozenset(("kernel", "gpu_memcpy", "gpu_memset"))
CALLS = frozenset(("cuda_runtime", "cuda_driver"))
STEP = "ProfilerStep"
"""How the profiler calls the range of one step."""
LAUNCH = re.compile(r"^cu(da)?(Launch|GraphLaunch)")
"""``cudaLaunchKernel`` and its family, and Triton's ``cuLaunchKernelEx`` of the driver."""
SYNCHRONIZE = re.compile(r"^cu(da)?\w+Synchronize")
"""Calls that return only when the device has done what went before."""
MEMORY_COPY = re.compile(r"^cu(da)?Memcpy")
"""Calls of which only some wait for the device."""
CLOCK_SKEW_US = 2.0
"""By how much the host's and the device's time may differ in a trace."""
CATEGORIES = (
    ("attention", r"flash|fmha|sdpa|attention"),
    (
        "normalisation and element-wise",
        r"^triton_poi_|^triton_(per|red)_.*rsqrt|(layer|rms|group|batch)_?norm|RowwiseMoments",
    ),
    ("reduction", r"^triton_(per|red)_"),
    (
        "matrix product",
        r"gemm|gemv|nvjet|xmma|cutlass|cublas|splitK|dot_kernel|^triton_(tem|mm)",
    ),
    (
        "memory copy",
        r"copy_kernel|CatArray|indexSelect|gather_kernel|index_elementwise|Memcpy|Memset",
    ),
    ("reduction", r"reduce|softmax|argm(ax|in)|cub::|scan|sort|topk"),
    ("normalisation and element-wise", r"elementwise|fused"),
)
"""The first pattern in a kernel's name, whatever its case, decides. The order matters, for names
contain each other's words (fused attention is made of cutlass products, a copy is element-wise)."""
IDLE_CAUSES = get_args(IdleCause)
NO_GAPS = "there was no gap between kernels"
NO_SPAN = "the kernels took no time"


def kernel_category(name: str) -> str:
    """What kind of work a kernel does, by its name."""
    for kind, pattern in CATEGORIES:
        if re.search(pattern, name, re.IGNORECASE):
            return kind
    return "other"


def find_kernels(events: Sequence[Event]) -> pd.DataFrame:
    """Kernels, copies and fills on the device, in order of their begin.

    Returns:
        ``kernel``, ``category``, ``begin_us``, ``end_us`` and ``launch_us``: when the host's call
        for it began, NaN where the trace lacks it; all kernels of one CUDA graph have the graph's.
    """
    launched_us = {}
    for call in _complete(events, CALLS):
        launched_us[call["args"]["correlation"]] = _span(call)[0]
    rows = []
    for event in _complete(events, ON_DEVICE):
        kind = kernel_category(event["name"]) if event["cat"] == "kernel" else "memory copy"
        launch_us = launched_us.get(event["args"]["correlation"])
        rows.append((event["name"], kind, *_span(event), launch_us))
    times = ["begin_us", "end_us", "launch_us"]
    frame = pd.DataFrame(rows, columns=["kernel", "category", *times])
    frame = frame.astype(dict.fromkeys(times, float))
    return frame.sort_values(["begin_us", "end_us"], ignore_index=True)


def spans(kernels: pd.DataFrame) -> list[Interval]:
    """Begin and end of each kernel."""
    return list(zip(kernels["begin_us"], kernels["end_us"], strict=True))


def merge_intervals(intervals: Iterable[Interval]) -> list[Interval]:
    """The union of intervals: apart from each other, in order."""
    union: list[Interval] = []
    for begin, end in sorted(intervals):
        if union and begin <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((begin, end))
    return union


def merged_length(intervals: Iterable[Interval]) -> float:
    """Length of the union of intervals."""
    return sum(end - begin for begin, end in merge_intervals(intervals))


def find_waits(events: Sequence[Event]) -> list[Interval]:
    """The host's calls that waited for the device, merged.

    A copy waited where it was over when its call returned, as of pageable memory to the host; of
    pinned memory and on the device the call returns at once, whatever its name says.
    """
    copied_us = {}
    for copy in _complete(events, {"gpu_memcpy"}):
        copied_us[copy["args"]["correlation"]] = _span(copy)[1]
    waits = []
    for call in _complete(events, CALLS):
        begin, end = _span(call)
        if SYNCHRONIZE.match(call["name"]):
            waits.append((begin, end))
        elif MEMORY_COPY.match(call["name"]):
            done_us = copied_us.get(call["args"]["correlation"], float("inf"))
            if done_us <= end + CLOCK_SKEW_US:
                waits.append((begin, max(end, done_us)))
    return merge_intervals(waits)


def find_gaps(
    kernels: pd.DataFrame, waits: Sequence[Interval], step_begins: Sequence[float]
) -> list[tuple[IdleCause, float]]:
    """Cause and length of each gap in which the device idled between its first and last kernel.

    ``between_steps``: a step began meanwhile. ``synchronisation``: as the gap began the host was
    inside a call that waits for the device, so it could launch nothing. ``host_wait``: else, the
    launch of the next kernel began after the gap did. ``other``: it was launched in time, or its
    launch is not in the trace.
    """
    first_of_gap = kernels.drop_duplicates("begin_us").set_index("begin_us")
    launched_us = first_of_gap["launch_us"].to_dict()
    gaps: list[tuple[IdleCause, float]] = []
    for (_, begin), (end, _) in pairwise(merge_intervals(spans(kernels))):
        cause: IdleCause
        if any(begin < step <= end for step in step_begins):
            cause = "between_steps"
        elif not launched_us[end] > begin:  # NaN too
            cause = "other"
        elif _host_waits_at(begin, waits):
            cause = "synchronisation"
        else:
            cause = "host_wait"
        gaps.append((cause, end - begin))
    return gaps


def summarize_kernels(events: Sequence[Event]) -> KernelSummary | None:
    """Totals of all traced steps; None where the trace holds no kernels."""
    kernels = find_kernels(events)
    if kernels.empty:
        return None
    launches = [_span(call) for call in _complete(events, CALLS) if LAUNCH.match(call["name"])]
    annotations = _complete(events, {"user_annotation"})
    step_begins = [event["ts"] for event in annotations if event["name"].startswith(STEP)]
    gaps = find_gaps(kernels, find_waits(events), step_begins)
    span_us = float(kernels["end_us"].max() - kernels["begin_us"].min())
    busy_us = merged_length(spans(kernels))
    by_category_ms = _time_by_category(events)
    unavailable = {}
    median_gap_us = None
    if gaps:
        median_gap_us = statistics.median(length_us for _, length_us in gaps)
    else:
        unavailable["median_gap_us"] = NO_GAPS
    launches_per_s = None
    if span_us:
        launches_per_s = len(launches) / span_us * 1e6
    else:
        unavailable["launches_per_s"] = NO_SPAN
    return KernelSummary(
        num_steps=len(step_begins),
        num_kernels=len(kernels),
        span_ms=span_us / 1e3,
        busy_ms=busy_us / 1e3,
        idle_ms=(span_us - busy_us) / 1e3,
        idle_by_cause_ms=_idle_by_cause(gaps),
        median_gap_us=median_gap_us,
        num_launches=len(launches),
        launches_per_s=launches_per_s,
        launch_ms=merged_length(launches) / 1e3,
        kernel_ms=sum(by_category_ms.values()),
        by_category_ms=by_category_ms,
        unavailable=unavailable,
    )


def _idle_by_cause(gaps: Iterable[tuple[IdleCause, float]]) -> dict[IdleCause, float]:
    """Milliseconds of every cause, also of those that did not occur."""
    idle_ms: dict[IdleCause, float] = dict.fromkeys(IDLE_CAUSES, 0.0)
    for cause, length_us in gaps:
        idle_ms[cause] += length_us / 1e3
    return idle_ms


def _time_by_category(events: Sequence[Event]) -> dict[str, float]:
    """Milliseconds of the kernels by kind of work."""
    by_category = build_kernel_table(events).groupby("category")["time_ms"].sum()
    return {str(kind): float(ms) for kind, ms in by_category.items()}


def build_kernel_table(events: Sequence[Event]) -> pd.DataFrame:
    """``kernels.csv``: by name, the longest first; totals of all traced steps."""
    frame = find_kernels(events)
    frame = frame.assign(time_ms=(frame["end_us"] - frame["begin_us"]) / 1e3)
    times = frame.groupby(["kernel", "category"], sort=False)["time_ms"]
    rows = times.agg(calls="count", time_ms="sum").reset_index()
    total_ms = rows["time_ms"].sum() or 1.0
    rows = rows.assign(
        mean_us=rows["time_ms"] / rows["calls"] * 1e3, share_pct=100 * rows["time_ms"] / total_ms
    )
    return rows.sort_values("time_ms", ascending=False, kind="stable", ignore_index=True)


def _host_waits_at(moment_us: float, waits: Sequence[Interval]) -> bool:
    position = bisect_right(waits, (moment_us, float("inf"))) - 1
    return position >= 0 and waits[position][1] >= moment_us


def _complete(events: Iterable[Event], categories: Container[str]) -> Iterator[Event]:
    """Events that have a begin and a length; of the device's, those that are tied to a call."""
    for event in events:
        if event.get("ph") != "X" or event.get("cat") not in categories:
            continue
        if event["cat"] == "user_annotation" or "correlation" in event.get("args", {}):
            yield event


def _span(event: Event) -> Interval:
    begin_us = float(event["ts"])
    return begin_us, begin_us + float(event["dur"])
