"""One traced run: the Chrome trace, the collapsed stacks and the operators' times."""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile, schedule

from utils.core.files import write_error
from utils.diagnosis.kernels import Event, find_kernels, merged_length, spans
from utils.diagnosis.trace_events import collapse, operator_times
from utils.diagnosis.trace_file import parse_truncated_trace, write_trace
from utils.schema.warning_codes import WarningCode, sentence_of
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
                WarningCode.TRACE.warn(
                    f"trace {attempt} of at most {ATTEMPTS} could not be read ({error}); it was"
                    " traced again"
                )
            )
        else:
            return replace(traced, warnings=(*warnings, *traced.warnings))
    raise RuntimeError(f"{NONE_READABLE}: {sentence_of(warnings[-1])}")


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
    # Recording the host's operators too would slow a run that waits for the host.
    events = record_kernel_events(step, steps=steps, device=device, with_host=False)
    if not events:
        return DeviceBusy(reason=NONE_READABLE)
    kernels = find_kernels(events)
    if kernels.empty:
        return DeviceBusy(reason=NO_KERNELS)
    return DeviceBusy(ms=merged_length(spans(kernels)) / steps / 1e3)


def record_kernel_events(
    step: Callable[[int], object], *, steps: int, device: torch.device, with_host: bool = True
) -> list[Event]:
    """A Chrome trace's events without shapes, memory and stacks, whose recording delays kernels.

    Args:
        with_host: record the host's operators and named ranges, and not the device alone.

    Returns:
        Nothing where three traces in a row could not be read.
    """
    for _ in range(ATTEMPTS):
        with suppress(*UNREADABLE), TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json"
            profiler, _ = _profiled(step, steps, device, with_host=with_host)
            profiler.export_chrome_trace(str(file))
            text = file.read_text(encoding="utf-8", errors="replace")
            return list(json.loads(text)["traceEvents"])
    logger.warning("%s: what they would show is not measured.", NONE_READABLE)
    return []


def _profiled(
    step: Callable[[int], object],
    steps: int,
    device: torch.device,
    *,
    with_host: bool = True,
    **options: Any,
) -> tuple[profile, list[float]]:
    """The profiler after its steps, and the host's seconds of each."""
    activities = []
    if with_host:
        activities.append(ProfilerActivity.CPU)
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    seconds = []
    wait_then_record = schedule(wait=1, warmup=1, active=steps, repeat=1)
    # With one cycle nothing accumulates; without acc_events torch 2.11 warns that nothing does.
    with profile(
        activities=activities, schedule=wait_then_record, acc_events=True, **options
    ) as profiler:
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
    recorded = profiler.events() or ()
    operators = operator_times(recorded, steps, on_device=on_device)
    if on_device and not operators["self_device_ms"].any():
        on_device = False
        operators = operators.assign(self_device_ms=math.nan, total_device_ms=math.nan)
        warnings.append(WarningCode.TRACE.warn(NO_KERNELS))
    stacks = collapse(recorded, on_device=on_device)
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


def _chrome_text(profiler: profile, parent: Path, *, errors: str) -> str:
    """The text of the Chrome trace, which the profiler can only write to a file.

    In a folder of its own, which is removed: on a full disk the profiler raises no error and leaves
    its temporary file behind. The text is then truncated or empty.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=parent, prefix=".trace-") as folder:
        file = Path(folder) / "trace.json"
        file.touch()
        profiler.export_chrome_trace(str(file))
        return file.read_text(encoding="utf-8", errors=errors)


def _export(
    profiler: profile, trace_file: Path, *, last: bool
) -> tuple[Sequence[Event], list[str]]:
    """Write the trace's file.

    Returns:
        Its events, none where it is incomplete; warnings.
    """
    warnings = []
    try:
        text = _chrome_text(profiler, trace_file.parent, errors="replace" if last else "strict")
    except OSError as error:
        raise write_error(trace_file, error) from error
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
            WarningCode.TRACE.warn(
                f"the trace is incomplete (is the disk full?): {trace_file.name} has its first"
                f" {len(complete):,} events; memory, which comes from it, is not measured"
            )
        )
    size_warning = write_trace(trace_file, chrome)
    if size_warning is not None:
        warnings.append(WarningCode.TRACE.warn(size_warning))
    return events, warnings
