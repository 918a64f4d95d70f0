"""What ``--status`` reads: which step of a run is at work, how long steps take, and how far the
evaluation is.
"""

from __future__ import annotations

from typing import Literal

from utils.schema.common import Count, NonNegative, Record, optional, required, text

StepState = Literal["waiting", "running", "done", "skipped", "failed"]


class StepStatus(Record):
    """One step of a run."""

    number: str = text("Number of the step.")
    title: str = text("What it does.")
    state: StepState = text("Where it is.")
    started_unix_s: NonNegative | None = optional("When it started, as Unix time.", unit="s")
    last_seconds: NonNegative | None = optional(
        "How long it took when it last finished here.", unit="s"
    )


class RunStatus(Record):
    """The last run of ``run_week1.py`` in a results folder."""

    pid: int = text("The process.")
    host: str = text("The machine that it runs on.")
    started_unix_s: NonNegative = text("When it started, as Unix time in seconds.")
    steps: tuple[StepStatus, ...] = text("Its steps, in order.")


class EvaluationProgress(Record):
    """The evaluation that started last; the rows done since are counted by the files of chunks."""

    fingerprint: str = text("Of what the predictions depend on; chunks are named by it.")
    num_rows: Count = required("rows", "Rows to predict, those in place included.")
    num_rows_in_place: Count = required("rows", "Rows whose predictions were in place before.")
    started_unix_s: NonNegative = text("When it started, as Unix time in seconds.")
