"""What step 02 takes over from an earlier run, in numbers, said before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from utils.baseline.checkpoint import SweepCheckpoint
from utils.config_loader import Config
from utils.core.files import JsonObject
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.evaluation.identity import make_store
from utils.evaluation.runner import count_rows_to_predict, count_stored_rows
from utils.sweep.schedule import SweepSettings, SweepState


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """How much of some work is done already."""

    done: int
    total: int

    @property
    def left(self) -> int:
        """What is still to do."""
        return self.total - self.done


def count_evaluated_rows(config: Config, identity: JsonObject) -> Share | None:
    """The rows whose predictions are in place; None where nothing is to be evaluated.

    Args:
        identity: what the predictions depend on.
    """
    if not config.evaluation.enabled:
        return None
    settings = EvaluationSettings.of(config)
    done = count_stored_rows(make_store(settings, identity), settings)
    return Share(done=done, total=count_rows_to_predict(settings))


def count_batch_sizes(states: Sequence[SweepState], settings: SweepSettings) -> Share:
    """The batch sizes, of all samples, that need no more runs."""
    trials = [trial for state in states for trial in state.trials]
    finished = [trial for trial in trials if trial.finished(settings)]
    return Share(done=len(finished), total=len(trials))


def count_runs(states: Sequence[SweepState], settings: SweepSettings) -> Share:
    """The runs of the sweep that are measured."""
    done = 0
    left = 0
    for state in states:
        for trial in state.trials:
            done += len(trial.runs)
            left += trial.missing_runs(settings)
    return Share(done=done, total=done + left)


def resume_lines(
    checkpoint: SweepCheckpoint, settings: SweepSettings, rows: Share | None
) -> list[str]:
    """What is taken over and what is left; nothing where there is nothing to take over.

    Args:
        checkpoint: with its samples, whether they were stored or are new.
        rows: of the evaluation; None where there is none.
    """
    lines = []
    if checkpoint.num_discarded_runs:
        lines.append(
            f"{checkpoint.num_discarded_runs:,} runs of an interrupted sweep are of other "
            "settings, data or libraries: they are deleted, and the sweep is measured again."
        )
    runs = count_runs(checkpoint.samples, settings)
    taken = []
    left = []
    sizes = count_batch_sizes(checkpoint.samples, settings)
    if runs.done:
        taken.append(
            f"{sizes.done} of {sizes.total} batch sizes ({runs.done} of {runs.total} runs)"
        )
    if sizes.left:
        left.append(f"{sizes.left} batch sizes ({runs.left} runs)")
    if rows is not None and rows.done:
        taken.append(f"{rows.done:,} of {rows.total:,} rows")
    if rows is not None and rows.left:
        left.append(f"{rows.left:,} rows")
    if taken:
        rest = " and ".join(left) or "nothing"
        verb = "are" if left else "is"
        lines.append(f"Taking over {' and '.join(taken)}; {rest} {verb} left.")
    return lines
