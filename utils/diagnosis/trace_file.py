"""The file of a Chrome trace: what is left out of a large one, what can be read of a broken one."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from utils.core.files import JsonObject, atomic_path
from utils.diagnosis.kernels import STEP, Event

COMPRESS_ABOVE_BYTES = 64_000_000
"""A larger trace is written as ``trace.json.gz``, some 20 times smaller, which Perfetto opens."""
MAX_BYTES = 256_000_000
"""A larger trace is written without parts of it: browsers read it into one string, up to 512 MB."""


def parse_truncated_trace(text: str) -> list[Event]:
    """The complete events of a trace whose end is missing."""
    events: list[Event] = []
    decoder = json.JSONDecoder()
    start = re.search(r'"traceEvents"\s*:\s*\[', text)
    if start is None:
        return events
    position = start.end()
    with suppress(json.JSONDecodeError):
        while True:
            between = re.compile(r"[\s,]*").match(text, position)
            assert between is not None, "it matches nothing, too"
            event, position = decoder.raw_decode(text, between.end())
            events.append(event)
    return events


def write_trace(trace_file: Path, chrome: JsonObject) -> str | None:
    """Write the trace, compressed where it is large, without its largest parts where too large.

    Returns:
        A warning that says so; None for a trace that is written as it is.
    """
    plain = trace_file.with_name("trace.json")
    packed = trace_file.with_name("trace.json.gz")
    text = json.dumps(chrome)
    full_mb = len(text) / 1e6
    left_out = []
    for part, without_part in SIZE_REDUCTIONS.items():
        if len(text) <= MAX_BYTES:
            break
        chrome = {**chrome, "traceEvents": without_part(chrome["traceEvents"])}
        text = json.dumps(chrome)
        left_out.append(part)
    if len(text) <= COMPRESS_ABOVE_BYTES:
        # Left by an earlier run.
        packed.unlink(missing_ok=True)
        with atomic_path(plain) as temporary:
            temporary.write_bytes(text.encode())
        return None
    # Left by an earlier run.
    plain.unlink(missing_ok=True)
    with atomic_path(packed) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), 6))
    without = _size_clause(left_out, len(text)) if left_out else ""
    return (
        f"The trace has {full_mb:.0f} MB: it is written as {packed.name}{without}. Perfetto opens"
        " it as it is."
    )


def _size_clause(left_out: Sequence[str], num_bytes: int) -> str:
    """What was left out, and whether the trace is small enough then."""
    limit = f"{MAX_BYTES / 1e6:.0f} MB"
    if num_bytes <= MAX_BYTES:
        result = f" to stay below {limit}"
    else:
        result = f", which leaves {num_bytes / 1e6:.0f} MB, above {limit}"
    return f", without {' and '.join(left_out)}{result}"


def _without_call_stacks(events: Sequence[Event]) -> list[Event]:
    shortened: list[Event] = []
    for event in events:
        args = dict(event.get("args", {}))
        args.pop("Call stack", None)
        shortened.append({**event, "args": args})
    return shortened


def _without_python_functions(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event.get("cat") != "python_function"]


def _first_step(events: Sequence[Event]) -> list[Event]:
    ends = []
    for event in events:
        if event.get("ph") == "X" and event["name"].startswith(STEP):
            ends.append(event["ts"] + event["dur"])
    if not ends:
        return list(events)
    return [event for event in events if event.get("ts", 0) < min(ends)]


SIZE_REDUCTIONS: dict[str, Callable[[Sequence[Event]], list[Event]]] = {
    "operators' call stacks": _without_call_stacks,
    "Python functions": _without_python_functions,
    "steps after the first": _first_step,
}
"""What a trace that is too large is written without, in this order; other files have all of it."""
