"""One traced run: the Chrome trace, the collapsed stacks and the operators' times."""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, schedule

from utils.core.files import atomic_path
from utils.diagnosis.kernels import STEP, Event, find_kernels, merged_length, spans
from utils.diagnosis.trace_file import parse_truncated_trace, write_trace
from utils.model.costs import show_shapes
from utils.system.device import synchronize

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""Now and then an event's name comes out garbled and the trace cannot be read; the next one can."""
UNREADABLE = (UnicodeDecodeError, json.JSONDecodeError)
NONE_READABLE = f"{ATTEMPTS} traces in a row could not be read"
NO_GPU = "no GPU was used"
OPERATOR = re.compile(r"^[a-z]\w*::\w+$", re.IGNORECASE)
NO_KERNELS = (
    "The profiler saw no CUDA kernels (CUPTI is missing or not permitted here): device times of"
    " operators and the device's busy time are not measured; latencies come from the host's clock"
    " and CUDA events."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What was recorded of a traced run.

    Args:
        operators: calls, times and memory by operator and tensor shapes, per step; device times are
            NaN where no kernel was seen.
        step_ms: the host's time of a traced step.
        events: of the Chrome trace, also those that a large file leaves out; none where the trace
            is incomplete.
    """

    operators: pd.DataFrame
    stacks: tuple[str, ...]
    step_ms: float
    events: Sequence[Event]
    warnings: tuple[str, ...]


def trace(
    step: Callable[[int], object], *, steps: int, device: torch.device, trace_file: Path
) -> Trace:
    """Trace ``steps`` calls of ``step(index)`` after two that warm up; write ``trace_file``.

    Raises:
        RuntimeError: three traces in a row could not be read.
    """
    warnings: list[str] = []
    for attempt in range(1, ATTEMPTS + 1):
        try:
            traced = _trace_once(step, steps, device, trace_file, last=attempt == ATTEMPTS)
        except UNREADABLE as error:
            warnings.append(
                f"Trace {attempt} of at most {ATTEMPTS} could not be read ({error}); traced again."
            )
        else:
            return replace(traced, warnings=(*warnings, *traced.warnings))
    raise RuntimeError(f"{NONE_READABLE}: {warnings[-1]}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceBusy:
    """Milliseconds per step in which a kernel or copy ran, or why that is not known."""

    ms: float | None = None
    reason: str | None = None


def measure_device_busy(
    step: Callable[[int], object], *, steps: int, device: torch.device
) -> DeviceBusy:
    """Trace ``steps`` calls of ``step(index)`` and add up the time in which the device works."""
    if device.type != "cuda":
        return DeviceBusy(reason=NO_GPU)
    events = record_kernel_events(step, steps=steps, device=device)
    if not events:
        return DeviceBusy(reason=NONE_READABLE)
    kernels = find_kernels(events)
    if kernels.empty:
        return DeviceBusy(reason=NO_KERNELS)
    return DeviceBusy(ms=merged_length(spans(kernels)) / steps / 1e3)


def record_kernel_events(
    step: Callable[[int], object], *, steps: int, device: torch.device
) -> list[Event]:
    """A Chrome trace's events without shapes, memory and stacks, whose recording delays kernels.

    Returns:
        Nothing where three traces in a row could not be read.
    """
    for _ in range(ATTEMPTS):
        with suppress(*UNREADABLE), TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json"
            profiler, _ = _profiled(step, steps, device)
            profiler.export_chrome_trace(str(file))
            text = file.read_text(encoding="utf-8", errors="replace")
            return list(json.loads(text)["traceEvents"])
    logger.warning("%s: what they would show is not measured.", NONE_READABLE)
    return []


def _profiled(
    step: Callable[[int], object], steps: int, device: torch.device, **options: Any
) -> tuple[profile, list[float]]:
    """The profiler after its steps, and the host's seconds of each."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    seconds = []
    wait_then_record = schedule(wait=1, warmup=1, active=steps, repeat=1)
    with profile(activities=activities, schedule=wait_then_record, **options) as profiler:
        for index in (0, 0, *range(steps)):
            begin = time.perf_counter()
            step(index)
            synchronize(device)
            seconds.append(time.perf_counter() - begin)
            profiler.step()
    return profiler, seconds[-steps:]


def _trace_once(
    step: Callable[[int], object],
    steps: int,
    device: torch.device,
    trace_file: Path,
    *,
    last: bool,
) -> Trace:
    """One attempt; the last takes what can be read of a trace."""
    profiler, seconds = _profiled(
        step,
        steps,
        device,
        record_shapes=True,
        profile_memory=True,
        with_stack=True,
        # Without it there are no Python frames (pytorch issue 100253).
        experimental_config=torch._C._profiler._ExperimentalConfig(verbose=True),
    )
    warnings = []
    on_device = device.type == "cuda"
    operators = _operator_times(profiler, steps, on_device=on_device)
    if on_device and not operators["self_device_ms"].any():
        on_device = False
        operators = operators.assign(self_device_ms=math.nan, total_device_ms=math.nan)
        warnings.append(NO_KERNELS)
    stacks = collapse(profiler.events() or (), on_device=on_device)
    if not stacks:
        raise RuntimeError("the profiler recorded no events, so there are no call stacks")
    events, file_warnings = _export(profiler, trace_file, last=last)
    return Trace(
        operators=operators,
        stacks=stacks,
        step_ms=sum(seconds) / steps * 1e3,
        events=events,
        warnings=(*warnings, *file_warnings),
    )


def _export(
    profiler: profile, trace_file: Path, *, last: bool
) -> tuple[Sequence[Event], list[str]]:
    """Write the trace's file.

    Returns:
        Its events, none where it is incomplete; warnings.
    """
    warnings = []
    with atomic_path(trace_file) as temporary:
        profiler.export_chrome_trace(str(temporary))
        text = temporary.read_text(encoding="utf-8", errors="replace" if last else "strict")
    events: Sequence[Event]
    try:
        chrome = json.loads(text)
        events = chrome["traceEvents"]
    except json.JSONDecodeError:
        if not last:
            raise
        complete = parse_truncated_trace(text)
        chrome = {"traceEvents": complete}
        events = ()
        warnings.append(
            f"The trace is incomplete (is the disk full?): {trace_file.name} has its first"
            f" {len(complete):,} events; memory, which comes from it, is not measured."
        )
    size_warning = write_trace(trace_file, chrome)
    if size_warning is not None:
        warnings.append(size_warning)
    return events, warnings


def collapse(events: Iterable[Any], *, on_device: bool) -> tuple[str, ...]:
    """``frame;frame;… microseconds``, outermost first: self time by the chain of callers.

    The longest come first. Phases, modules, Python functions and operators are all frames. Device
    time is counted at operators alone, because the profiler gives a named range the time from its
    first kernel to its last: a range ``layers.0`` around two operators of 2 and 3 ms has 5 ms or
    more, and counting it too would count the kernels twice. Stacks start at the profiler's step,
    so that threads which wait meanwhile are left out; without steps all stacks count. Source of the
    format: Brendan Gregg's FlameGraph.
    """
    totals: Counter[tuple[str, ...]] = Counter()
    for event in events:
        mirrored = on_device and getattr(event, "is_user_annotation", False)
        if event.device_type != DeviceType.CPU or mirrored:
            continue
        own_us = event.self_device_time_total if on_device else event.self_cpu_time_total
        if own_us > 0:
            totals[_stack(event)] += own_us
    in_steps = {stack: us for stack, us in totals.items() if stack[0].startswith(STEP)}
    lines = []
    for stack, own_us in Counter(in_steps or totals).most_common():
        # A stack that is there is never 0: renderers drop such lines.
        lines.append(f"{';'.join(stack)} {max(1, round(own_us))}")
    return tuple(lines)


def _stack(event: Any) -> tuple[str, ...]:
    frames: list[str] = []
    while event is not None and not (frames and frames[-1].startswith(STEP)):
        # Addresses would make equal stacks differ; semicolons and spaces have a meaning.
        name = re.sub(r" at 0x[0-9a-f]+", "", event.name)
        frames.append(re.sub(r"[;\s]+", "_", name) or "unnamed")
        event = event.cpu_parent
    return tuple(reversed(frames))


def _operator_times(profiler: profile, steps: int, *, on_device: bool) -> pd.DataFrame:
    """Per step, by operator and the shapes of its plain tensor arguments."""
    rows = profiler.key_averages(group_by_input_shape=True)
    # How the profiler's names of the device's values begin; on the CPU the host is the device.
    prefix = "device" if on_device else "cpu"
    columns = {
        "calls": ("count", 1),
        "self_device_ms": (f"self_{prefix}_time_total", 1e3),
        "total_device_ms": (f"{prefix}_time_total", 1e3),
        "self_host_ms": ("self_cpu_time_total", 1e3),
        "total_host_ms": ("cpu_time_total", 1e3),
        "memory_allocated_mb": (f"self_{prefix}_memory_usage", 1e6),
    }
    records = []
    for row in rows:
        if not OPERATOR.match(row.key):
            continue
        record = {"operator": row.key, "input_shapes": _plain_shapes(row.input_shapes)}
        for name, (attribute, unit) in columns.items():
            record[name] = getattr(row, attribute) / unit / steps
        records.append(record)
    frame = pd.DataFrame(records, columns=["operator", "input_shapes", *columns])
    return frame.groupby(["operator", "input_shapes"], sort=False, as_index=False).sum()


def _plain_shapes(recorded: Any) -> str:
    """Shapes of tensors; those of other arguments are recorded as empty or nested."""
    shapes = []
    for shape in recorded or ():
        if shape and all(isinstance(size, int) for size in shape):
            shapes.append(shape)
    return show_shapes(tuple(shapes))
