"""The profiler's events summed up: by operator and shapes, and by call stack.

PyTorch's ``key_averages`` and ``self_device_time_total`` walk through everything below an event for
each event. Here every event is read once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd
from torch.autograd import DeviceType

from utils.diagnosis.kernels import STEP
from utils.model.costs import show_shapes

IN_OTHER_THREAD = "_encode_in_new_thread"
"""Ends the name of the frame whose work runs in another thread, which the tracer does not follow;
what the main thread calls below it is waiting."""
OPERATOR = re.compile(r"^[a-z]\w*::\w+$", re.IGNORECASE)
VALUES = (
    "calls",
    "self_device_ms",
    "total_device_ms",
    "self_host_ms",
    "total_host_ms",
    "memory_allocated_mb",
)


def collapse(events: Iterable[Any], *, on_device: bool) -> tuple[str, ...]:
    """``frame;frame;… microseconds``, outermost first: self time by the chain of callers.

    The longest come first. Phases, modules, Python functions and operators are all frames. Device
    time is counted at operators alone, because the profiler gives a named range the time from its
    first kernel to its last: a range ``layers.0`` around two operators of 2 and 3 ms has 5 ms or
    more, and counting it too would count the kernels twice. Stacks start at the profiler's step,
    so that threads which wait meanwhile are left out; without steps all stacks count. While the
    main thread waits for tokenising in another thread, the stack has the name of that frame, and no
    locks. Source of the format: Brendan Gregg's FlameGraph.
    """
    totals: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for event in events:
        if event.device_type != DeviceType.CPU:
            continue
        own_us = own_device_us(event) if on_device else event.self_cpu_time_total
        if own_us > 0:
            totals[_stack(event)] += own_us
    in_steps = {stack: us for stack, us in totals.items() if stack[0].startswith(STEP)}
    lines = []
    shown = sorted((in_steps or totals).items(), key=lambda item: item[1], reverse=True)
    for stack, own_us in shown:
        # A stack that is there is never 0: renderers drop such lines.
        lines.append(f"{';'.join(stack)} {max(1, round(own_us))}")
    return tuple(lines)


def _stack(event: Any) -> tuple[str, ...]:
    frames: list[str] = []
    while event is not None and not (frames and frames[-1].startswith(STEP)):
        name = _frame_name(event.name)
        if name.endswith(IN_OTHER_THREAD):
            frames.clear()
        frames.append(name)
        event = event.cpu_parent
    return tuple(reversed(frames))


@lru_cache(maxsize=1 << 14)
def _frame_name(name: str) -> str:
    # Addresses would make equal stacks differ; semicolons and spaces have a meaning.
    name = re.sub(r" at 0x[0-9a-f]+", "", name)
    return re.sub(r"[;\s]+", "_", name) or "unnamed"


def own_device_us(event: Any) -> float:
    """Microseconds of the kernels that an event of the host launched itself.

    A named range has none: what the profiler ties to it is its mirror on the device's timeline.
    """
    if event.is_async or getattr(event, "is_user_annotation", False):
        return 0.0
    return float(sum(kernel.duration for kernel in event.kernels))


def total_device_us(events: Sequence[Any]) -> dict[int, float]:
    """Microseconds of the kernels of each host event and of all below it, by the event's ``id``."""
    order: list[Any] = []
    waiting = [event for event in events if event.cpu_parent is None]
    while waiting:
        event = waiting.pop()
        order.append(event)
        waiting.extend(event.cpu_children)
    totals: dict[int, float] = {}
    # Children first.
    for event in reversed(order):
        below_us = sum(totals[id(child)] for child in event.cpu_children)
        totals[id(event)] = own_device_us(event) + below_us
    return totals


def operator_times(events: Iterable[Any], steps: int, *, on_device: bool) -> pd.DataFrame:
    """Per step, by operator and the shapes of its plain tensor arguments.

    Without a device the host is the device.
    """
    on_host = [event for event in events if event.device_type == DeviceType.CPU]
    device_us = total_device_us(on_host) if on_device else {}
    records = []
    for event in on_host:
        if not OPERATOR.match(event.name):
            continue
        shapes = _plain_shapes(event.input_shapes)
        values = _event_values(event, device_us, on_device=on_device)
        records.append({"operator": event.name, "input_shapes": shapes, **values})
    frame = pd.DataFrame(records, columns=["operator", "input_shapes", *VALUES])
    sums = frame.groupby(["operator", "input_shapes"], sort=False, as_index=False).sum()
    return sums.assign(**{name: sums[name] / steps for name in VALUES})


def _event_values(
    event: Any, device_us: Mapping[int, float], *, on_device: bool
) -> dict[str, float]:
    """The values of one call, by column."""
    self_host_ms = event.self_cpu_time_total / 1e3
    total_host_ms = event.cpu_time_total / 1e3
    if on_device:
        self_device_ms = own_device_us(event) / 1e3
        total_device_ms = device_us[id(event)] / 1e3
        allocated_bytes = event.self_device_memory_usage
    else:
        self_device_ms = self_host_ms
        total_device_ms = total_host_ms
        allocated_bytes = event.self_cpu_memory_usage
    return {
        "calls": 1,
        "self_device_ms": self_device_ms,
        "total_device_ms": total_device_ms,
        "self_host_ms": self_host_ms,
        "total_host_ms": total_host_ms,
        "memory_allocated_mb": allocated_bytes / 1e6,
    }


def _plain_shapes(recorded: Any) -> str:
    """Shapes of tensors; those of other arguments are recorded as empty or nested."""
    shapes = []
    for shape in recorded or ():
        if shape and all(isinstance(size, int) for size in shape):
            shapes.append(shape)
    return show_shapes(tuple(shapes))
