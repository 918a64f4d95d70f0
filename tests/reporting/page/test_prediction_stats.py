"""Lengths, calibration, mistakes and confusions, against numbers worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.reporting.builders import Scenario, write_results
from tests.reporting.prediction_builders import (
    PredictedRow,
    right,
    write_predictions,
    write_texts,
)
from utils.core.files import sha256_file
from utils.reporting.page.prediction_stats import PredictionStats, read_prediction_stats
from utils.reporting.results import read_results

ROWS = (
    right(0, 0.95, num_tokens=3),
    right(1, 0.85, num_tokens=5),
    PredictedRow(label_id=0, predicted_id=1, probability=0.97, text="sure and wrong"),
    PredictedRow(label_id=0, predicted_id=1, probability=0.55, text="not sure"),
    PredictedRow(label_id=2, predicted_id=0, probability=0.65, text="half sure"),
    PredictedRow(label_id=None, predicted_id=2, probability=0.99, num_tokens=40),
)


def read_stats(
    folder: Path, rows: tuple[PredictedRow, ...] = ROWS, **sections: dict[str, Any]
) -> PredictionStats:
    """What the predictions of ``rows`` show, with their texts beside them."""
    texts = folder / "data.csv"
    write_texts(texts, rows)
    sections["full_dataset_metrics"] = {
        "num_samples": len(rows),
        **sections.get("full_dataset_metrics", {}),
    }
    sections["dataset_info"] = {"path": str(texts), **sections.get("dataset_info", {})}
    sections["run"] = {"data_sha256": sha256_file(texts), **sections.get("run", {})}
    files = write_results(folder / "results", Scenario(sections=sections)).files
    write_predictions(files, rows)
    return read_prediction_stats(read_results(files))


def test_lengths_count_every_row_once(tmp_path: Path) -> None:
    lengths = read_stats(tmp_path).lengths
    assert lengths is not None
    assert sum(item.num_rows for item in lengths.bins) == len(ROWS)
    assert lengths.longest == 40
    assert lengths.percentiles[50] == 7


def test_calibration_compares_promise_and_result(tmp_path: Path) -> None:
    stats = read_stats(tmp_path)
    by_start = {item.start: item for item in stats.calibration}
    assert sorted(by_start) == [0.5, 0.6, 0.8, 0.9]
    highest = by_start[0.9]
    assert highest.num_rows == 2
    assert highest.accuracy == 0.5
    assert highest.mean_probability == pytest.approx(0.96)
    # 0.55 and 0.65 promised where none is right, 0.15 too little, 2 rows with 0.46 too much.
    expected = (0.55 + 0.65 + 0.15 + 2 * 0.46) / 5
    assert stats.calibration_error == pytest.approx(expected)


def test_mistakes_are_the_most_confident_first_with_their_texts(tmp_path: Path) -> None:
    mistakes = read_stats(tmp_path).mistakes
    assert [(item.row_id, item.text) for item in mistakes] == [
        (2, "sure and wrong"),
        (4, "half sure"),
        (3, "not sure"),
    ]


def test_confusions_count_pairs_of_labels(tmp_path: Path) -> None:
    stats = read_stats(tmp_path)
    wrong = [(item.label_id, item.predicted_id, item.num_rows) for item in stats.confusions]
    assert wrong == [(0, 1, 2), (2, 0, 1)]
    assert sum(item.num_rows for item in stats.correct) == 2


def test_a_changed_data_set_gives_no_texts(tmp_path: Path) -> None:
    stats = read_stats(tmp_path, run={"data_sha256": "2" * 64})
    assert stats.text_reason == "the data set has changed since the run"
    assert [item.text for item in stats.mistakes] == [None] * 3


def test_a_missing_data_set_gives_no_texts(tmp_path: Path) -> None:
    stats = read_stats(tmp_path, dataset_info={"path": str(tmp_path / "gone.csv")})
    assert stats.text_reason is not None
    assert "no longer at" in stats.text_reason


def test_without_labels_only_lengths_are_known(tmp_path: Path) -> None:
    rows = (PredictedRow(label_id=None, predicted_id=0, probability=0.5),) * 3
    stats = read_stats(tmp_path, rows)
    assert stats.lengths is not None
    assert stats.label_reason == "no row has a label"
    assert (stats.calibration, stats.mistakes, stats.confusions) == ((), (), ())


def test_a_probability_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    rows = (right(0, float("nan")), PredictedRow(label_id=0, predicted_id=1, probability=0.5))
    stats = read_stats(tmp_path, rows)
    assert [item.num_rows for item in stats.calibration] == [1]
    assert [item.row_id for item in stats.mistakes] == [1]


def test_predictions_of_another_evaluation_are_refused(tmp_path: Path) -> None:
    stats = read_stats(tmp_path, full_dataset_metrics={"num_samples": 7})
    assert stats.reason == "the folder predictions/ has 6 rows, the evaluation 7"
    assert stats.lengths is None


def test_a_missing_folder_is_a_reason(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path, Scenario()).files)
    assert read_prediction_stats(results).reason == "the folder predictions/ has no predictions"


def test_a_damaged_file_is_a_reason(tmp_path: Path) -> None:
    files = write_results(tmp_path, Scenario()).files
    files.predictions_dir.mkdir()
    (files.predictions_dir / "rows.parquet").write_bytes(b"PAR1 cut")
    reason = read_prediction_stats(read_results(files)).reason
    assert reason is not None
    assert reason.startswith("the predictions cannot be read")
