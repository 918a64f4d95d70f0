"""What a run is doing, for ``--status``, and how long its steps took, for an estimate."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from utils.core.files import write_text
from utils.core.result_files import ResultFiles
from utils.pipeline.durations import duration_text
from utils.pipeline.evaluation_progress import progress_lines
from utils.pipeline.lock import lock_command, lock_owner
from utils.pipeline.steps import STEPS, get_step
from utils.schema.run_status import RunStatus, StepState, StepStatus
from utils.schema.sweep_checkpoint import SweepCheckpointRecord, TrialRecord

STATUS_FILE = "run_status.json"
SWEEP_FILE = "sweep.json"
BASELINE_SCRIPT = get_step("02").script


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
    """Seconds that these steps take by their last times; None where the next one's is not known.

    Args:
        due: the last times by number, in the order of the steps.
    """
    known = [seconds for seconds in due.values() if seconds is not None]
    if not known or next(iter(due.values())) is None:
        return None
    return sum(known)


def time_left_text(due: Mapping[str, float | None], left_s: float) -> str:
    """ "Step 2 of 4, about 12 minutes left", before the first of the steps that are due.

    Steps whose time is not known are named, because they are not in that time.
    """
    number = next(iter(due))
    place = [step.number for step in STEPS].index(number) + 1
    text = f"Step {place} of {len(STEPS)}, about {duration_text(left_s)} left"
    unknown = [number for number, seconds in due.items() if seconds is None]
    if unknown:
        noun = "step" if len(unknown) == 1 else "steps"
        text += f" without {noun} {' and '.join(unknown)}, whose time is not known yet"
    return text


def status_lines(files: ResultFiles, num_runs: int) -> list[str]:
    """What runs in a results folder, or what was the last. Reads files only.

    Args:
        num_runs: runs of the sweep at each batch size.
    """
    owner = lock_owner(files.lock)
    status = read_status(files)
    is_running = status is not None and owner == f"pid {status.pid} on {status.host}"
    lines = []
    if owner is not None and not is_running:
        lines += _single_command_lines(files, owner, num_runs)
    elif status is None:
        lines.append("Nothing runs here, and no run has been recorded.")
    if status is not None:
        started = _clock(status.started_unix_s)
        if is_running:
            lines.append(f"A run is at work: {owner}, since {started}.")
        elif owner is not None:
            lines.append(f"The last complete run started at {started}:")
        else:
            lines.append(f"Nothing runs here. The last run started at {started}:")
    lines.append(f"Results: {files.results_dir}")
    if status is None:
        return lines
    for step in status.steps:
        lines.append(_step_line(step, is_running=is_running))
        if is_running and step.state == "running" and step.number == "02":
            assert step.started_unix_s is not None
            lines += _measuring_lines(files, num_runs, step.started_unix_s)
    return lines


def _single_command_lines(files: ResultFiles, owner: str, num_runs: int) -> list[str]:
    """What is at work where it is no complete run, and how far it is if it is step 02."""
    lines = [f"A single step or another command is at work: {owner}."]
    if any(word.endswith(BASELINE_SCRIPT) for word in lock_command(files.lock)):
        # Its owner's record is the last that was written to the lock.
        lines += _measuring_lines(files, num_runs, files.lock.stat().st_mtime)
    return lines


def _measuring_lines(files: ResultFiles, num_runs: int, since_unix_s: float) -> list[str]:
    """How far step 02 is."""
    return [*_sweep_lines(files, num_runs, since_unix_s), *progress_lines(files, since_unix_s)]


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


def _sweep_lines(files: ResultFiles, num_runs: int, since_unix_s: float) -> list[str]:
    """How far the batch-size sweep is, by its checkpoint; nothing before its first round."""
    file = files.state_dir / SWEEP_FILE
    try:
        if file.stat().st_mtime < since_unix_s:
            # An earlier, interrupted run's.
            return []
        record = SweepCheckpointRecord.model_validate_json(file.read_bytes(), extra="ignore")
    except (OSError, ValidationError):
        return []
    measured = 0
    missing = 0
    left_s: float | None = 0.0
    for sample in record.samples:
        for trial in sample.trials:
            if trial.status != "ok":
                continue
            num_missing = max(0, num_runs - len(trial.runs))
            measured += len(trial.runs)
            missing += num_missing
            run_s = _run_seconds(trial)
            if run_s is None or left_s is None:
                left_s = None
            else:
                left_s += num_missing * run_s
    line = f"     batch-size sweep: {measured} of {measured + missing} runs are measured"
    if missing and left_s is not None:
        line += f", about {duration_text(left_s)} left"
    return [line]


def _run_seconds(trial: TrialRecord) -> float | None:
    """How long a run takes: the median one, or the pass of the warm-up."""
    if trial.runs:
        return statistics.median(run.seconds for run in trial.runs)
    if trial.warm_up is not None:
        return trial.warm_up.seconds
    return None


def _clock(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))


def _save(files: ResultFiles, status: RunStatus) -> None:
    write_text(_status_file(files), status.model_dump_json())


def _status_file(files: ResultFiles) -> Path:
    path: Path = files.state_dir / STATUS_FILE
    return path
