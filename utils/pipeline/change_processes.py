"""Measures a change: fresh processes of both sides in turn, and how long they still take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.pipeline import console
from utils.pipeline.change_folder import clear_process, reason_to_diagnose, reason_to_measure
from utils.pipeline.change_plan import SIDE_NAMES, Change, MeasuringProcess, SideName
from utils.pipeline.step_process import run_step
from utils.pipeline.steps import get_step

SECONDS_PER_MINUTE = 60
MINUTES_PER_HOUR = 60
KEPT = "kept, unchanged since it finished"


@dataclass(kw_only=True, slots=True)
class Durations:
    """How long the processes of each side took, in seconds."""

    of_side: dict[SideName, list[float]] = field(default_factory=dict)

    def add(self, side: SideName, seconds: float) -> None:
        self.of_side.setdefault(side, []).append(seconds)

    def expected_s(self, sides: Sequence[SideName]) -> float | None:
        """How long processes of these sides will take together; None before the first one.

        A side that has not been measured yet is expected to take as long as the other.
        """
        known = [seconds for durations in self.of_side.values() for seconds in durations]
        if not known:
            return None
        total = 0.0
        for side in sides:
            durations = self.of_side.get(side, known)
            total += sum(durations) / len(durations)
        return total


def describe_plan(change: Change, *, diagnoses: bool) -> list[str]:
    """What would run, in order, for ``--dry-run``."""
    lines = []
    for process in _without_data_set(change):
        lines.append(f"first: {get_step('01').title.lower()} ({process.config.data_file})")
    for process in change.processes:
        reason = reason_to_measure(process)
        action = KEPT if reason is None else f"to be measured ({reason})"
        lines.append(f"[{process.number}/{len(change.processes)}] {process.folder.name}: {action}")
    if diagnoses:
        for process in _first_of_each_side(change):
            lines.append(f"[diagnosis] {process.folder.name}")
    return lines


def prepare_data_sets(change: Change, log_level: str) -> None:
    """Run step 01, as the runner of all steps does, where there is no data set yet."""
    step = get_step("01")
    for process in _without_data_set(change):
        console.note(f"{step.title}: {process.config.data_file}")
        arguments = [*process.side.arguments(), "--log-level", log_level]
        run_step(step, arguments, shows_output=False)


def _without_data_set(change: Change) -> list[MeasuringProcess]:
    """A process for each data set that is not there yet; the sides may have different ones."""
    missing: dict[Path, MeasuringProcess] = {}
    for process in _first_of_each_side(change):
        data_file = process.config.data_file
        if not data_file.exists():
            missing.setdefault(data_file, process)
    return list(missing.values())


def _first_of_each_side(change: Change) -> list[MeasuringProcess]:
    return [change.of_side(name)[0] for name in SIDE_NAMES]


def measure_processes(change: Change, log_level: str) -> None:
    """Measure the processes that are missing or no longer valid, one after the other.

    Raises:
        StepFailed: a process ended with an exit code other than 0.
    """
    reasons = {process.number: reason_to_measure(process) for process in change.processes}
    waiting = [
        process.side.name for process in change.processes if reasons[process.number] is not None
    ]
    durations = Durations()
    for process in change.processes:
        place = f"[{process.number}/{len(change.processes)}] {process.side.name}"
        reason = reasons[process.number]
        if reason is None:
            console.note(f"{place}: {KEPT}")
            continue
        if process.folder.exists():
            place += f" ({reason})"
        console.note(f"{place}: measuring{_time_left(durations, waiting)}")
        clear_process(process)
        seconds = _run_quietly("02", process, log_level)
        durations.add(process.side.name, seconds)
        waiting.pop(0)


def _time_left(durations: Durations, sides: Sequence[SideName]) -> str:
    seconds = durations.expected_s(sides)
    if seconds is None:
        return ""
    return f"; about {format_duration(seconds)} of measuring left"


def diagnose_sides(change: Change, log_level: str) -> None:
    """Diagnose each side once, in the folder of its first process, after all measurements.

    Raises:
        StepFailed: a diagnosis ended with an exit code other than 0.
    """
    for process in _first_of_each_side(change):
        place = f"[diagnosis] {process.side.name}"
        if reason_to_diagnose(process) is None:
            console.note(f"{place}: {KEPT}")
            continue
        console.note(f"{place}: profiling")
        _run_quietly("03", process, log_level)


def _run_quietly(step_number: str, process: MeasuringProcess, log_level: str) -> float:
    """Run a step in the folder of a process, without its output; the seconds that it took."""
    arguments = [*process.arguments, "--log-level", log_level]
    return run_step(get_step(step_number), arguments, shows_output=False)


def format_duration(seconds: float) -> str:
    """A duration for a person: seconds, minutes, or hours and minutes."""
    if seconds < 2 * SECONDS_PER_MINUTE:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / SECONDS_PER_MINUTE)
    if minutes < 2 * MINUTES_PER_HOUR:
        return f"{minutes} min"
    hours, rest = divmod(minutes, MINUTES_PER_HOUR)
    return f"{hours} h {rest} min"
