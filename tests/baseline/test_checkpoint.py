"""What an interrupted sweep stores is read again, also from the file of an earlier version."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import support
from utils.baseline.checkpoint import (
    CHECKPOINT_FILE,
    SweepCheckpoint,
    checkpoint_writer,
    delete_checkpoint,
    load_checkpoint,
)
from utils.core.result_files import ResultFiles
from utils.schema.sweep_checkpoint import GpuReadings, Run, TrialRecord
from utils.sweep.schedule import SweepState, Trial
from utils.system.device import NOT_ON_CUDA
from utils.system.gpu_monitor import GpuMonitor
from utils.system.gpu_readings import no_readings

RUN = Run(
    num_samples=8,
    seconds=0.5,
    num_batches=2,
    num_full_batches=2,
    phase_seconds=((0.01, 0.0, 0.2, 0.0),) * 2,
    real_tokens=90,
    padding_tokens=30,
    resident_bytes=5_000_000,
    gpu=no_readings(NOT_ON_CUDA),
)

# As it was written before the file had ``schema_version``.
READINGS_OF_THE_FIRST_FORM = {
    "samples": [],
    "util_pct_mean": None,
    "power_w_mean": 55.0,
    "power_source": "instant",
    "throttled": ["power brake"],
    "power_capped": False,
    "shared": None,
    "num_samples": 3,
    "warnings": [],
    "unavailable": {"util_pct_mean": "not reported"},
}
FIRST_FORM = {
    "fingerprint": "abc",
    "first_inference_ms": 12.5,
    "idle": READINGS_OF_THE_FIRST_FORM,
    "samples": [
        {
            "sample_size": 8,
            "trials": [
                {
                    "batch_size": 4,
                    "num_samples": 8,
                    "status": "ok",
                    "runs": [
                        {
                            "num_samples": 8,
                            "seconds": 0.5,
                            "num_batches": 2,
                            "phase_seconds": [[0.01, 0.0, 0.2, 0.0], [0.01, 0.0, 0.2, 0.0]],
                            "launch_seconds": [],
                            "real_tokens": 90,
                            "gpu": READINGS_OF_THE_FIRST_FORM,
                        }
                    ],
                    "sustained_run": None,
                    "flops_per_sample": 1e9,
                    "interference": ["shared"],
                    "warnings": ["resumed"],
                }
            ],
            "order": [[4]],
        }
    ],
}


@pytest.fixture
def files(tmp_path: Path, tiny_model: Path) -> ResultFiles:
    return support.small_config(tmp_path, tiny_model).files


def store(files: ResultFiles, content: Any) -> None:
    files.state_dir.mkdir(parents=True)
    (files.state_dir / CHECKPOINT_FILE).write_text(json.dumps(content))


def test_a_checkpoint_is_read_as_it_was_written(files: ResultFiles) -> None:
    trial = Trial(batch_size=4, num_samples=8, runs=[RUN], sustained_run=RUN, warnings=["warned"])
    failed = Trial(batch_size=8, num_samples=8)
    failed.mark_failed("oom", "out of memory")
    state = SweepState(sample_size=8, trials=[trial, failed], order=[[8, 4], [4]])
    checkpoint = SweepCheckpoint(
        fingerprint="abc",
        first_inference_ms=1.5,
        idle=GpuReadings(power_w_mean=50.0),
        samples=[state],
    )
    monitor = GpuMonitor(torch.device("cpu"))
    checkpoint_writer(checkpoint, monitor, files)(state)
    assert load_checkpoint(files, "abc") == checkpoint
    delete_checkpoint(files)
    assert load_checkpoint(files, "abc") == SweepCheckpoint(fingerprint="abc")


def test_a_checkpoint_without_a_version_is_continued(files: ResultFiles) -> None:
    store(files, FIRST_FORM)
    checkpoint = load_checkpoint(files, "abc")
    assert (checkpoint.first_inference_ms, checkpoint.idle.power_w_mean) == (12.5, 55.0)
    [state] = checkpoint.samples
    [trial] = state.trials
    [run] = trial.runs
    assert (run.seconds, run.real_tokens, run.gpu.throttled) == (0.5, 90, ("power brake",))
    assert (trial.interference, trial.warnings, state.order) == (["shared"], ["resumed"], [[4]])
    trial.runs.append(RUN)
    assert trial.to_record().runs == (run, RUN)


@pytest.mark.parametrize(
    "content",
    [
        {**FIRST_FORM, "schema_version": 99},
        {**FIRST_FORM, "samples": [{"sample_size": 8}]},
        "damaged",
    ],
)
def test_what_cannot_be_continued_is_measured_again(files: ResultFiles, content: Any) -> None:
    store(files, content)
    assert load_checkpoint(files, "abc") == SweepCheckpoint(fingerprint="abc")


def test_the_runs_of_other_settings_are_counted(files: ResultFiles) -> None:
    store(files, {**FIRST_FORM, "fingerprint": "of other settings"})
    expected = SweepCheckpoint(fingerprint="abc", num_discarded_runs=1)
    assert load_checkpoint(files, "abc") == expected


def test_all_of_a_trial_is_stored() -> None:
    assert {item.name for item in fields(Trial)} == set(TrialRecord.model_fields)
