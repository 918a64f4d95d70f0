"""The stored predictions of two sides are compared only where they belong to their runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.comparison.builders import compare, write_predictions, write_process
from utils.core.errors import UserError
from utils.core.files import sha256_file

LABELS = np.arange(300) % 3


def write_side(folder: Path, name: str, *, num_wrong: int = 0, rows: int = 300) -> Path:
    """A process that predicts the first rows wrong."""
    results = write_process(folder, name)
    labels = LABELS[:rows]
    predicted = labels.copy()
    predicted[:num_wrong] = (labels[:num_wrong] + 1) % 3
    write_predictions(results, predicted, labels)
    return results


def test_predictions_are_compared_row_by_row(tmp_path: Path) -> None:
    comparison = compare(write_side(tmp_path, "before"), write_side(tmp_path, "after", num_wrong=9))
    quality = comparison.quality
    assert quality is not None
    assert (quality.num_changed, quality.num_only_baseline_correct) == (9, 9)
    assert quality.accuracy_change == pytest.approx(-0.03)
    assert [row.text for row in quality.changed_rows] == [None] * 9
    assert comparison.quality_reason is None


def test_without_predictions_the_reason_is_given(tmp_path: Path) -> None:
    before = write_side(tmp_path, "before")
    after = write_side(tmp_path, "after")
    (after / "predictions").rename(after / "moved")
    comparison = compare(before, after)
    assert comparison.quality is None
    assert comparison.quality_reason == "the candidate has no predictions beside its metrics"
    assert (comparison.baseline.accuracy, comparison.candidate.accuracy) == (1.0, 1.0)


def test_the_predictions_of_another_run_are_refused(tmp_path: Path) -> None:
    before = write_side(tmp_path, "before")
    after = write_side(tmp_path, "after", num_wrong=9)
    file = after / "baseline_metrics.json"
    payload = json.loads(file.read_text())
    payload["full_dataset_metrics"]["accuracy"] = 1.0
    file.write_text(json.dumps(payload))
    with pytest.raises(UserError, match="do not belong to the metrics beside them: their accuracy"):
        compare(before, after)


def test_predictions_of_other_rows_are_refused(tmp_path: Path) -> None:
    before = write_side(tmp_path, "before")
    after = write_side(tmp_path, "after", rows=200)
    file = after / "baseline_metrics.json"
    payload = json.loads(file.read_text())
    payload["full_dataset_metrics"]["num_samples"] = 300
    file.write_text(json.dumps(payload))
    with pytest.raises(UserError, match="The sides predicted other rows"):
        compare(before, after)


def test_another_number_of_evaluated_rows_is_no_error(tmp_path: Path) -> None:
    before = write_side(tmp_path, "before")
    after = write_side(tmp_path, "after", rows=200)
    comparison = compare(before, after)
    assert comparison.quality is None
    assert "300 and 200" in str(comparison.quality_reason)
    forced = compare(before, after, force=True)
    assert forced.quality is None
    assert "forced: The sides predicted other rows" in str(forced.quality_reason)


def test_texts_are_given_on_request_alone(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    lines = ["text,labels,label_id"]
    for row, label in enumerate(LABELS):
        lines.append(f"text {row},label,{label}")
    data.write_text("\n".join(lines) + "\n")
    paths = []
    for name, num_wrong in (("before", 0), ("after", 3)):
        results = write_side(tmp_path, name, num_wrong=num_wrong)
        file = results / "baseline_metrics.json"
        payload = json.loads(file.read_text())
        payload["dataset_info"] |= {"path": str(data), "sha256": sha256_file(data)}
        file.write_text(json.dumps(payload))
        paths.append(results)
    quality = compare(*paths, show_texts=True).quality
    assert quality is not None
    texts = {row.row_id: row.text for row in quality.changed_rows}
    assert texts == {0: "text 0", 1: "text 1", 2: "text 2"}
    data.write_text("text,labels,label_id\n")
    with pytest.raises(UserError, match="the data set is not there, or has changed since"):
        compare(*paths, show_texts=True)


def test_processes_that_predict_differently_are_a_warning(tmp_path: Path) -> None:
    before = write_side(tmp_path, "before")
    after = [write_side(tmp_path, "one", num_wrong=3), write_side(tmp_path, "two", num_wrong=6)]
    [warning] = compare(before, after).warnings
    assert (
        "the processes of the candidate predict differently: accuracy 0.9800 to 0.9900" in warning
    )
