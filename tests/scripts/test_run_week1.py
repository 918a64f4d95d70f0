"""The runner on a tiny model: complete runs, resumed, failing and interrupted ones."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest

import run_week1
from tests import support
from utils.core.files import PROJECT_ROOT

LISTED = (
    "baseline_metrics.json",
    "detailed_metrics.csv",
    "baseline_summary_report.txt",
    "report.html",
    "bottlenecks.json",
    "plots/batch_size_comparison.png",
    "plots/metrics_heatmap.png",
    "profiler_traces/trace.json",
    "profiler_traces/stacks.txt",
    "profiler_traces/operators.csv",
    "profiler_traces/layers.csv",
)


def flags(folder: Path, model: Path) -> list[str]:
    """A run from a local CSV with texts and label names."""
    source = folder / "source.csv"
    if not source.exists():
        rows = [(text, support.LABELS[i % 3]) for i, text in enumerate(support.TEXTS)]
        pd.DataFrame(rows, columns=["query", "label"]).to_csv(source, index=False)
    return support.set_flags([*support.small_overrides(folder, model), f"dataset.hf_name={source}"])


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("run")
    return folder, support.run_script("run_week1.py", *flags(folder, tiny_model))


def test_a_complete_run_ends_with_the_six_answers(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, done = finished
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "WEEK 1: BASELINE PROFILING AND BOTTLENECK ANALYSIS",
        "MODEL SUMMARY",
        "PROFILING MULTIPLE BATCH SIZES",
        "Warmup complete!",
        "Batch Size 1:",
        "Latency/sample:",
        "FULL DATASET EVALUATION",
        "Samples: 60",
        "WEEK 1 COMPLETE!",
    ):
        assert words in done.stdout
    end = done.stdout.split("WEEK 1 COMPLETE!")[1].lower()
    for words in (
        "latency",
        "optimal batch size",
        "throughput",
        "memory",
        "bottleneck",
        "accuracy",
    ):
        assert words in end


def test_every_listed_file_is_there_and_not_empty(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = finished
    sizes = {name: (folder / "results" / name).stat().st_size for name in LISTED}
    assert min(sizes.values()) > 0, sizes
    assert list((folder / "results" / "logs").glob("*.log"))
    predictions = support.read_predictions(folder)
    assert list(predictions["row_id"]) == list(range(60))
    assert list(predictions.columns) == [
        "row_id",
        "label_id",
        "label",
        "predicted_id",
        "predicted_label",
        "predicted_probability",
        "num_tokens",
    ]
    assert [support.LABELS.index(name) for name in predictions["label"]] == list(
        predictions["label_id"]
    )
    assert [support.LABELS.index(name) for name in predictions["predicted_label"]] == list(
        predictions["predicted_id"]
    )


def test_accuracy_is_that_of_the_predictions(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = finished
    metrics = json.loads((folder / "results" / "baseline_metrics.json").read_text())
    rows = support.read_predictions(folder)
    assert metrics["full_dataset_metrics"]["accuracy"] == pytest.approx(
        (rows.label_id == rows.predicted_id).mean()
    )
    assert metrics["model_info"]["weights"] == "pretrained"
    assert [row["batch_size"] for row in metrics["batch_size_profiling"]] == [1, 4]


def test_resume_runs_nothing_until_something_changes(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tiny_model: Path
) -> None:
    folder, _ = finished
    again = support.run_script("run_week1.py", *flags(folder, tiny_model), "--resume")
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("skip (unchanged since it last finished)") == 4
    assert "Resume: taking over 4 of 4 steps (01, 02, 03, 04)." in again.stdout
    assert "WEEK 1 COMPLETE!" in again.stdout
    tried = support.run_script(
        "run_week1.py", *flags(folder, tiny_model), "--resume", "--dry-run", "--verify"
    )
    assert "bottleneck: run (--verify)" in tried.stdout, "no suggestion has been tried yet"
    (folder / "results" / "report.html").unlink()
    dry = support.run_script("run_week1.py", *flags(folder, tiny_model), "--resume", "--dry-run")
    assert dry.stdout.count("skip (unchanged") == 3
    assert "run (changed: output" in dry.stdout
    assert not (folder / "results" / "report.html").exists()
    again = support.run_script("run_week1.py", *flags(folder, tiny_model), "--resume")
    assert again.returncode == 0
    assert (folder / "results" / "report.html").exists()


def test_a_changed_setting_says_which_steps_it_touches(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tiny_model: Path
) -> None:
    folder, _ = finished
    words = [
        *flags(folder, tiny_model),
        "--set",
        "evaluation.chunk_rows=30",
        "--resume",
        "--dry-run",
    ]
    dry = support.run_script("run_week1.py", *words)
    assert "[01] Download and check the data set: skip" in dry.stdout
    assert "run (changed: setting evaluation" in dry.stdout
    assert dry.stdout.count("if an earlier step changes what it reads") == 2


def test_the_answers_say_that_they_are_of_other_settings(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tiny_model: Path
) -> None:
    folder, done = finished
    assert "Not of this run's settings" not in done.stdout
    words = [
        *flags(folder, tiny_model),
        "--skip-download",
        "--skip-baseline",
        "--skip-profiling",
        "--skip-viz",
    ]
    same = support.run_script("run_week1.py", *words)
    assert "Not of this run's settings" not in same.stdout
    other = support.run_script("run_week1.py", *words, "--set", "profiling.max_length=32")
    for number in ("02", "03"):
        line = f"Not of this run's settings: the results of step {number} (changed: setting "
        assert line in other.stdout


def test_steps_find_inputs_in_the_users_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runner and steps look a path up in the same place: the user's working directory."""
    support.build_tiny_model(tmp_path / "my model")
    (tmp_path / "data").mkdir()
    frame = pd.DataFrame(
        {"text": support.TEXTS[:6], "labels": [support.LABELS[i % 3] for i in range(6)]}
    )
    frame.iloc[:4].to_csv(tmp_path / "part-1.csv", index=False)
    frame.iloc[4:].to_csv(tmp_path / "part-2.csv", index=False)
    settings = [*support.small_overrides(tmp_path, Path("my model")), "dataset.hf_name=part-*.csv"]
    monkeypatch.chdir(tmp_path)
    done = support.run_script(
        "run_week1.py", *support.set_flags(settings), "--skip-profiling", "--skip-viz"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "results" / "baseline_metrics.json").read_text())
    assert metrics["model_info"]["name"] == str(tmp_path / "my model")
    assert metrics["full_dataset_metrics"]["num_samples"] == 6
    assert f"Model: {tmp_path / 'my model'}" in done.stdout


def test_verify_is_passed_on_to_step_03_alone(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: dict[str, list[str]] = {}
    monkeypatch.setattr(
        run_week1,
        "run_step",
        lambda item, arguments: words.update({item.number: arguments}) or 0.0,
    )
    assert run_week1.main([*flags(tmp_path, tiny_model), "--verify"]) == 0
    assert [number for number, arguments in words.items() if "--verify" in arguments] == ["03"]
    chosen = "model.dtype=bfloat16"
    assert run_week1.main([*flags(tmp_path, tiny_model), "--verify", chosen]) == 0
    assert words["03"][-2:] == ["--verify", chosen]


def test_a_failing_step_stops_the_run_with_its_code(tmp_path: Path, tiny_model: Path) -> None:
    done = support.run_script("run_week1.py", *flags(tmp_path, tiny_model), "--skip-download")
    assert done.returncode == 2
    assert "01_download_data.py" in done.stderr
    assert "Traceback" not in done.stderr
    assert "COMPLETE" not in done.stdout


def test_no_script_is_left_without_a_test() -> None:
    tests = "".join(file.read_text() for file in (PROJECT_ROOT / "tests").rglob("test_*.py"))
    scripts = [*(PROJECT_ROOT / "scripts").glob("*.py"), *PROJECT_ROOT.glob("*.py")]
    missing = [
        file.name
        for file in scripts
        if file.name != "setup.py" and f'"{file.relative_to(PROJECT_ROOT)}"' not in tests
    ]
    assert missing == [], 'each script is run for real by a test: support.run_script("path")'
