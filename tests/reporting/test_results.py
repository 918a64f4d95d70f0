"""Reading results: what is refused, what may be missing, how rows and warnings are grouped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.builders import write_results
from tests.reporting.conftest import MakeResults
from tests.reporting.metrics_builders import NO_CUDA
from utils.core.errors import UserError
from utils.core.files import read_json
from utils.reporting.commands import STEP_02, STEP_03
from utils.reporting.results import read_results
from utils.reporting.sweeps import NO_BATCH_SIZE_FINISHED


def change_json(file: Path, **changes: Any) -> None:
    """Replace keys at the top of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_all_files_are_read(make_results: MakeResults) -> None:
    results = make_results(gpu=True)
    assert results.on_gpu
    assert results.notes == ()
    assert results.diagnosis is not None
    assert len(results.diagnosis.suggestions) == 3
    assert len(results.tables.operators) == 6
    assert len(results.tables.layers) == 25
    assert len(results.tables.kernels) == 1
    assert len(results.tables.memory) == 3


def test_without_step_03_a_note_has_its_command(make_results: MakeResults) -> None:
    results = make_results(has_diagnosis=False)
    assert results.diagnosis is None
    assert results.tables.operators == ()
    assert "bottlenecks.json, operators.csv, layers.csv" in results.notes[0]
    assert STEP_03 in results.notes[0]


def test_missing_metrics_name_step_02(tmp_path: Path) -> None:
    files = write_results(tmp_path).files
    files.metrics.unlink()
    with pytest.raises(UserError, match=STEP_02):
        read_results(files)


def test_a_diagnosis_without_suggestions_is_refused(tmp_path: Path) -> None:
    files = write_results(tmp_path).files
    diagnosis = json.loads(files.bottlenecks.read_text())
    del diagnosis["suggestions"]
    files.bottlenecks.write_text(json.dumps(diagnosis))
    with pytest.raises(UserError, match="suggestions") as caught:
        read_results(files)
    assert STEP_03 in str(caught.value)


def test_metrics_with_an_impossible_value_are_refused(tmp_path: Path) -> None:
    files = write_results(tmp_path).files
    change_json(files.metrics, first_inference_ms=-1)
    with pytest.raises(UserError, match="first_inference_ms"):
        read_results(files)


def test_a_diagnosis_of_another_device_is_noted(tmp_path: Path) -> None:
    files = write_results(tmp_path).files
    change_json(files.bottlenecks, device="cuda:0")
    notes = read_results(files).notes
    assert len(notes) == 1
    assert "device cuda:0" in notes[0]


def test_an_older_diagnosis_is_noted(tmp_path: Path) -> None:
    files = write_results(tmp_path).files
    os.utime(files.bottlenecks, (1, 1))
    notes = read_results(files).notes
    assert len(notes) == 1
    assert "older" in notes[0]


def test_samples_of_the_same_size_are_separate_sweeps(make_results: MakeResults) -> None:
    results = make_results(sample_sizes=(100, 200, 200), batch_sizes=(4, 1))
    assert [sweep.sample_size for sweep in results.sweeps] == [100, 200, 200]
    for sweep in results.sweeps:
        assert sweep.batch_sizes == [1, 4]


def test_the_sweep_of_the_report_is_over_the_largest_sample(make_results: MakeResults) -> None:
    assert make_results(sample_sizes=(100, 200, 150)).sweep.sample_size == 200


def test_a_missing_column_has_the_reason_of_its_rows(make_results: MakeResults) -> None:
    sweep = make_results(batch_sizes=(1, 4, 8), out_of_memory=(8,)).sweep
    assert sweep.values("peak_gpu_mem") == {}
    assert sweep.reason("peak_gpu_mem") == NO_CUDA


def test_a_sweep_without_measured_rows_has_a_reason(make_results: MakeResults) -> None:
    sweep = make_results(batch_sizes=(1, 2), out_of_memory=(1, 2)).sweep
    assert sweep.reason("cv") == NO_BATCH_SIZE_FINISHED


def test_mfu_is_computed_with_the_ceilings(make_results: MakeResults) -> None:
    results = make_results()
    row = results.sweep.rows[0]
    assert row.achieved_tflops is not None
    assert row.mfu == pytest.approx(1e12 * row.achieved_tflops / 1e11)
    assert "mfu" not in row.unavailable
    assert results.sweep.mfu_source is not None
    assert "over the 0.1 TFLOP/s of the ceilings in bottlenecks.json" in results.sweep.mfu_source


def test_a_rate_above_the_ceiling_is_a_warning(tmp_path: Path) -> None:
    files = write_results(tmp_path).files
    assert read_results(files).notes == ()
    ceilings = read_json(files.bottlenecks, made_by="the test")["ceilings"]
    change_json(files.bottlenecks, ceilings={**ceilings, "matmul_flops_per_s": 1e6})
    [note] = read_results(files).notes
    assert note.startswith("diagnosis: the arithmetic rate of batch sizes 1, 4, 8, 16, 32, 64 is")


def test_metrics_keep_the_mfu_of_their_file(make_results: MakeResults) -> None:
    assert make_results().metrics.batch_size_profiling[0].mfu is None


def test_there_is_no_mfu_with_ceilings_of_another_precision(tmp_path: Path) -> None:
    files = write_results(tmp_path).files
    change_json(files.bottlenecks, dtype="bfloat16")
    assert read_results(files).sweep.rows[0].mfu is None
