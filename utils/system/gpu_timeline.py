"""The file of all samples of a GPU, one row each: ``gpu_timeline.csv``."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from utils.core.files import atomic_path, write_error
from utils.system.gpu_readings import CLOCK_LIMITS, Sample

TIMELINE_COLUMNS = (
    "time_s",
    "step",
    "batch_size",
    "run",
    "util_pct",
    "memory_mb",
    "sm_clock_mhz",
    "memory_clock_mhz",
    "power_w",
    "temperature_c",
    "clock_limit_reasons",
)


def timeline_row(sample: Sample, since_s: float, labels: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the timeline.

    As read: utilization and averaged power describe up to a second before ``time_s``.
    """
    memory_mb = None
    if sample.memory_bytes is not None:
        memory_mb = sample.memory_bytes / 1e6
    row = {}
    for name in TIMELINE_COLUMNS:
        row[name] = getattr(sample, name, labels.get(name))
    row["time_s"] = round(sample.time_s - since_s, 4)
    row["memory_mb"] = memory_mb
    row["clock_limit_reasons"] = _describe_clock_limits(sample.clock_limit_reasons)
    return row


def _describe_clock_limits(limits: int | None) -> str | None:
    if limits is None:
        return None
    names = []
    for position in range(64):
        bit = 1 << position
        if limits & bit:
            names.append(CLOCK_LIMITS.get(bit, hex(bit)))
    return "; ".join(names) or "none"


def write_timeline(path: Path, rows: Iterable[Mapping[str, Any]], *, append: bool = False) -> None:
    """Write CSV: the first rows of a run atomically, later ones with ``append`` at the end.

    Raises:
        UserError: the file cannot be written.
    """
    append = append and path.exists()
    try:
        with (
            nullcontext(path) if append else atomic_path(path) as target,
            target.open("a", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, TIMELINE_COLUMNS)
            if not append:
                writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise write_error(path, error) from error
