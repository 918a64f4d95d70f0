"""The Chrome trace as a file: compressed, capped, and read where it is truncated."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from utils.diagnosis import trace_file


def chrome(steps: int = 2) -> dict[str, Any]:
    """A made-up trace: each step of 100 us has an operator with a call stack and a function."""
    return {
        "schemaVersion": 1,
        "traceEvents": [
            {
                "ph": "X",
                "cat": cat,
                "name": name,
                "ts": 100 * step + begin,
                "dur": dur,
                "pid": 1,
                "tid": 1,
                "args": args,
            }
            for step in range(steps)
            for cat, name, begin, dur, args in (
                ("user_annotation", f"ProfilerStep#{step}", 0, 90, {}),
                ("python_function", "f.py(1): f", 5, 50, {}),
                (
                    "cpu_op",
                    "aten::mm",
                    10,
                    40,
                    {"External id": step, "Call stack": "f.py(1): f;" * 20},
                ),
            )
        ],
    }


def test_a_large_trace_is_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "trace.json"
    assert (
        trace_file.write_trace(file, chrome()) is None and json.loads(file.read_text()) == chrome()
    )
    monkeypatch.setattr(trace_file, "COMPRESS_ABOVE_BYTES", 100)
    warning = trace_file.write_trace(file, chrome())
    assert warning and "trace.json.gz" in warning and "without" not in warning
    [packed] = tmp_path.iterdir()
    assert json.loads(gzip.decompress(packed.read_bytes())) == chrome(), (
        "and trace.json, an earlier run's, is gone"
    )
    monkeypatch.setattr(trace_file, "COMPRESS_ABOVE_BYTES", 10**6)
    trace_file.write_trace(packed, chrome())
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("most_bytes", "names", "stacks"),
    [
        (800, ["ProfilerStep#0", "f.py(1): f", "aten::mm"] * 2, 0),
        (600, ["ProfilerStep#0", "aten::mm"] * 2, 0),
        (100, ["ProfilerStep#0", "aten::mm"], 0),
        (5000, ["ProfilerStep#0", "f.py(1): f", "aten::mm"] * 2, 2),
    ],
)
def test_a_trace_that_is_too_large_is_capped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_bytes: int, names: list[str], stacks: int
) -> None:
    monkeypatch.setattr(trace_file, "COMPRESS_ABOVE_BYTES", 50)
    monkeypatch.setattr(trace_file, "MAX_BYTES", most_bytes)
    warning = trace_file.write_trace(tmp_path / "trace.json", chrome())
    events = json.loads(gzip.decompress((tmp_path / "trace.json.gz").read_bytes()))["traceEvents"]
    assert [event["name"].replace("#1", "#0") for event in events] == names
    assert sum("Call stack" in event["args"] for event in events) == stacks
    assert warning and ("without operators' call stacks" in warning) == (not stacks)
    assert ("to stay below" in warning) == (most_bytes in (800, 600)), (
        "warning only where it is true"
    )
    assert (", which leaves 0 MB, above 0 MB" in warning) == (most_bytes == 100)


def test_complete_events_of_a_truncated_trace() -> None:
    text = json.dumps(chrome(), indent=2)
    complete = chrome()["traceEvents"]
    for length in range(0, len(text), 7):
        events = trace_file.parse_truncated_trace(text[:length])
        assert events == complete[: len(events)]
    assert (
        len(trace_file.parse_truncated_trace(text[:-3])) == len(complete)
        and trace_file.parse_truncated_trace("{") == []
    )
