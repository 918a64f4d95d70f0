"""What ``--status`` says of a run that is at work, has ended, or was interrupted."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import run_week1
from utils.config_loader import load_config
from utils.core.result_files import ResultFiles
from utils.pipeline import run_status
from utils.pipeline.lock import run_lock


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


def test_the_time_left_needs_every_last_time() -> None:
    known: dict[str, float | None] = {"02": 600.0, "03": 100.0, "04": 20.0}
    assert run_status.time_left(known) == 720.0
    assert run_status.time_left_text("02", 720.0) == "Step 2 of 4, about 12 minutes left"
    assert run_status.time_left({**known, "03": None}) is None
