"""What the device did and why it waited: pure functions over a Chrome trace's events, all in microseconds.

Source of busy, idle and host-late: HolisticTraceAnalysis, whose definitions of them are kept.
"""

from __future__ import annotations

import re
import statistics
from bisect import bisect_right
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd

Event = Mapping[str, Any]
Interval = tuple[float, float]

ON_DEVICE = frozenset(("kernel", "gpu_memcpy", "gpu_memset"))
CALLS = frozenset(("cuda_runtime", "cuda_driver"))
STEP = "ProfilerStep"  # how the profiler calls the range of one step
LAUNCH = re.compile(r"^cu(da)?(Launch|GraphLaunch)")
"""``cudaLaunchKernel`` and its family; Triton's kernels start by the driver's ``cuLaunchKernelEx``."""
WAIT = re.compile(r"^cu(?:da)?(?:\w+Synchronize|(Memcpy))")
"""Calls that return only when the device has done what went before; copies, the group, only some of them."""
CLOCKS_APART_US = 2.0  # by how much the host's and the device's time may differ in a trace
CATEGORIES = (
    ("attention", r"flash|fmha|sdpa|attention"),
    ("normalisation and element-wise", r"^triton_poi_|^triton_(per|red)_.*rsqrt|(layer|rms|group|batch)_?norm|RowwiseMoments"),
    ("reduction", r"^triton_(per|red)_"),
    ("matrix product", r"gemm|gemv|nvjet|xmma|cutlass|cublas|splitK|dot_kernel|^triton_(tem|mm)"),
    ("memory copy", r"copy_kernel|CatArray|indexSelect|gather_kernel|index_elementwise|Memcpy|Memset"),
    ("reduction", r"reduce|softmax|argm(ax|in)|cub::|scan|sort|topk"),
    ("normalisation and element-wise", r"elementwise|fused"),
)
"""The first pattern in a kernel's name, whatever its case, decides. Names hold each other's words (a fused attention is
built of cutlass products, a copy is an element-wise kernel), so the order matters."""
CAUSES = ("host_late", "synchronisation", "between_steps", "other")


def category(name: str) -> str:
    """What kind of work a kernel does, by its name."""
    return next((kind for kind, pattern in CATEGORIES if re.search(pattern, name, re.IGNORECASE)), "other")


def find_kernels(events: Sequence[Event]) -> pd.DataFrame:
    """Kernels, copies and fills on the device: ``kernel``, ``category``, ``begin_us``, ``end_us``, ``launch_us``; by their begin.

    The last is when the host's call for it began, NaN where the trace lacks it; all kernels of one CUDA graph have the graph's.
    """
    launches = {event["args"]["correlation"]: _span(event)[0] for event in _complete(events, CALLS)}
    found = [
        (event["name"], category(event["name"]) if event["cat"] == "kernel" else "memory copy", *_span(event),
         launches.get(event["args"]["correlation"])) for event in _complete(events, ON_DEVICE)
    ]
    times = ["begin_us", "end_us", "launch_us"]
    frame = pd.DataFrame(found, columns=["kernel", "category", *times]).astype(dict.fromkeys(times, float))
    return frame.sort_values(["begin_us", "end_us"], ignore_index=True)


def spans(kernels: pd.DataFrame) -> list[Interval]:
    """Begin and end of each kernel."""
    return list(zip(kernels["begin_us"], kernels["end_us"], strict=True))


def merged(intervals: Iterable[Interval]) -> list[Interval]:
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
    return sum(end - begin for begin, end in merged(intervals))


def find_waits(events: Sequence[Event]) -> list[Interval]:
    """The host's calls that waited for the device, merged.

    A copy waited where it was over when its call returned, as of pageable memory to the host; of pinned memory and on the
    device the call returns at once, whatever its name says.
    """
    copied_us = {event["args"]["correlation"]: _span(event)[1] for event in _complete(events, {"gpu_memcpy"})}
    waits = []
    for call in _complete(events, CALLS):
        if found := WAIT.match(call["name"]):
            begin, end = _span(call)
            done_us = copied_us.get(call["args"]["correlation"], float("inf")) if found[1] else end
            if done_us <= end + CLOCKS_APART_US:
                waits.append((begin, max(end, done_us)))
    return merged(waits)


def find_gaps(kernels: pd.DataFrame, waits: Sequence[Interval], step_begins: Sequence[float]) -> list[tuple[str, float]]:
    """Cause and microseconds of each gap in which the device idled between its first kernel and its last.

    ``between_steps``: a step began meanwhile. ``synchronisation``: as the gap began the host was inside a call that waits for the
    device, so it could launch nothing. ``host_late``: else, the launch of the next kernel began after the gap did. ``other``: it
    was launched in time, or its launch is not in the trace.
    """
    launches = kernels.drop_duplicates("begin_us").set_index("begin_us")["launch_us"].to_dict()
    gaps = []
    for (_, begin), (end, _) in pairwise(merged(spans(kernels))):
        place = bisect_right(waits, (begin, float("inf"))) - 1
        if any(begin < step <= end for step in step_begins):
            cause = "between_steps"
        elif not launches[end] > begin:
            cause = "other"
        else:
            cause = "synchronisation" if place >= 0 and waits[place][1] >= begin else "host_late"
        gaps.append((cause, end - begin))
    return gaps


def summarise(events: Sequence[Event]) -> dict[str, Any] | None:
    """The ``kernels`` object of ``bottlenecks.json``: totals of all traced steps; None where the trace holds no kernels.

    ``span_ms`` is from the first kernel's begin to the last one's end, ``busy_ms`` the part of it in which at least one ran,
    ``kernel_ms`` their own times added up. Tracing lengthens what the host does: idle time here is an upper bound.
    """
    kernels = find_kernels(events)
    if kernels.empty:
        return None
    launches = [_span(call) for call in _complete(events, CALLS) if LAUNCH.match(call["name"])]
    steps = [event["ts"] for event in _complete(events, {"user_annotation"}) if event["name"].startswith(STEP)]
    gaps = find_gaps(kernels, find_waits(events), steps)
    span_us, busy_us = float(kernels["end_us"].max() - kernels["begin_us"].min()), merged_length(spans(kernels))
    idle_ms = dict.fromkeys(CAUSES, 0.0)
    for cause, length_us in gaps:
        idle_ms[cause] += length_us / 1e3
    by_category_ms = table(events).groupby("category")["time_ms"].sum().to_dict()
    return {
        "steps": len(steps), "kernels": len(kernels), "span_ms": span_us / 1e3, "busy_ms": busy_us / 1e3,
        "idle_ms": (span_us - busy_us) / 1e3, "idle_by_cause_ms": idle_ms,
        "median_gap_us": statistics.median(length_us for _, length_us in gaps) if gaps else None,
        "launches": len(launches), "launches_per_s": len(launches) / span_us * 1e6 if span_us else None,
        "launch_ms": merged_length(launches) / 1e3, "kernel_ms": sum(by_category_ms.values()), "by_category_ms": by_category_ms,
    }


def table(events: Sequence[Event]) -> pd.DataFrame:
    """``kernels.csv``: by name, the longest first; calls and times are totals of all traced steps."""
    frame = find_kernels(events)
    frame = frame.assign(time_ms=(frame["end_us"] - frame["begin_us"]) / 1e3)
    rows = frame.groupby(["kernel", "category"], sort=False)["time_ms"].agg(calls="count", time_ms="sum").reset_index()
    total_ms = rows["time_ms"].sum() or 1.0
    rows = rows.assign(mean_us=rows["time_ms"] / rows["calls"] * 1e3, share_pct=100 * rows["time_ms"] / total_ms)
    return rows.sort_values("time_ms", ascending=False, kind="stable", ignore_index=True)


def _complete(events: Iterable[Event], categories: Container[str]) -> Iterable[Event]:
    """Events that have a begin and a length; of the device's, those that are tied to a call."""
    return (event for event in events if event.get("ph") == "X" and event.get("cat") in categories
            and (event["cat"] == "user_annotation" or "correlation" in event.get("args", {})))


def _span(event: Event) -> Interval:
    return float(event["ts"]), float(event["ts"]) + float(event["dur"])
