"""What an interrupted sweep leaves for the next run under the same settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from utils.core.files import write_text
from utils.core.result_files import ResultFiles
from utils.schema.sweep_checkpoint import GpuReadings, SweepCheckpointRecord
from utils.sweep.schedule import SweepState
from utils.system.gpu_monitor import GpuMonitor
from utils.system.gpu_timeline import write_timeline

CHECKPOINT_FILE = "sweep.json"


@dataclass(kw_only=True, slots=True)
class SweepCheckpoint:
    """The runs so far of every sample, with what came before the first one.

    Args:
        fingerprint: identity of everything that decides what the sweep measures.
        first_inference_ms: None before anything was measured.
        idle: readings of the GPU at rest.
        num_discarded_runs: runs in the place of this checkpoint that cannot be continued.
    """

    fingerprint: str
    first_inference_ms: float | None = None
    idle: GpuReadings = field(default_factory=GpuReadings)
    samples: list[SweepState] = field(default_factory=list)
    num_discarded_runs: int = 0

    @classmethod
    def from_record(cls, record: SweepCheckpointRecord) -> SweepCheckpoint:
        """The checkpoint that was stored."""
        return cls(
            fingerprint=record.fingerprint,
            first_inference_ms=record.first_inference_ms,
            idle=record.idle,
            samples=[SweepState.from_record(sample) for sample in record.samples],
        )

    def to_record(self) -> SweepCheckpointRecord:
        """What is stored."""
        return SweepCheckpointRecord(
            fingerprint=self.fingerprint,
            first_inference_ms=self.first_inference_ms,
            idle=self.idle,
            samples=tuple(sample.to_record() for sample in self.samples),
        )


def load_checkpoint(files: ResultFiles, fingerprint: str) -> SweepCheckpoint:
    """The checkpoint of an interrupted sweep with this fingerprint, otherwise an empty one."""
    empty = SweepCheckpoint(fingerprint=fingerprint)
    try:
        content = _checkpoint_file(files).read_bytes()
        # Fields of other versions of this program are left out.
        record = SweepCheckpointRecord.model_validate_json(content, extra="ignore")
    except (OSError, ValidationError):
        # No run was interrupted here, or its checkpoint is damaged.
        return empty
    if record.fingerprint != fingerprint:
        empty.num_discarded_runs = _count_runs(record)
        return empty
    return SweepCheckpoint.from_record(record)


def _count_runs(record: SweepCheckpointRecord) -> int:
    num_runs = 0
    for sample in record.samples:
        for trial in (*sample.trials, *sample.latency_trials):
            num_runs += len(trial.runs)
    return num_runs


def delete_checkpoint(files: ResultFiles) -> None:
    """Let the next run measure again; called when all results are written."""
    _checkpoint_file(files).unlink(missing_ok=True)


def checkpoint_writer(
    checkpoint: SweepCheckpoint, monitor: GpuMonitor, files: ResultFiles
) -> Callable[[SweepState], None]:
    """The function that saves the checkpoint and the GPU's readings after each round."""
    file = _checkpoint_file(files)

    def after_round(_: SweepState) -> None:
        write_text(file, checkpoint.to_record().model_dump_json())
        rows = monitor.timeline()
        if rows:
            write_timeline(files.gpu_timeline, rows, append=True)

    return after_round


def _checkpoint_file(files: ResultFiles) -> Path:
    return files.state_dir / CHECKPOINT_FILE
