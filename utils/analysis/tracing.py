"""One traced run: the Chrome trace, the collapsed stacks and the operators' times."""

from __future__ import annotations

import gzip
import json
import logging
import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, schedule

from utils.analysis.kernels import STEP, Event, find_kernels, merged_length, spans
from utils.analysis.roofline import synchronize
from utils.core.artifacts import atomic_path
from utils.costs import show_shapes

logger = logging.getLogger(__name__)

ATTEMPTS = 3  # now and then an event's name comes out garbled and the whole trace cannot be read; the next one can
UNREADABLE = (UnicodeDecodeError, json.JSONDecodeError)
NONE_READABLE = f"{ATTEMPTS} traces in a row could not be read"
OPERATOR = re.compile(r"^[a-z]\w*::\w+$", re.IGNORECASE)
COMPRESS_ABOVE_BYTES = 64_000_000
"""A larger trace is written as ``trace.json.gz``, some 20 times smaller; Perfetto and chrome://tracing open that as it is."""
MOST_BYTES = 256_000_000
"""A larger trace, uncompressed, goes without parts of it: chrome://tracing reads it into one string, and browsers allow 512 MB."""
NO_KERNELS = (
    "The profiler saw no CUDA kernels (CUPTI is missing or not permitted here): device times of operators and the "
    "device's busy time are not measured; latencies come from the host's clock and CUDA events."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What a traced run says.

    Args:
        operators: calls, times and memory by operator and tensor shapes, per step; device times NaN where no kernel was seen.
        events: of the Chrome trace, also those that a large file leaves out; none where it was cut.
    """

    operators: pd.DataFrame
    stacks: tuple[str, ...]
    step_ms: float
    events: Sequence[Event]
    warnings: tuple[str, ...]


def trace(step: Callable[[int], object], *, steps: int, device: torch.device, trace_file: Path) -> Trace:
    """Trace ``steps`` calls of ``step(index)`` after one to wait and one to warm up; write ``trace_file``.

    Raises:
        RuntimeError: three traces in a row could not be read.
    """
    warnings: list[str] = []
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _trace_once(step, steps, device, trace_file, warnings, last=attempt == ATTEMPTS)
        except UNREADABLE as error:
            warnings.append(f"Trace {attempt} of at most {ATTEMPTS} could not be read ({error}); traced again.")
    raise RuntimeError(f"{NONE_READABLE}: {warnings[-1]}")


def device_busy_ms(step: Callable[[int], object], *, steps: int, device: torch.device) -> float | None:
    """Milliseconds per step in which a kernel or copy ran; None on the CPU and where no kernel was seen or no trace read."""
    if device.type != "cuda":
        return None
    kernels = find_kernels(bare_events(step, steps=steps, device=device))
    return None if kernels.empty else merged_length(spans(kernels)) / steps / 1e3


def bare_events(step: Callable[[int], object], *, steps: int, device: torch.device) -> list[Event]:
    """A Chrome trace's events without shapes, memory and stacks, whose recording delays the launches of kernels."""
    return events_of(lambda: _profiled(step, steps, device)[0])


def events_of(run: Callable[[], profile]) -> list[Event]:
    """What the profiler recorded of a run, which is repeated where that cannot be read; nothing where it never can."""
    for _ in range(ATTEMPTS):
        with suppress(*UNREADABLE), TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json"
            run().export_chrome_trace(str(file))
            return list(json.loads(file.read_text(encoding="utf-8", errors="replace"))["traceEvents"])
    logger.warning("%s: what they would say is not measured.", NONE_READABLE)
    return []


def _profiled(step: Callable[[int], object], steps: int, device: torch.device, **options: Any) -> tuple[profile, list[float]]:
    """The profiler after its steps, and the host's seconds of each."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the tracing library reports its start and stop to the terminal
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    seconds = []
    with profile(activities=activities, schedule=schedule(wait=1, warmup=1, active=steps, repeat=1), **options) as profiler:
        for index in (0, 0, *range(steps)):
            begin = time.perf_counter()
            step(index)
            synchronize(device)
            seconds.append(time.perf_counter() - begin)
            profiler.step()
    return profiler, seconds[-steps:]


def _trace_once(
    step: Callable[[int], object], steps: int, device: torch.device, trace_file: Path, warnings: Sequence[str], *, last: bool
) -> Trace:
    profiler, seconds = _profiled(
        step, steps, device, record_shapes=True, profile_memory=True, with_stack=True,
        # Without it there are no Python frames (pytorch issue 100253).
        experimental_config=torch._C._profiler._ExperimentalConfig(verbose=True),
    )
    on_device = device.type == "cuda"
    operators = _operator_times(profiler.key_averages(group_by_input_shape=True), steps, "device" if on_device else "cpu")
    said = []
    if on_device and not operators["self_device_ms"].any():
        on_device, operators = False, operators.assign(self_device_ms=math.nan, total_device_ms=math.nan)
        said.append(NO_KERNELS)
    stacks = collapse(profiler.events() or (), on_device=on_device)
    if not stacks:
        raise RuntimeError("the profiler recorded no events, so there are no call stacks")
    with atomic_path(trace_file) as temporary:
        profiler.export_chrome_trace(str(temporary))
        text = temporary.read_text(encoding="utf-8", errors="replace" if last else "strict")
    try:
        chrome = json.loads(text)
        events = chrome["traceEvents"]
    except json.JSONDecodeError:
        if not last:
            raise
        part = events_before_cut(text)
        chrome, events = {"traceEvents": part}, ()
        said.append(f"The trace was cut short (is the disk full?): {trace_file.name} holds the {len(part):,} events before the cut"
                    "; memory, which comes from it, is not measured.")
    if large := write_trace(trace_file, chrome):
        said.append(large)
    step_ms = sum(seconds) / steps * 1e3
    return Trace(operators=operators, stacks=stacks, step_ms=step_ms, events=events, warnings=(*warnings, *said))


def collapse(events: Iterable[Any], *, on_device: bool) -> tuple[str, ...]:
    """``frame;frame;… microseconds``, outermost first, longest first: self time by the whole chain of callers.

    Phases, modules, Python functions and operators are all frames. Device time is the operators': that of a named range is its
    mirror on the device's timeline, which spans theirs (kernels are tied to operators alone). Stacks start at the profiler's step,
    so that threads which wait meanwhile are left out; without steps all stacks count. Source of the format: Brendan Gregg's
    FlameGraph.
    """
    totals: Counter[tuple[str, ...]] = Counter()
    for event in events:
        own_us = event.self_device_time_total if on_device else event.self_cpu_time_total
        mirrored = on_device and getattr(event, "is_user_annotation", False)
        if event.device_type == DeviceType.CPU and own_us > 0 and not mirrored:
            totals[_stack(event)] += own_us
    stepped = {stack: own_us for stack, own_us in totals.items() if stack[0].startswith(STEP)} or totals
    # A stack that is there is never 0: renderers drop such lines.
    longest_first = sorted(stepped.items(), key=lambda item: item[1], reverse=True)
    return tuple(f"{';'.join(stack)} {max(1, round(own_us))}" for stack, own_us in longest_first)


def _stack(event: Any) -> tuple[str, ...]:
    frames: list[str] = []
    while event is not None and not (frames and frames[-1].startswith(STEP)):
        # Without what the format gives a meaning, and without addresses, which would keep equal stacks apart.
        frames.append(re.sub(r"[;\s]+", "_", re.sub(r" at 0x[0-9a-f]+", "", event.name)) or "unnamed")
        event = event.cpu_parent
    return tuple(reversed(frames))


def _operator_times(rows: Iterable[Any], steps: int, prefix: str) -> pd.DataFrame:
    """Per step, by operator and the shapes of its plain tensor arguments (others are recorded as empty or nested).

    Args:
        prefix: how the profiler's names of the device's figures begin; on the CPU the host is the device.
    """
    columns = {
        "calls": ("count", 1),
        "self_device_ms": (f"self_{prefix}_time_total", 1e3), "total_device_ms": (f"{prefix}_time_total", 1e3),
        "self_host_ms": ("self_cpu_time_total", 1e3), "total_host_ms": ("cpu_time_total", 1e3),
        "memory_allocated_mb": (f"self_{prefix}_memory_usage", 1e6),
    }

    def shapes(recorded: Any) -> str:
        return show_shapes(tuple(shape for shape in recorded or () if shape and all(isinstance(size, int) for size in shape)))

    records = [
        {"operator": row.key, "input_shapes": shapes(row.input_shapes),
         **{name: getattr(row, source) / unit / steps for name, (source, unit) in columns.items()}}
        for row in rows if OPERATOR.match(row.key)
    ]
    frame = pd.DataFrame(records, columns=["operator", "input_shapes", *columns])
    return frame.groupby(["operator", "input_shapes"], sort=False, as_index=False).sum()


def events_before_cut(text: str) -> list[Event]:
    """The whole events of a trace whose end is missing."""
    events: list[Event] = []
    decode, between = json.JSONDecoder().raw_decode, re.compile(r"[\s,]*")
    start = re.search(r'"traceEvents"\s*:\s*\[', text)
    position = start.end() if start else len(text)
    with suppress(json.JSONDecodeError):
        while found := between.match(text, position):
            event, position = decode(text, found.end())
            events.append(event)
    return events


def write_trace(trace_file: Path, chrome: dict[str, Any]) -> str | None:
    """Write the trace, compressed where it is large and without its bulkiest parts where it is too large; say so."""
    plain, packed = (trace_file.with_name(name) for name in ("trace.json", "trace.json.gz"))
    text, left_out = json.dumps(chrome), []
    whole_mb = len(text) / 1e6
    for what, cut in CUTS.items():
        if len(text) <= MOST_BYTES:
            break
        chrome = {**chrome, "traceEvents": cut(chrome["traceEvents"])}
        text = json.dumps(chrome)
        left_out.append(what)
    large = len(text) > COMPRESS_ABOVE_BYTES
    (plain if large else packed).unlink(missing_ok=True)  # an earlier run's
    with atomic_path(packed if large else plain) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), 6) if large else text.encode())
    if not large:
        return None
    limit = f"{MOST_BYTES / 1e6:.0f} MB"
    came_to = f" to stay below {limit}" if len(text) <= MOST_BYTES else f", which leaves {len(text) / 1e6:.0f} MB, above {limit}"
    without = f", without {' and '.join(left_out)}{came_to}" if left_out else ""
    return f"The trace has {whole_mb:.0f} MB: it is written as {packed.name}{without}. Perfetto opens it as it is."


def _without_call_stacks(events: Sequence[Event]) -> list[Event]:
    return [{**event, "args": {k: v for k, v in event.get("args", {}).items() if k != "Call stack"}} for event in events]


def _first_step(events: Sequence[Event]) -> list[Event]:
    ends = [event["ts"] + event["dur"] for event in events if event.get("ph") == "X" and event["name"].startswith(STEP)]
    return [event for event in events if not ends or event.get("ts", 0) < min(ends)]


CUTS: dict[str, Callable[[Sequence[Event]], list[Event]]] = {
    "operators' call stacks": _without_call_stacks,
    "Python functions": lambda events: [event for event in events if event.get("cat") != "python_function"],
    "steps after the first": _first_step,
}
"""What a trace that is too large does without, in this order; ``stacks.txt`` and ``operators.csv`` have it all."""
