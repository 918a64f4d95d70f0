"""What a sweep tells whoever follows it: before its first run, and its rows at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from utils.schema.warning_codes import WarningCode
from utils.sweep.row_text import row_lines
from utils.sweep.schedule import Trial


def announce_trials(trials: Sequence[Trial], on_event: Callable[[str], None]) -> None:
    """Name the batch sizes that are measured now, and whose runs an earlier process measured."""
    for trial in trials:
        if trial.runs:
            trial.warnings.append(
                WarningCode.RESUMED.warn(
                    f"runs 1 to {len(trial.runs)} were measured by an earlier process"
                )
            )
        on_event(f"Profiling batch size: {trial.batch_size}")


def print_rows(trials: Sequence[Trial], on_event: Callable[[str], None]) -> None:
    """The lines of each batch size, with an empty line before it."""
    for trial in trials:
        on_event("")
        for line in row_lines(trial.record()):
            on_event(line)
