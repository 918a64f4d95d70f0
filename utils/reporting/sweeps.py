"""The batch sizes that were measured over one sample of texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
"""One row of ``batch_size_profiling``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """The rows of one sample, by batch size.

    Args:
        mfu_source: what ``mfu`` was computed from; None where the metrics file has it.
    """

    sample_size: int
    rows: tuple[Row, ...]
    mfu_source: str | None = None

    @property
    def batch_sizes(self) -> list[int]:
        return [row["batch_size"] for row in self.rows]

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of all rows."""
        return tuple(warning for row in self.rows for warning in row["warnings"])

    @property
    def measured_rows(self) -> tuple[Row, ...]:
        """The rows whose batch size was measured to the end."""
        return tuple(row for row in self.rows if row["status"] == "ok")

    def rows_with(self, metric: str) -> tuple[Row, ...]:
        """The measured rows that have a value of ``metric``."""
        return tuple(row for row in self.measured_rows if row[metric] is not None)

    def values(self, metric: str) -> dict[int, float]:
        """The values of ``metric`` by batch size, of the rows that have one."""
        return {row["batch_size"]: float(row[metric]) for row in self.rows_with(metric)}


def group_sweeps(rows: Iterable[Row], matmul_flops_per_s: float | None) -> tuple[Sweep, ...]:
    """Group the rows of ``batch_size_profiling`` by their samples.

    Samples may have the same size: the rows of the second one repeat the batch sizes of the first.

    Args:
        matmul_flops_per_s: the fastest matrix product of this device and precision, which gives
            rows without ``mfu`` one; None leaves them without.
    """
    num_seen: Counter[tuple[int, int]] = Counter()
    groups: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        key = (row["sample_size"], row["batch_size"])
        sample = (row["sample_size"], num_seen[key])
        groups.setdefault(sample, []).append(_with_mfu(row, matmul_flops_per_s))
        num_seen[key] += 1
    source = None
    if matmul_flops_per_s is not None:
        source = (
            "MFU: TFLOP/s, padding counted as work, over the "
            f"{matmul_flops_per_s / 1e12:.3g} TFLOP/s of the ceilings in bottlenecks.json"
        )
    sweeps = []
    for (sample_size, _), group in groups.items():
        by_batch_size = tuple(sorted(group, key=lambda row: row["batch_size"]))
        sweeps.append(Sweep(sample_size=sample_size, rows=by_batch_size, mfu_source=source))
    return tuple(sweeps)


def _with_mfu(row: Row, matmul_flops_per_s: float | None) -> Row:
    """The row with its share of the matrix ceiling, unless it has one already."""
    if matmul_flops_per_s is None or row["mfu"] is not None or row["achieved_tflops"] is None:
        return row
    warnings = [warning for warning in row["warnings"] if not warning.startswith("mfu:")]
    mfu = 1e12 * row["achieved_tflops"] / matmul_flops_per_s
    return {**row, "mfu": mfu, "warnings": warnings}
