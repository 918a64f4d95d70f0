"""The first advice where nothing is stable: to measure again, how, and with which command."""

from __future__ import annotations

from dataclasses import dataclass

from utils.reporting import roads
from utils.reporting.commands import flags_of_command
from utils.reporting.results import Results
from utils.reporting.text_layout import PAGE, verbatim
from utils.sweep import noise

MORE_RUNS = 30
"""Runs that are suggested where there were too few: the number that every warning suggests."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureAgain:
    """How to measure again.

    Args:
        text: under which circumstances, in sentences; the command follows them.
        command: measures the sweep and the evaluation, diagnoses, and reports.
    """

    text: str
    command: str


def measure_again_advice(results: Results) -> MeasureAgain | None:
    """What to do before anything else; None where some time is stable."""
    if not roads.is_noisy(results):
        return None
    command = f"python run_week1.py {flags_of_command(results.metrics.run.command)}".rstrip()
    if noise.has_only_few_runs(results.sweep.measured_rows):
        text = "First measure again with more runs, with this command."
        command += f" --set profiling.num_measurement_runs={_suggested_runs(results)}"
    else:
        text = "First measure again with this command, while nothing else runs on the machine."
    if results.evaluation is not None:
        folder = results.files.predictions_dir.name
        text += (
            f" Remove the folder {folder}/ of the results before, or the evaluation keeps its "
            "present times."
        )
    return MeasureAgain(text=text, command=f"{command} --skip-download")


def _suggested_runs(results: Results) -> int:
    present_runs = results.metrics.config.get("profiling", {}).get("num_measurement_runs", 1)
    return max(MORE_RUNS, 3 * int(present_runs))


def noise_lines(results: Results) -> list[str]:
    """What a reader has to know and do first where nothing is stable; otherwise no lines.

    Lines of at most 80 columns but for the command, which is there to be copied.
    """
    advice = measure_again_advice(results)
    if advice is None:
        return []
    return [
        *PAGE.wrap(roads.noise_text(results)),
        *PAGE.wrap(advice.text),
        verbatim(advice.command),
    ]
