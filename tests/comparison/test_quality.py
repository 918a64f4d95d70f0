"""Quality from stored predictions: values of statsmodels, by hand and by scikit-learn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats
from sklearn.metrics import f1_score

from tests.comparison.statistics_builders import write_predictions
from utils.comparison.paired_accuracy import accuracy_change_interval, mcnemar_p_value
from utils.comparison.paired_f1 import PairedCells, f1_change_intervals
from utils.comparison.quality import compare_quality
from utils.core.errors import UserError
from utils.schema.comparison_quality import QualityComparison

NAMES = ("anger", "joy", "fear")


def changed_at_random(
    generator: np.random.Generator, ids: NDArray[np.int64], share: float, num_labels: int
) -> NDArray[np.int64]:
    """The ids with a share of them replaced by others."""
    changed = generator.random(len(ids)) < share
    return np.where(changed, generator.integers(0, num_labels, len(ids)), ids)


def compare(
    folder: Path,
    label_ids: list[int | None],
    baseline: list[int],
    candidate: list[int],
    **probabilities: list[float],
) -> QualityComparison:
    first = write_predictions(
        folder / "a", label_ids, baseline, probabilities=probabilities.get("baseline_probabilities")
    )
    second = write_predictions(
        folder / "b",
        label_ids,
        candidate,
        probabilities=probabilities.get("candidate_probabilities"),
    )
    return compare_quality(first, second, NAMES)


@pytest.mark.parametrize(
    ("num_only_baseline", "num_only_candidate", "p_value"),
    [
        (12, 2, 0.012939453125),
        (5, 9, 0.4239501953125),
        (0, 6, 0.03125),
        (40, 61, 0.046044066929342785),
        (3, 3, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_is_that_of_statsmodels(
    num_only_baseline: int, num_only_candidate: int, p_value: float
) -> None:
    # statsmodels 0.15.0, contingency_tables.mcnemar(exact=True).
    assert mcnemar_p_value(num_only_baseline, num_only_candidate) == pytest.approx(p_value)


@pytest.mark.parametrize(
    ("num_only_baseline", "num_only_candidate", "num_rows"),
    [(2, 12, 50), (12, 2, 50), (0, 5, 30), (300, 340, 10_000), (1, 0, 1_000), (9, 9, 20)],
)
def test_ends_of_the_accuracy_interval_are_rejected_by_the_score_test_at_5_percent(
    num_only_baseline: int, num_only_candidate: int, num_rows: int
) -> None:
    interval = accuracy_change_interval(num_only_baseline, num_only_candidate, num_rows)
    observed = (num_only_candidate - num_only_baseline) / num_rows
    assert interval[0] < observed < interval[1]
    for change in interval:
        losses = most_likely_losses(num_only_baseline, num_only_candidate, num_rows, change)
        variance = (2 * losses + change - change**2) / num_rows
        assert abs(observed - change) / math.sqrt(variance) == pytest.approx(1.959964, rel=1e-4)


def most_likely_losses(
    num_only_baseline: int, num_only_candidate: int, num_rows: int, change: float
) -> float:
    """The share of losses with the largest likelihood, by a search instead of the formula."""
    num_alike = num_rows - num_only_baseline - num_only_candidate

    def minus_log_likelihood(losses: float) -> float:
        shares = (losses, losses + change, 1 - 2 * losses - change)
        counts = (num_only_baseline, num_only_candidate, num_alike)
        likelihood = 0.0
        for count, share in zip(counts, shares, strict=True):
            if count:
                likelihood += count * math.log(max(share, 1e-300))
        return -likelihood

    bounds = (max(0.0, -change), (1 - change) / 2)
    found = optimize.minimize_scalar(
        minus_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}
    )
    return float(found.x)


def test_without_any_difference_the_accuracy_interval_has_its_closed_form() -> None:
    quantile_squared = stats.norm.ppf(0.975) ** 2
    end = quantile_squared / (200 + quantile_squared)
    assert accuracy_change_interval(0, 0, 200) == pytest.approx((-end, end))


@pytest.mark.parametrize(("counts", "interval_end"), [((0, 4, 4), 1.0), ((4, 0, 4), -1.0)])
def test_a_change_of_every_row_stays_within_its_range(
    counts: tuple[int, int, int], interval_end: float
) -> None:
    interval = accuracy_change_interval(*counts)
    assert interval_end in interval
    assert -1 <= interval[0] < interval[1] <= 1


def test_the_accuracy_interval_contains_the_true_change_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    losses, gains, num_rows = 0.03, 0.06, 400
    drawn = generator.multinomial(num_rows, [losses, gains, 1 - losses - gains], size=2000)
    num_containing = 0
    for num_losses, num_gains, _ in drawn.tolist():
        low, high = accuracy_change_interval(num_losses, num_gains, num_rows)
        num_containing += low <= gains - losses <= high
    assert num_containing / 2000 == pytest.approx(0.95, abs=0.015)


def test_f1_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 6, 500)
    sides = [changed_at_random(generator, labels, share, 7) for share in (0.3, 0.5)]
    # Label 7 never occurs, and label 6 only as a prediction.
    scores = PairedCells(labels, sides[0], sides[1], 8).observed_scores()
    for side, predicted in enumerate(sides):
        macro = f1_score(labels, predicted, average="macro", zero_division=0)
        weighted = f1_score(labels, predicted, average="weighted", zero_division=0)
        each = f1_score(labels, predicted, average=None, labels=range(8), zero_division=0)
        assert scores.macro[side, 0] == pytest.approx(macro)
        assert scores.weighted[side, 0] == pytest.approx(weighted)
        assert scores.per_class[side, :, 0] == pytest.approx(each)


def test_f1_intervals_are_those_of_drawing_rows() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 300)
    sides = [changed_at_random(generator, labels, share, 4) for share in (0.2, 0.3)]
    intervals = f1_change_intervals(PairedCells(labels, sides[0], sides[1], 4))
    changes = []
    for _ in range(600):
        rows = generator.integers(0, 300, 300)
        both = [f1_score(labels[rows], side[rows], average="macro") for side in sides]
        changes.append(both[1] - both[0])
    assert intervals.macro == pytest.approx(np.percentile(changes, (2.5, 97.5)), abs=0.012)


def test_the_same_seed_gives_the_same_interval() -> None:
    labels = np.arange(60) % 3
    candidate = np.where(np.arange(60) % 7 == 0, 0, labels)
    cells = PairedCells(labels, labels, candidate, 3)
    first = f1_change_intervals(cells, seed=4)
    assert f1_change_intervals(cells, seed=4) == first
    assert f1_change_intervals(cells, seed=5) != first


def test_a_small_comparison_worked_by_hand(tmp_path: Path) -> None:
    quality = compare(
        tmp_path,
        label_ids=[0, 0, 1, 1, 2, 2, None],
        baseline=[0, 1, 1, 0, 2, 2, 0],
        candidate=[0, 0, 1, 1, 2, 0, 1],
    )
    assert (quality.num_rows, quality.num_labelled, quality.num_changed) == (7, 6, 4)
    assert quality.label_agreement == pytest.approx(3 / 7)
    assert quality.accuracy_baseline == pytest.approx(4 / 6)
    assert quality.accuracy_candidate == pytest.approx(5 / 6)
    assert quality.accuracy_change == pytest.approx(1 / 6)
    assert quality.num_only_baseline_correct == 1
    assert quality.num_only_candidate_correct == 2
    assert quality.mcnemar_p == 1
    # F1 of the baseline: 1/2, 1/2, 1; of the candidate: 4/5, 1, 2/3.
    assert quality.f1_macro_baseline == pytest.approx(2 / 3)
    assert quality.f1_macro_candidate == pytest.approx((4 / 5 + 1 + 2 / 3) / 3)
    assert [one.label for one in quality.classes_gained] == ["anger", "joy"]
    assert [one.label for one in quality.classes_lost] == ["fear"]
    assert quality.unavailable == {}


def test_identical_predictions_have_no_change(tmp_path: Path) -> None:
    labels: list[int | None] = [0, 1, 2] * 40
    predicted = [0, 1, 0] * 40
    quality = compare(tmp_path, labels, predicted, predicted)
    assert quality.accuracy_change == 0
    assert quality.f1_macro_change == 0
    assert quality.f1_macro_change_ci95 == (0, 0)
    assert quality.accuracy_change_ci95 is not None
    assert quality.accuracy_change_ci95[0] < 0 < quality.accuracy_change_ci95[1]
    assert quality.mcnemar_p == 1
    assert quality.label_agreement == 1
    assert quality.changed_rows == ()


def test_changed_rows_are_those_of_which_both_sides_are_most_confident(tmp_path: Path) -> None:
    num_rows = 60
    generator = np.random.default_rng(0)
    first = generator.uniform(0.4, 1, num_rows).round(4).tolist()
    second = generator.uniform(0.4, 1, num_rows).round(4).tolist()
    quality = compare(
        tmp_path,
        [0] * num_rows,
        [0] * num_rows,
        [row % 2 for row in range(num_rows)],
        baseline_probabilities=first,
        candidate_probabilities=second,
    )
    smaller = {row: min(first[row], second[row]) for row in range(1, num_rows, 2)}
    expected = sorted(smaller, key=lambda row: -smaller[row])[:20]
    assert [row.row_id for row in quality.changed_rows] == expected
    shown = quality.changed_rows[0]
    assert (shown.label_id, shown.predicted_id_baseline, shown.predicted_id_candidate) == (0, 0, 1)
    assert shown.probability_candidate == pytest.approx(second[shown.row_id])
    assert shown.text is None


def test_texts_are_read_on_request_for_the_shown_rows_alone(tmp_path: Path) -> None:
    first = write_predictions(tmp_path / "a", [0, 1, 2], [0, 1, 2])
    second = write_predictions(tmp_path / "b", [0, 1, 2], [0, 0, 2])
    quality = compare_quality(
        first, second, NAMES, read_texts=lambda rows: {row: f"text {row}" for row in rows}
    )
    assert [row.text for row in quality.changed_rows] == ["text 1"]


def test_without_labels_the_predictions_are_compared_and_the_rest_has_a_reason(
    tmp_path: Path,
) -> None:
    quality = compare(tmp_path, [None] * 4, [0, 1, 2, 0], [0, 1, 2, 1])
    assert quality.label_agreement == 0.75
    assert quality.num_labelled == 0
    assert quality.accuracy_change is None
    assert quality.reason("accuracy_change") == "no row has a label on both sides"
    assert quality.changed_rows[0].label_id is None


def test_rows_with_a_label_on_one_side_alone_are_named(tmp_path: Path) -> None:
    first = write_predictions(tmp_path / "a", [0, 1, None, 2], [0, 1, 1, 2])
    second = write_predictions(tmp_path / "b", [0, 1, 2, None], [0, 1, 1, 2])
    quality = compare_quality(first, second, NAMES)
    assert quality.num_labelled == 2
    assert quality.warnings[0].startswith("labels: 2 rows have a label on one side alone")


def test_chunks_of_different_sizes_are_the_same_rows(tmp_path: Path) -> None:
    first = write_predictions(tmp_path / "a", [0] * 10, [0] * 10, chunk_rows=3)
    second = write_predictions(tmp_path / "b", [0] * 10, [0] * 10, chunk_rows=4)
    assert compare_quality(first, second, NAMES).num_rows == 10


def test_other_rows_are_refused(tmp_path: Path) -> None:
    first = write_predictions(tmp_path / "a", [0] * 10, [0] * 10)
    second = write_predictions(tmp_path / "b", [0] * 10, [0] * 10, first_row=2)
    with pytest.raises(UserError, match="2 rows have predictions of the baseline alone"):
        compare_quality(first, second, NAMES)


def test_other_labels_of_the_same_rows_are_refused(tmp_path: Path) -> None:
    first = write_predictions(tmp_path / "a", [0, 1, 2], [0, 1, 2])
    second = write_predictions(tmp_path / "b", [0, 2, 2], [0, 1, 2])
    with pytest.raises(UserError, match="other labels for 1 of 3 rows, the first is row 1"):
        compare_quality(first, second, NAMES)


def test_an_id_without_a_name_is_refused(tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "a", [0, 1], [0, 3])
    with pytest.raises(UserError, match="label id 3, but there are 3 label names"):
        compare_quality(folder, folder, NAMES)


def test_a_folder_without_predictions_is_refused(tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "a", [0], [0])
    with pytest.raises(UserError, match="no stored predictions"):
        compare_quality(folder, tmp_path / "missing", NAMES)


def test_predictions_of_two_evaluations_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "a", [0] * 4, [0] * 4)
    write_predictions(folder, [0] * 2, [0] * 2)
    with pytest.raises(UserError, match="Row 0 has two stored predictions"):
        compare_quality(folder, folder, NAMES)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "a", [0], [0])
    file = next(folder.iterdir())
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be read"):
        compare_quality(folder, folder, NAMES)


def test_a_file_without_a_column_is_refused(tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "a", [0], [0])
    file = next(folder.iterdir())
    pq.write_table(pa.table({"row_id": [0], "label_id": [0]}), file)
    with pytest.raises(UserError, match="lacks the columns predicted_id, predicted_probability"):
        compare_quality(folder, folder, NAMES)
