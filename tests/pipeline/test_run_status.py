"""What ``--status`` says of a run that is at work, has ended, or was interrupted."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

import run_week1
from utils.config_loader import load_config
from utils.core.files import write_text
from utils.core.result_files import ResultFiles
from utils.pipeline import run_status
from utils.pipeline.evaluation_progress import PROGRESS_FILE, progress_lines
from utils.pipeline.lock import run_lock
from utils.schema.run_status import EvaluationProgress
from utils.schema.sweep_checkpoint import (
    Run,
    SampleSweepRecord,
    SweepCheckpointRecord,
    TrialRecord,
)


@pytest.fixture
def files(tmp_path: Path) -> ResultFiles:
    return load_config("configs/demo.yaml", [f"output.results_dir={tmp_path / 'results'}"]).files


def test_without_a_run_nothing_is_said_to_run_and_nothing_is_written(
    files: ResultFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--config", "configs/demo.yaml", f"--set=output.results_dir={files.results_dir}"]
    assert run_week1.main([*flags, "--status"]) == 0
    assert "Nothing runs here, and no run has been recorded." in capsys.readouterr().out
    assert not files.results_dir.exists()


def test_a_run_at_work_shows_its_step_while_the_lock_is_held(files: ResultFiles) -> None:
    with run_lock(files.lock):
        status = run_status.start_status(files)
        status = run_status.mark_step(files, status, "01", "done", last_seconds=120.0)
        started = time.time() - 300
        run_status.mark_step(files, status, "02", "running", started_unix_s=started)
        lines = run_status.status_lines(files, num_runs=5)
    assert lines[0].startswith(f"A run is at work: pid {os.getpid()}")
    assert lines[2].endswith("done (took 2 minutes when it last finished)")
    assert "running since" in lines[3] and lines[3].endswith("for 5 minutes")
    assert lines[4].endswith("waiting")


def test_a_run_that_was_killed_is_interrupted(files: ResultFiles) -> None:
    status = run_status.start_status(files)
    run_status.mark_step(files, status, "01", "running", started_unix_s=time.time())
    lines = run_status.status_lines(files, num_runs=5)
    assert lines[0].startswith("Nothing runs here.")
    assert lines[2].endswith("interrupted")


def test_a_damaged_status_is_no_status(files: ResultFiles) -> None:
    run_status.start_status(files)
    (files.state_dir / run_status.STATUS_FILE).write_text("{", encoding="utf-8")
    assert run_status.read_status(files) is None
    assert run_status.last_times(files) == {}


def test_the_next_run_knows_how_long_steps_took(files: ResultFiles) -> None:
    status = run_status.start_status(files)
    run_status.mark_step(files, status, "01", "done", last_seconds=7.0)
    run_status.start_status(files)
    assert run_status.last_times(files) == {"01": 7.0}


def test_the_time_left_is_the_sum_of_the_last_times() -> None:
    known: dict[str, float | None] = {"02": 600.0, "03": 100.0, "04": 20.0}
    assert run_status.time_left(known) == 720.0
    assert run_status.time_left_text(known, 720.0) == "Step 2 of 4, about 12 minutes left"


def test_a_step_whose_time_is_not_known_is_named() -> None:
    due: dict[str, float | None] = {"02": 600.0, "03": None, "04": 20.0}
    assert run_status.time_left(due) == 620.0
    assert run_status.time_left_text(due, 620.0) == (
        "Step 2 of 4, about 10 minutes left without step 03, whose time is not known yet"
    )
    assert run_status.time_left({"02": None, "03": 100.0}) is None


def test_the_progress_of_the_sweep_and_of_the_evaluation_is_shown(files: ResultFiles) -> None:
    now = time.time()
    write_sweep(files, runs=[2.0, 4.0])
    write_evaluation(files, started_s=now - 100, chunks={0: now - 60, 1000: now - 20})
    with run_lock(files.lock):
        status = run_status.start_status(files)
        run_status.mark_step(files, status, "02", "running", started_unix_s=now - 300)
        lines = run_status.status_lines(files, num_runs=5)
    assert lines[4] == "     batch-size sweep: 2 of 5 runs are measured, about 9 seconds left"
    # Two chunks of 1,000 rows in 80 s; 8,000 rows are left.
    assert lines[5] == ("     evaluation: 2,000 of 10,000 rows, 25 rows/s, about 5 minutes left")


def test_rows_of_an_earlier_run_are_no_part_of_the_rate(files: ResultFiles) -> None:
    now = time.time()
    in_place = 1000
    write_evaluation(
        files, started_s=now - 100, chunks={0: now - 900, 1000: now - 80}, in_place=in_place
    )
    assert progress_lines(files, now - 300) == [
        "     evaluation: 2,000 of 10,000 rows, 50 rows/s, about 3 minutes left"
    ]
    assert progress_lines(files, now - 50) == [], "of a run before the one at work"


def test_an_evaluation_without_a_new_chunk_has_no_rate(files: ResultFiles) -> None:
    now = time.time()
    write_evaluation(files, started_s=now - 9, chunks={0: now - 900}, in_place=1000)
    assert progress_lines(files, now - 300) == [
        "     evaluation: 1,000 of 10,000 rows, no new chunk is finished yet"
    ]


def test_a_step_that_runs_alone_shows_its_progress(
    files: ResultFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts/02_baseline_inference.py", "--config", "x.yaml"])
    with run_lock(files.lock):
        write_sweep(files, runs=[2.0, 4.0])
        lines = run_status.status_lines(files, num_runs=5)
    assert lines[0].startswith("A single step or another command is at work: pid ")
    assert lines[1] == "     batch-size sweep: 2 of 5 runs are measured, about 9 seconds left"


def write_sweep(files: ResultFiles, runs: list[float]) -> None:
    """The checkpoint of a sweep with one batch size."""
    measured = []
    for seconds in runs:
        measured.append(Run(num_samples=8, seconds=seconds, num_batches=2))
    trial = TrialRecord(batch_size=4, num_samples=8, runs=tuple(measured))
    sample = SampleSweepRecord(sample_size=8, trials=(trial,))
    record = SweepCheckpointRecord(fingerprint="abc", samples=(sample,))
    write_text(files.state_dir / run_status.SWEEP_FILE, record.model_dump_json())


def write_evaluation(
    files: ResultFiles, started_s: float, chunks: dict[int, float], in_place: int = 0
) -> None:
    """An evaluation of 10,000 rows in chunks of 1,000, some of them finished at these times."""
    fingerprint = "0123456789ab"
    progress = EvaluationProgress(
        fingerprint=fingerprint,
        num_rows=10_000,
        num_rows_in_place=in_place,
        started_unix_s=started_s,
    )
    write_text(files.state_dir / PROGRESS_FILE, progress.model_dump_json())
    for start, finished_s in chunks.items():
        name = f"rows-{start:012d}-{start + 1000:012d}-{fingerprint}.json"
        file = files.chunk_records_dir / fingerprint / name
        write_text(file, "{}")
        os.utime(file, (finished_s, finished_s))
