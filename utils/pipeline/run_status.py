"""What a run is doing, for ``--status``, and how long its steps took, for an estimate."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from utils.core.files import write_text
from utils.core.result_files import ResultFiles
from utils.pipeline.durations import duration_text
from utils.pipeline.lock import lock_owner
from utils.pipeline.steps import STEPS
from utils.schema.run_status import RunStatus, StepState, StepStatus
from utils.schema.sweep_checkpoint import SweepCheckpointRecord

STATUS_FILE = "run_status.json"
SWEEP_FILE = "sweep.json"


def read_status(files: ResultFiles) -> RunStatus | None:
    """The status of the last run here; None where there was none or the file is damaged."""
    try:
        return RunStatus.model_validate_json(_status_file(files).read_bytes(), extra="ignore")
    except (OSError, ValidationError):
        return None


def start_status(files: ResultFiles) -> RunStatus:
    """The status of a run that starts now; it knows how long steps took before."""
    last_seconds = last_times(files)
    steps = []
    for step in STEPS:
        steps.append(
            StepStatus(
                number=step.number,
                title=step.title,
                state="waiting",
                last_seconds=last_seconds.get(step.number),
            )
        )
    status = RunStatus(
        pid=os.getpid(), host=platform.node(), started_unix_s=time.time(), steps=tuple(steps)
    )
    _save(files, status)
    return status


def mark_step(
    files: ResultFiles, status: RunStatus, number: str, state: StepState, **times_s: float
) -> RunStatus:
    """Save that a step is in another state.

    Args:
        times_s: changed times, by their names in ``StepStatus``.
    """
    steps = []
    for step in status.steps:
        if step.number == number:
            changes: dict[str, Any] = {"state": state, **times_s}
            step = step.model_copy(update=changes)
        steps.append(step)
    changed = status.model_copy(update={"steps": tuple(steps)})
    _save(files, changed)
    return changed


def last_times(files: ResultFiles) -> dict[str, float]:
    """Seconds that each step took when it last finished here, by number."""
    status = read_status(files)
    times: dict[str, float] = {}
    if status is not None:
        for step in status.steps:
            if step.last_seconds is not None:
                times[step.number] = step.last_seconds
    return times


def time_left(due: Mapping[str, float | None]) -> float | None:
    """Seconds that these steps take by their last times; None where one is not known."""
    left_s = 0.0
    for seconds in due.values():
        if seconds is None:
            return None
        left_s += seconds
    return left_s


def time_left_text(number: str, left_s: float) -> str:
    """ "Step 2 of 4, about 12 minutes left", before the step of that number."""
    place = [step.number for step in STEPS].index(number) + 1
    return f"Step {place} of {len(STEPS)}, about {duration_text(left_s)} left"


def status_lines(files: ResultFiles, num_runs: int) -> list[str]:
    """What runs in a results folder, or what was the last. Reads files only.

    Args:
        num_runs: runs of the sweep at each batch size.
    """
    owner = lock_owner(files.lock)
    status = read_status(files)
    where = f"Results: {files.results_dir}"
    if status is None:
        return [_without_record(owner), where]
    is_running = owner == f"pid {status.pid} on {status.host}"
    if is_running:
        first = f"A run is at work: {owner}, since {_clock(status.started_unix_s)}."
    elif owner is not None:
        first = f"A single step or another command is at work: {owner}. The last complete run:"
    else:
        first = f"Nothing runs here. The last run started at {_clock(status.started_unix_s)}:"
    lines = [first, where]
    for step in status.steps:
        lines.append(_step_line(step, is_running=is_running))
        if is_running and step.state == "running" and step.number == "02":
            lines += _sweep_lines(files, num_runs)
    return lines


def _without_record(owner: str | None) -> str:
    if owner is None:
        return "Nothing runs here, and no run has been recorded."
    return f"A single step or another command is at work: {owner}."


def _step_line(step: StepStatus, *, is_running: bool) -> str:
    line = f"[{step.number}] {step.title}: "
    if step.state != "running":
        line += step.state
    elif not is_running:
        line += "interrupted"
    else:
        assert step.started_unix_s is not None
        elapsed = duration_text(time.time() - step.started_unix_s)
        line += f"running since {_clock(step.started_unix_s)}, for {elapsed}"
    if step.last_seconds is not None:
        line += f" (took {duration_text(step.last_seconds)} when it last finished)"
    return line


def _sweep_lines(files: ResultFiles, num_runs: int) -> list[str]:
    """How far the batch-size sweep is, by its checkpoint; nothing before its first round."""
    try:
        content = (files.state_dir / SWEEP_FILE).read_bytes()
        record = SweepCheckpointRecord.model_validate_json(content, extra="ignore")
    except (OSError, ValidationError):
        return []
    measured = 0
    wanted = 0
    for sample in record.samples:
        for trial in sample.trials:
            if trial.status == "ok":
                measured += len(trial.runs)
                wanted += max(num_runs, len(trial.runs))
    return [f"     batch-size sweep: {measured} of {wanted} runs are measured"]


def _clock(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))


def _save(files: ResultFiles, status: RunStatus) -> None:
    write_text(_status_file(files), status.model_dump_json())


def _status_file(files: ResultFiles) -> Path:
    path: Path = files.state_dir / STATUS_FILE
    return path
