"""The record of ``ceilings.json``: what the device reaches at best, and the machine it was."""

from __future__ import annotations

from pathlib import Path

from utils.core.files import JsonObject
from utils.schema.common import (
    MeasuredRecord,
    NonNegative,
    Positive,
    PositiveCount,
    Record,
    Unavailable,
    metric,
    optional,
    read_record,
    required,
    text,
    unavailable,
    write_record,
)
from utils.schema.run import CpuInfo, GpuInfo, TorchSettings

CEILINGS_VERSION = 3
"""Version of ``ceilings.json`` that is written. Files of every earlier version load."""
STEP_03 = "python scripts/03_detailed_profiling.py"


class CopyRate(Record):
    """The rate of copies of one size."""

    num_bytes: PositiveCount = required("bytes", "Bytes read plus bytes written by one copy.")
    bytes_per_s: Positive = required("bytes/s", "The fastest of the repeats.")


class Ceilings(MeasuredRecord):
    """What the device reaches at best, measured: the roofline that operators are compared with."""

    dtype: str = text("Type of the matrix products: that of the model's weights.")
    matmul_flops_per_s: Positive = required("FLOP/s", "The fastest square matrix product.")
    matmul_size: PositiveCount = required("rows", "Rows and columns of that product.")
    matmul_spread_pct: NonNegative = required(
        "%", "Its middle repeat's time less the fastest's, as a share of the fastest's."
    )
    copy_bytes_per_s: Positive = required("bytes/s", "Copying the largest buffer.")
    copy_rates: tuple[CopyRate, ...] = text(
        "Copies by size, the smallest first: small buffers stay in a cache."
    )
    copy_spread_pct: NonNegative = required("%", "Spread of the largest copy, as of the product.")
    dispatch_s: Positive = required("s", "Host time to run one operator on one element.")
    bfloat16_matmul_flops_per_s: Positive | None = metric(
        "FLOP/s", "The fastest square product in bfloat16."
    )
    tf32_matmul_flops_per_s: Positive | None = metric(
        "FLOP/s", "The fastest square product of float32 numbers in TF32."
    )
    measured_at: str | None = optional("When it was measured, ISO 8601 with the time zone.")
    method: str = text("How it was measured.")
    unavailable: Unavailable = unavailable()


class Machine(Record):
    """What the ceilings depend on."""

    platform: str = text("Operating system.")
    cpu: CpuInfo = text("The processor.")
    gpu: GpuInfo | None = optional("The GPU; null where the model is on the CPU.")
    torch: TorchSettings = text("Settings of PyTorch.")
    variables: dict[str, str | None] = text("Environment variables that decide speed.")
    torch_version: str = text("Version of PyTorch.")
    dtype: str = text("Type of the model's weights, as PyTorch names it.")
    device: str = text("Device of the model.")


class CeilingsFile(Record):
    """The content of ``ceilings.json``."""

    schema_version: PositiveCount = text("Version of this file's format.")
    ceilings: Ceilings = text("What was measured.")
    machine: Machine = text("The machine that it was measured on; on another it is measured again.")


def load_ceilings(path: Path) -> CeilingsFile:
    """Read ``ceilings.json`` of any version.

    Raises:
        UserError: the file is missing, is not valid JSON or does not fit the record.
    """
    return read_record(path, CeilingsFile, made_by=STEP_03, convert=convert_ceilings_file)


def save_ceilings(path: Path, ceilings: Ceilings, machine: Machine) -> None:
    """Write ``ceilings.json`` atomically.

    Raises:
        UserError: the file cannot be written.
    """
    file = CeilingsFile(schema_version=CEILINGS_VERSION, ceilings=ceilings, machine=machine)
    write_record(path, file)


def convert_ceilings_file(payload: JsonObject) -> JsonObject:
    """The content of a ``ceilings.json`` of any version in the present form."""
    converted = dict(payload)
    if "ceilings" in converted:
        converted["ceilings"] = convert_ceilings(converted["ceilings"])
    return converted


def convert_ceilings(values: JsonObject) -> JsonObject:
    """``Ceilings`` of any version in the present form.

    Up to version 2 the rates of copies were ``copy_points``: pairs of bytes and bytes/s.
    """
    converted = dict(values)
    points = converted.pop("copy_points", None)
    if points is None:
        return converted
    rates = []
    for num_bytes, bytes_per_s in points:
        rates.append({"num_bytes": num_bytes, "bytes_per_s": bytes_per_s})
    converted["copy_rates"] = rates
    return converted
