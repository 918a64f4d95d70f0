"""What an interrupted sweep leaves for the next run under the same settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from utils.core.files import write_text
from utils.core.result_files import ResultFiles
from utils.sweep.schedule import SweepState
from utils.system.gpu_monitor import GpuMonitor
from utils.system.gpu_readings import GpuReadings
from utils.system.gpu_timeline import write_timeline

CHECKPOINT_FILE = "sweep.json"
CHECKPOINT_VERSION = 2
"""Raise it when a field of ``Run`` or of the checkpoint changes its name or meaning: a field with
an unknown name would be read as missing. The version is part of the fingerprint."""


@dataclass(kw_only=True, slots=True)
class SweepCheckpoint:
    """The runs so far of every sample, with what came before the first one.

    Args:
        fingerprint: identity of everything that decides what the sweep measures.
        first_inference_ms: None before anything was measured.
        idle: readings of the GPU at rest.
    """

    fingerprint: str
    first_inference_ms: float | None = None
    idle: GpuReadings = field(default_factory=GpuReadings)
    samples: list[SweepState] = field(default_factory=list)


_ADAPTER: TypeAdapter[SweepCheckpoint] = TypeAdapter(SweepCheckpoint)


def load_checkpoint(files: ResultFiles, fingerprint: str) -> SweepCheckpoint:
    """The checkpoint of an interrupted sweep with this fingerprint, otherwise an empty one."""
    empty = SweepCheckpoint(fingerprint=fingerprint)
    try:
        checkpoint = _ADAPTER.validate_json(_checkpoint_file(files).read_bytes())
    except (OSError, ValidationError):
        # No run was interrupted here, or its checkpoint is damaged.
        return empty
    if checkpoint.fingerprint != fingerprint:
        return empty
    return checkpoint


def delete_checkpoint(files: ResultFiles) -> None:
    """Let the next run measure again; called when all results are written."""
    _checkpoint_file(files).unlink(missing_ok=True)


def checkpoint_writer(
    checkpoint: SweepCheckpoint, monitor: GpuMonitor, files: ResultFiles
) -> Callable[[SweepState], None]:
    """The function that saves the checkpoint and the GPU's readings after each round."""
    file = _checkpoint_file(files)

    def after_round(_: SweepState) -> None:
        write_text(file, _ADAPTER.dump_json(checkpoint).decode())
        rows = monitor.timeline()
        if rows:
            write_timeline(files.gpu_timeline, rows, append=True)

    return after_round


def _checkpoint_file(files: ResultFiles) -> Path:
    return files.state_dir / CHECKPOINT_FILE
