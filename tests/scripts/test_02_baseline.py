"""Step 02 on the tiny model: results, files, refusals, continuing after an interruption."""

from __future__ import annotations

import csv
import json
import logging
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import support
from utils.core.errors import Interrupted
from utils.core.files import METRICS_SCHEMA, PROJECT_ROOT, read_json, sha256_tree
from utils.evaluation import runner
from utils.pipeline import cli
from utils.pipeline.steps import get_step, stale_reason
from utils.profiler import InferenceProfiler
from utils.sweep.batch_runner import BatchRunner

SCRIPT = "scripts/02_baseline_inference.py"
Main = Callable[..., int]
Finished = tuple[Path, subprocess.CompletedProcess[str]]
NOTHING_LEFT = (".tmp", "sweep.json")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Finished:
    folder = tmp_path_factory.mktemp("step_02")
    support.write_dataset(folder / "data")
    return folder, support.run_script(
        SCRIPT, *support.set_flags(support.small_overrides(folder, tiny_model))
    )


@pytest.fixture
def main(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Main]:
    """The script in this process, on a data set of the test's own; more settings as words."""
    support.write_dataset(tmp_path / "data")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    logged = list(logging.getLogger().handlers)

    def run(*more: str, model: Path = tiny_model) -> int:
        words = support.set_flags([*support.small_overrides(tmp_path, model), *more])
        monkeypatch.setattr(sys, "argv", [SCRIPT, *words])
        # Here it would end the test's own process.
        monkeypatch.setattr(cli, "exit_at_once", sys.exit)
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(PROJECT_ROOT / SCRIPT), run_name="__main__")
        assert isinstance(end.value.code, int)
        return end.value.code

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    logging.getLogger().handlers[:] = logged


def test_it_shows_the_blocks_of_the_contract(finished: Finished) -> None:
    _, done = finished
    assert done.returncode == 0, done.stdout + done.stderr
    places = [
        done.stdout.index(words)
        for words in (
            "MODEL SUMMARY\n" + "=" * 70,
            "PROFILING MULTIPLE BATCH SIZES\n" + "=" * 70,
            "Batch Size 1:",
            "Latency/sample:",
            "Throughput:",
            "Batch Size 4:",
            "FULL DATASET EVALUATION\n" + "=" * 70,
            "Samples: 60\n",
            "Accuracy: 0.",
            "F1-Score (Macro): 0.",
            "F1-Score (Weighted): 0.",
            "Inference time: ",
            " samples/sec",
        )
    ]
    assert places[:-1] == sorted(places[:-1])


def test_the_files_agree_with_each_other(finished: Finished, tiny_model: Path) -> None:
    folder, _ = finished
    results = folder / "results"
    payload = read_json(results / "baseline_metrics.json", made_by=SCRIPT, schema=METRICS_SCHEMA)
    with (results / "detailed_metrics.csv").open(newline="") as source:
        table = list(csv.DictReader(source))
    assert [int(row["batch_size"]) for row in table] == [1, 4]
    for row, record in zip(table, payload["batch_size_profiling"], strict=True):
        assert record["batch_size"] == int(row["batch_size"])
        assert set(record) - set(row) == {"sample_size", "unavailable"}
        assert float(row["latency_per_sample_ms_mean"]) == record["latency_per_sample_ms_mean"]
        assert (row["gpu_power_w_mean"] == "") == (record["gpu_power_w_mean"] is None)
    rows = support.read_predictions(folder)
    assert payload["full_dataset_metrics"]["accuracy"] == pytest.approx(
        (rows.label_id == rows.predicted_id).mean()
    )
    assert payload["optimal_batch_size"]["batch_size"] in (1, 4)
    assert payload["dataset_info"]["num_rows"] == 60
    assert payload["dataset_info"]["label_mapping_source"] == "model"
    assert set(payload["full_dataset_metrics"]) - set(payload["units"]) == {
        "attention_kernels",
        "batching",
        "majority_class",
        "per_class",
        "unavailable",
        "warnings",
        "workers",
        "batching_comparison",
        "compile_comparison",
    }
    assert not [file for file in results.rglob("*") if file.name.endswith(NOTHING_LEFT)]
    assert (
        stale_reason(
            get_step("02"),
            support.load_config(overrides=support.small_overrides(folder, tiny_model)),
        )
        is None
    )


def test_a_sweep_alone_evaluates_nothing_and_says_so(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("evaluation.enabled=false", "evaluation.num_workers=2") == 0
    shown = capsys.readouterr().out
    assert "The complete data set was not evaluated: evaluation.enabled is false" in shown
    payload = read_json(
        tmp_path / "results" / "baseline_metrics.json", made_by=SCRIPT, schema=METRICS_SCHEMA
    )
    assert payload["full_dataset_metrics"] is None
    assert "evaluation.enabled" in payload["unavailable"]["full_dataset_metrics"]
    assert [row["status"] for row in payload["batch_size_profiling"]] == ["ok", "ok"]
    assert not (tmp_path / "results" / "predictions").exists()


def test_a_run_interrupted_in_the_evaluation_does_not_measure_the_sweep_again(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweeps: list[int] = []
    real = InferenceProfiler._warm_up

    def spy(*args: Any, **named: Any) -> Any:
        sweeps.append(1)
        return real(*args, **named)

    def interrupt(*_: Any, **__: Any) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(InferenceProfiler, "_warm_up", spy)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "evaluate_dataset", interrupt)
        assert main() == 143
    assert not (tmp_path / "results" / "baseline_metrics.json").exists()
    assert main() == 0
    assert len(sweeps) == 1
    assert (
        "Taking over 2 of 2 batch sizes (6 of 6 runs); 60 rows are left." in capsys.readouterr().out
    )
    assert main() == 0
    assert len(sweeps) == 2, "after a success the next run measures again"
    with monkeypatch.context() as patch:
        patch.setattr(runner, "evaluate_dataset", interrupt)
        assert main("profiling.batch_sizes=[2]") == 143
    assert main() == 0
    assert len(sweeps) == 4, "a sweep of other settings is not reused"


def test_an_interrupted_sweep_measures_only_the_missing_runs(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[int] = []
    real = BatchRunner.run_timed

    def interrupt(self: Any, texts: list[str], size: int, *rest: Any) -> None:
        if len(measured) == 3:
            raise Interrupted(signal.SIGTERM)
        measured.append(size)
        real(self, texts, size, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(BatchRunner, "run_timed", interrupt)
        assert main() == 143
    with monkeypatch.context() as patch:
        patch.setattr(
            BatchRunner, "run_timed", lambda *args: (measured.append(args[2]), real(*args))
        )
        assert main() == 0
    assert "Taking over 0 of 2 batch sizes (3 of 6 runs)" in capsys.readouterr().out
    assert sorted(measured) == [1, 1, 1, 4, 4, 4]
    payload = json.loads((tmp_path / "results" / "baseline_metrics.json").read_text())
    assert [row["num_runs"] for row in payload["batch_size_profiling"]] == [3, 3]
    assert [
        size for order in payload["measurement"]["rounds"][0]["order"] for size in order
    ] == measured
    assert any(
        "by an earlier process" in text
        for row in payload["batch_size_profiling"]
        for text in row["warnings"]
    )


def test_a_failing_run_leaves_what_was_there(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main() == 0
    before = sha256_tree(tmp_path / "results" / "predictions")
    metrics = (tmp_path / "results" / "baseline_metrics.json").read_bytes()

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(runner, "evaluate_dataset", fail)
    assert main("profiling.max_length=4") == 1
    assert (tmp_path / "results" / "baseline_metrics.json").read_bytes() == metrics
    assert sha256_tree(tmp_path / "results" / "predictions") == before


def test_dummy_weights_say_that_accuracy_was_not_measured(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            "model.load_format=dummy",
            "dataset.sample_sizes=[4, 100]",
            "evaluation.batching=dataset_order",
        )
        == 0
    )
    shown = capsys.readouterr()
    assert "Accuracy: not measured (dummy weights)" in shown.out
    assert "asks for 100 texts; the data set has 60" in shown.err
    payload = json.loads((tmp_path / "results" / "baseline_metrics.json").read_text())
    assert (payload["model_info"]["weights"], payload["full_dataset_metrics"]["accuracy"]) == (
        "dummy",
        None,
    )
    assert sorted({row["sample_size"] for row in payload["batch_size_profiling"]}) == [4, 60]
    dependence = payload["measurement"]["sample_dependence"]
    assert [(row["batch_size"], row["sample_sizes"]) for row in dependence] == [
        (1, [4, 60]),
        (4, [4, 60]),
    ]
    assert all(row["time_per_token_ratio"] > 0 for row in dependence)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("evaluation.num_workers=two", "evaluation.num_workers"),
        ("profiling.max_length=100000", "profiling.max_length"),
        ("dataset.local_path=./nowhere/val_df.csv", "01_download_data.py"),
    ],
)
def test_what_cannot_be_done_is_one_clear_message(
    main: Main, capsys: pytest.CaptureFixture[str], setting: str, message: str
) -> None:
    assert main(setting) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def test_model_and_data_with_other_label_counts_are_refused(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = support.build_tiny_model(tmp_path / "model", labels=("yes", "no"))
    assert main(model=model) == 2
    assert "number of labels: then 3, now 2" in capsys.readouterr().err
