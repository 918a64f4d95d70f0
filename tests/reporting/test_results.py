"""Reading results: what is refused, what may be missing, how sweeps and warnings are sorted out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.reporting import fixtures
from tests.reporting.conftest import Make
from utils.core.errors import UserError
from utils.reporting.formatting import reason
from utils.reporting.results import STEP_02, STEP_03, read_results
from utils.reporting.tables import batch_table


def test_all_files_are_read(make: Make) -> None:
    results = make(gpu=True)
    assert results.on_gpu and results.notes == ()
    assert results.diagnosis is not None and len(results.diagnosis["suggestions"]) == 3
    assert results.operators is not None and results.layers is not None
    assert results.layers["layer_index"].isna().sum() == 1


def test_without_step_03_the_notes_say_how_to_run_it(make: Make) -> None:
    results = make(step_03=False)
    assert (results.diagnosis, results.operators, results.layers) == (None, None, None)
    assert (
        STEP_03 in results.notes[0]
        and "bottlenecks.json, operators.csv, layers.csv" in results.notes[0]
    )


def test_missing_metrics_name_step_02(tmp_path: Path) -> None:
    files = fixtures.write_results(tmp_path).files
    files.metrics.unlink()
    with pytest.raises(UserError, match=STEP_02):
        read_results(files)


@pytest.mark.parametrize("text", ["", "operator,calls\naten::mm,many\n", "a\nb,c,d\n"])
def test_a_broken_table_is_refused_naming_step_03(tmp_path: Path, text: str) -> None:
    files = fixtures.write_results(tmp_path).files
    files.operators.write_text(text)
    with pytest.raises(UserError, match=STEP_03):
        read_results(files)


def test_metrics_off_the_schema_and_a_diagnosis_without_suggestions_are_refused(
    tmp_path: Path,
) -> None:
    files = fixtures.write_results(tmp_path).files
    files.bottlenecks.write_text(
        json.dumps({"schema_version": 3, "batch_sizes": [], "main_bottleneck": ""})
    )
    with pytest.raises(UserError, match="no suggestions"):
        read_results(files)
    files.metrics.write_text(
        json.dumps({**json.loads(files.metrics.read_text()), "schema_version": 1})
    )
    with pytest.raises(UserError, match="does not match its schema"):
        read_results(files)


def test_metrics_of_a_version_with_the_last_layer_shortcut_still_load(tmp_path: Path) -> None:
    files = fixtures.write_results(tmp_path).files
    metrics = json.loads(files.metrics.read_text())
    metrics["full_dataset_metrics"]["last_token_only"] = True
    files.metrics.write_text(json.dumps(metrics))
    assert read_results(files).evaluation["num_samples"] == 5000


def test_an_older_or_foreign_diagnosis_is_noted(tmp_path: Path) -> None:
    files = fixtures.write_results(tmp_path).files
    files.bottlenecks.write_text(
        json.dumps({**json.loads(files.bottlenecks.read_text()), "device": "cuda:0"})
    )
    os.utime(files.bottlenecks, (1, 1))
    first, second = read_results(files).notes
    assert "device cuda:0" in first and "older" in second


def test_samples_stay_apart_and_the_largest_leads(make: Make) -> None:
    results = make(sample_sizes=(100, 200, 200), sizes=(4, 1))
    assert [sweep.sample_size for sweep in results.sweeps] == [100, 200, 200]
    assert results.sweep.sample_size == 200
    assert [row["batch_size"] for row in results.sweep.rows] == [1, 4]


def test_a_warning_of_several_batch_sizes_is_said_once(make: Make) -> None:
    warnings = make(sizes=(1, 4, 8), oom=(8,)).warnings
    assert sum("the model is on the CPU" in warning for warning in warnings) == 1
    assert any(warning.startswith("batch sizes 1, 4: gpu_mem_used") for warning in warnings)
    assert any(warning.startswith("batch size 8: out of memory") for warning in warnings)


def test_reason_is_what_follows_the_name() -> None:
    assert (
        reason("gpu_util_pct_mean", ["cv: high", "gpu_util: run shorter than a second"])
        == "run shorter than a second"
    )
    assert (
        reason("energy_per_sample_j", ["gpu_power, energy: the window is too short"])
        == "the window is too short"
    )
    assert reason("peak_gpu_mem", ["cv: high", "GPU figures: not on CUDA"]) == "not on CUDA"
    assert (
        reason("gpu_util", ["gpu_util is not measured: GPU figures: not on CUDA"]) == "not on CUDA"
    )
    assert reason("mfu", ["GPU figures: not on CUDA", "gpu_util: short"]) is None


def test_mfu_is_joined_from_the_ceilings(make: Make) -> None:
    results = make()
    row = results.sweep.rows[0]
    assert row["mfu"] == pytest.approx(1e12 * row["achieved_tflops"] / 1e11)
    assert not any(warning.startswith("mfu") for warning in row["warnings"])
    assert results.metrics["batch_size_profiling"][0]["mfu"] is None, (
        "the file stays as step 02 wrote it"
    )
    table = batch_table(results.sweep, full=True)
    assert (
        "MFU" in table.header
        and "over the 0.1 TFLOP/s of the ceilings in bottlenecks.json" in table.note
    )


def test_no_mfu_from_another_precision(tmp_path: Path) -> None:
    files = fixtures.write_results(tmp_path).files
    payload = json.loads(files.bottlenecks.read_text())
    files.bottlenecks.write_text(json.dumps({**payload, "dtype": "bfloat16"}))
    assert read_results(files).sweep.rows[0]["mfu"] is None
