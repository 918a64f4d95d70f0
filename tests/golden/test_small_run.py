"""Files, columns, keys, sections, blocks and predictions of a small run are as they were committed.

Each expected file lies in ``tests/golden/expected``. When a change is intended::

    python -m tests.golden.regenerate [FILE …]

writes it again (see ``regenerate.py``).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests import support
from tests.golden import compare, json_structure, observe
from tests.golden.small_run import (
    EXPECTED_FOLDER,
    SmallRun,
    predict_with_transformers,
    read_predictions,
)

# Imported by Python at its start, in every process of the run: what no step can foresee goes wrong.
BROKEN_DRAWING = """
import matplotlib.figure

def fail(*arguments, **settings):
    raise RuntimeError("injected failure")

matplotlib.figure.Figure.savefig = fail
"""


def expected_lines(file: str) -> list[str]:
    return (EXPECTED_FOLDER / file).read_text(encoding="utf-8").splitlines()


def test_tables_have_the_committed_columns_in_order(small_run: SmallRun) -> None:
    expected = observe.read_json(EXPECTED_FOLDER / "columns.json")
    lines = compare.differences_by_key(expected, observe.columns_of_tables(small_run))
    assert not lines, compare.message("columns.json", lines)


@pytest.mark.parametrize("file", ["baseline_metrics.json", "bottlenecks.json"])
def test_json_files_have_the_committed_keys_and_types(small_run: SmallRun, file: str) -> None:
    expected = observe.read_json(EXPECTED_FOLDER / file)
    actual = json_structure.structure_of(observe.read_json(small_run.results / file))
    lines = json_structure.differences(expected, actual)
    assert not lines, compare.message(file, lines)


def test_report_has_the_committed_sections_and_labels(small_run: SmallRun) -> None:
    actual = observe.report_outline(observe.read_report(small_run))
    lines = compare.list_differences(expected_lines("report.txt"), actual)
    assert not lines, compare.message("report.txt", lines)


def test_console_shows_the_committed_blocks(small_run: SmallRun) -> None:
    actual = observe.console_outline(small_run.process.stdout)
    lines = compare.list_differences(expected_lines("console.txt"), actual)
    assert not lines, compare.message("console.txt", lines)


def test_a_run_writes_the_committed_files(small_run: SmallRun) -> None:
    lines = compare.list_differences(expected_lines("files.txt"), observe.file_names(small_run))
    assert not lines, compare.message("files.txt", lines)


def test_predictions_are_the_committed_ones(small_run: SmallRun) -> None:
    """Labels are equal, probabilities within 1e-5.

    ``expected/predictions.csv`` has the predictions for ``dataset.csv`` (120 texts of 1 to more
    than 64 tokens, truncated at 64) of the model that ``small_run.build_golden_model`` builds. That
    model stands for the embedded one, which takes more than a minute to train and whose weights
    depend on the machine. The file was written by ``python -m tests.golden.regenerate``, before the
    code was reorganised, from ``results/predictions`` of the run that this test looks at.

    When a change is intended: ``python -m tests.golden.regenerate predictions.csv``. It writes
    nothing unless transformers alone, with one text at a time, gives the same predictions.
    """
    expected = pd.read_csv(EXPECTED_FOLDER / "predictions.csv")
    lines = compare.prediction_differences(expected, read_predictions(small_run))
    assert not lines, compare.message("predictions.csv", lines)


def test_transformers_alone_gives_the_committed_predictions(small_run: SmallRun) -> None:
    """Where this fails too, it is a library that has changed, not the project."""
    expected = pd.read_csv(EXPECTED_FOLDER / "predictions.csv")
    lines = compare.prediction_differences(expected, predict_with_transformers(small_run.model))
    assert not lines, compare.message("predictions.csv", lines)


def test_a_step_that_failed_inside_ends_the_run_with_1(small_run: SmallRun, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN_DRAWING, encoding="utf-8")
    results = tmp_path / "results"
    shutil.copytree(small_run.results, results)
    flags = [*small_run.flags, "--set", f"output.results_dir={results}"]
    flags += ["--skip-download", "--skip-baseline", "--skip-profiling"]
    done = support.run_script("run_week1.py", *flags, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "injected failure" in done.stderr
    assert "Traceback" not in done.stderr
    assert "COMPLETE" not in done.stdout
