"""The batch sizes that were measured over one sample of texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from utils.schema.batch_size import SweepRow

NO_BATCH_SIZE_FINISHED = "no batch size of the sweep finished"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """The rows of one sample, by batch size.

    Args:
        mfu_source: what ``mfu`` was computed from; None where the metrics file has it.
    """

    sample_size: int
    rows: tuple[SweepRow, ...]
    mfu_source: str | None = None

    @property
    def batch_sizes(self) -> list[int]:
        return [row.batch_size for row in self.rows]

    @property
    def measured_rows(self) -> tuple[SweepRow, ...]:
        """The rows whose batch size was measured to the end."""
        return tuple(row for row in self.rows if row.status == "ok")

    def values(self, metric: str) -> dict[int, float]:
        """The values of a column by batch size, of the measured rows that have one."""
        values = {}
        for row in self.measured_rows:
            value = value_of(row, metric)
            if value is not None:
                values[row.batch_size] = value
        return values

    def has(self, metric: str) -> bool:
        """Whether any measured row has a value in a column."""
        return bool(self.values(metric))

    def reason(self, metric: str) -> str | None:
        """Why a column has no values; None where the file has no reason."""
        if not self.measured_rows:
            return NO_BATCH_SIZE_FINISHED
        reasons = (row.reason(metric) for row in self.measured_rows)
        return next((reason for reason in reasons if reason is not None), None)


def value_of(row: SweepRow, metric: str) -> float | None:
    """The value of a column of numbers, by its name."""
    value: float | None = getattr(row, metric)
    return value


def group_sweeps(rows: Iterable[SweepRow], matmul_flops_per_s: float | None) -> tuple[Sweep, ...]:
    """Group the rows of ``batch_size_profiling`` by their samples.

    Samples may have the same size: the rows of the second one repeat the batch sizes of the first.

    Args:
        matmul_flops_per_s: the fastest matrix product of this device and precision, which gives
            rows without ``mfu`` one; None leaves them without.
    """
    num_seen: Counter[tuple[int, int]] = Counter()
    groups: dict[tuple[int, int], list[SweepRow]] = {}
    for row in rows:
        key = (row.sample_size, row.batch_size)
        sample = (row.sample_size, num_seen[key])
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
        by_batch_size = tuple(sorted(group, key=lambda row: row.batch_size))
        sweeps.append(Sweep(sample_size=sample_size, rows=by_batch_size, mfu_source=source))
    return tuple(sweeps)


def _with_mfu(row: SweepRow, matmul_flops_per_s: float | None) -> SweepRow:
    """The row with its share of the matrix ceiling, unless it has one already."""
    if matmul_flops_per_s is None or row.mfu is not None or row.achieved_tflops is None:
        return row
    unavailable = {name: reason for name, reason in row.unavailable.items() if name != "mfu"}
    # Files of earlier versions have the reason for a missing value among the warnings too.
    warnings = tuple(warning for warning in row.warnings if not warning.startswith("mfu:"))
    changes = {
        "mfu": 1e12 * row.achieved_tflops / matmul_flops_per_s,
        "unavailable": unavailable,
        "warnings": warnings,
    }
    return row.model_copy(update=changes)
