"""What step 02 says that it takes over, in numbers."""

from __future__ import annotations

from utils.baseline.checkpoint import SweepCheckpoint
from utils.baseline.resume import Share, resume_lines
from utils.schema.sweep_checkpoint import Run
from utils.sweep.schedule import SweepSettings, new_state

SETTINGS = SweepSettings(num_runs=2)
RUN = Run(num_samples=8, seconds=0.5, num_batches=2)


def checkpoint(runs: list[int], *, num_discarded_runs: int = 0) -> SweepCheckpoint:
    """With so many runs at each batch size."""
    state = new_state(8, range(1, len(runs) + 1))
    for trial, count in zip(state.trials, runs, strict=True):
        trial.runs = [RUN] * count
    return SweepCheckpoint(
        fingerprint="abc", samples=[state], num_discarded_runs=num_discarded_runs
    )


def test_what_is_taken_over_and_what_is_left_is_counted() -> None:
    rows = Share(done=12_288, total=369_475)
    assert resume_lines(checkpoint([2, 2, 2, 1, 0]), SETTINGS, rows) == [
        "Taking over 3 of 5 batch sizes (7 of 10 runs) and 12,288 of 369,475 rows; "
        "2 batch sizes (3 runs) and 357,187 rows are left."
    ]


def test_a_first_run_takes_nothing_over_and_says_nothing() -> None:
    assert resume_lines(checkpoint([0, 0]), SETTINGS, Share(done=0, total=60)) == []


def test_predictions_are_taken_over_while_the_sweep_is_measured_again() -> None:
    assert resume_lines(checkpoint([0, 0]), SETTINGS, Share(done=60, total=60)) == [
        "Taking over 60 of 60 rows; 2 batch sizes (4 runs) are left."
    ]


def test_what_cannot_be_continued_is_said_before_it_is_deleted() -> None:
    lines = resume_lines(checkpoint([0, 0], num_discarded_runs=14), SETTINGS, None)
    assert lines == [
        "14 runs of an interrupted sweep are of other settings, data or libraries: "
        "they are deleted, and the sweep is measured again."
    ]


def test_nothing_is_left() -> None:
    assert resume_lines(checkpoint([2]), SETTINGS, None) == [
        "Taking over 1 of 1 batch sizes (2 of 2 runs); nothing is left."
    ]
