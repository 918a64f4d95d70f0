"""The tables that steps 02 and 03 write beside their records, read as typed rows."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from utils.core.errors import UserError
from utils.core.result_files import ResultFiles
from utils.schema.baseline import STEP_02
from utils.schema.ceilings import STEP_03


def _empty_is_none(cell: str) -> str | None:
    """Only an empty cell is absent: a label or a module may be called "null" or "NA"."""
    return cell or None


Measured = Annotated[float | None, BeforeValidator(_empty_is_none)]
"""A number that is empty in the file where it was not measured."""


class TraceRow(BaseModel):
    """One row of a table. Columns of the file that have no field here are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class OperatorRow(TraceRow):
    """An operator with the shapes of its inputs, from ``operators.csv``; times are of a batch."""

    operator: str
    input_shapes: str
    calls: Measured
    self_device_ms: Measured
    self_host_ms: Measured
    attainable_ms: Measured
    share_pct: Measured
    # Tables of the first version lack these.
    arithmetic_intensity: Measured = None
    achieved_gflops_per_s: Measured = None
    achieved_gbytes_per_s: Measured = None


class LayerRow(TraceRow):
    """A module of the model, from ``layers.csv``; times are of a forward pass."""

    module: str
    kind: str
    layer_index: Measured
    calls: Measured
    time_ms: Measured
    self_time_ms: float
    share_pct: Measured


class KernelRow(TraceRow):
    """A kernel of the GPU, from ``kernels.csv``; times are of all traced steps together."""

    kernel: str
    category: str
    calls: Measured
    time_ms: Measured
    mean_us: Measured
    share_pct: Measured


class MemoryPoint(TraceRow):
    """The memory allocated beyond the weights at one moment, from ``memory.csv``."""

    time_ms: float
    allocated_mb: float


class GpuReading(TraceRow):
    """What NVML read at one moment of the run, from ``gpu_timeline.csv``."""

    time_s: float
    util_pct: Measured
    power_w: Measured
    sm_clock_mhz: Measured
    temperature_c: Measured


Row = TypeVar("Row", bound=TraceRow)


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceTables:
    """The tables of step 03. A table is empty where its file is missing."""

    operators: tuple[OperatorRow, ...]
    layers: tuple[LayerRow, ...]
    kernels: tuple[KernelRow, ...]
    memory: tuple[MemoryPoint, ...]
    gpu_readings: tuple[GpuReading, ...] = ()

    @property
    def has_device_times(self) -> bool:
        """Whether the profiler saw operators run on a device."""
        return any(row.self_device_ms is not None for row in self.operators)


def read_trace_tables(files: ResultFiles) -> TraceTables:
    """Read the tables that are there.

    Raises:
        UserError: a file is not what its step writes.
    """
    return TraceTables(
        operators=_read_rows(files.operators, OperatorRow),
        # Where the profiler sees no kernels of a GPU, modules have no times.
        layers=_read_rows(files.layers, LayerRow, required="self_time_ms"),
        kernels=_read_rows(files.kernels, KernelRow),
        memory=_read_rows(files.memory, MemoryPoint),
        gpu_readings=_read_rows(files.gpu_timeline, GpuReading, made_by=STEP_02),
    )


def _read_rows(
    file: Path, kind: type[Row], required: str | None = None, made_by: str = STEP_03
) -> tuple[Row, ...]:
    """The rows of a CSV file, without those whose ``required`` cell is empty."""
    if not file.exists():
        return ()
    try:
        with file.open(encoding="utf-8", newline="") as source:
            reader = csv.DictReader(source)
            _check_columns(reader.fieldnames or (), kind)
            records = [record for record in reader if required is None or record[required]]
            return tuple(kind.model_validate(record) for record in records)
    except (ValueError, csv.Error) as error:
        raise UserError(
            f"{file.name} cannot be read: {_describe(error)}.",
            where=file,
            fix=f"make it again: {made_by}",
        ) from error


def _check_columns(columns: Sequence[str], kind: type[TraceRow]) -> None:
    missing = []
    for name, field in kind.model_fields.items():
        if field.is_required() and name not in columns:
            missing.append(name)
    if missing:
        raise ValueError(f"it has no column {', '.join(missing)}")


def _describe(error: Exception) -> str:
    """The first problem of a row in one line; pydantic's own text is a paragraph."""
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors()[0]
    return f"{problem['loc'][0]} is {problem['input']!r}"
