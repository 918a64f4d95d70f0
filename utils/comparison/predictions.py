"""Reads the stored predictions of two sides and puts them beside each other, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from utils.core.errors import UserError, reason_of

STEP_COMMAND = "python scripts/02_baseline_inference.py"
FILE_PATTERN = "rows-*.parquet"
ID_COLUMNS = ("row_id", "label_id", "predicted_id")
PROBABILITY_COLUMN = "predicted_probability"
NO_LABEL = -1

Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredPredictions:
    """The predictions of one side in the order of the row ids.

    Args:
        row_ids: shape [rows], ascending, each once.
        label_ids: shape [rows]; -1 where a row has no label.
        predicted_ids: shape [rows].
        probabilities: shape [rows]; of the predicted label.
    """

    row_ids: Ids
    label_ids: Ids
    predicted_ids: Ids
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedPredictions:
    """The predictions of both sides for the same rows.

    ``label_ids`` is -1 where a row has no label on one of the sides;
    ``num_labelled_on_one_side`` counts the rows that have one on the other.
    """

    row_ids: Ids
    label_ids: Ids
    baseline_ids: Ids
    candidate_ids: Ids
    baseline_probabilities: NDArray[np.float64]
    candidate_probabilities: NDArray[np.float64]
    num_labelled_on_one_side: int


def read_predictions(folder: Path) -> StoredPredictions:
    """Read all chunks of a folder of predictions.

    Raises:
        UserError: there are none, a file is damaged, or a row is stored twice.
    """
    files = sorted(folder.glob(FILE_PATTERN))
    if not files:
        raise UserError(
            "There are no stored predictions.", where=folder, fix=f"make them: {STEP_COMMAND}"
        )
    table = pa.concat_tables([_read_file(file) for file in files])
    ids = {name: _to_ids(table[name]) for name in ID_COLUMNS}
    order = np.argsort(ids["row_id"], kind="stable")
    row_ids = ids["row_id"][order]
    if np.any(row_ids[1:] == row_ids[:-1]):
        repeated = row_ids[1:][row_ids[1:] == row_ids[:-1]][0]
        raise UserError(
            f"Row {repeated} has two stored predictions: those of several evaluations are mixed.",
            where=folder,
            fix=f"finish the evaluation, which deletes those of others: {STEP_COMMAND}",
        )
    probabilities = table[PROBABILITY_COLUMN].cast(pa.float64()).to_numpy()
    return StoredPredictions(
        row_ids=row_ids,
        label_ids=ids["label_id"][order],
        predicted_ids=ids["predicted_id"][order],
        # Rounding may leave a softmax of float32 above 1.
        probabilities=np.clip(probabilities[order], 0.0, 1.0),
    )


def _read_file(file: Path) -> pa.Table:
    columns = [*ID_COLUMNS, PROBABILITY_COLUMN]
    try:
        with pq.ParquetFile(file) as source:
            missing = [name for name in columns if name not in source.schema_arrow.names]
            if not missing:
                return source.read(columns=columns)
            problem = f"lacks the columns {', '.join(missing)}"
    except (pa.ArrowException, OSError) as error:
        problem = f"cannot be read: {reason_of(error)}"
    raise UserError(f"{file.name} {problem}.", where=file, fix=f"make it again: {STEP_COMMAND}")


def _to_ids(column: pa.ChunkedArray) -> Ids:
    """Ids as integers; -1 where one is missing."""
    ids: Ids = column.cast(pa.int64()).fill_null(NO_LABEL).to_numpy()
    return np.maximum(ids, NO_LABEL)


def pair_predictions(
    baseline: StoredPredictions, candidate: StoredPredictions, *, where: object = None
) -> PairedPredictions:
    """Put the predictions of the same rows beside each other.

    Args:
        where: what the error messages name as their place.

    Raises:
        UserError: the sides have other rows, or other labels for the same rows.
    """
    _check_rows(baseline.row_ids, candidate.row_ids, where)
    is_labelled = (baseline.label_ids != NO_LABEL) & (candidate.label_ids != NO_LABEL)
    differs = is_labelled & (baseline.label_ids != candidate.label_ids)
    if differs.any():
        raise UserError(
            f"The sides have other labels for {np.count_nonzero(differs):,} of "
            f"{len(differs):,} rows, the first is row {baseline.row_ids[differs][0]}.",
            where=where,
            fix="evaluate both sides on the same data set with the same labels",
        )
    num_known = np.count_nonzero(
        (baseline.label_ids != NO_LABEL) | (candidate.label_ids != NO_LABEL)
    )
    return PairedPredictions(
        row_ids=baseline.row_ids,
        label_ids=np.where(is_labelled, baseline.label_ids, NO_LABEL),
        baseline_ids=baseline.predicted_ids,
        candidate_ids=candidate.predicted_ids,
        baseline_probabilities=baseline.probabilities,
        candidate_probabilities=candidate.probabilities,
        num_labelled_on_one_side=int(num_known - np.count_nonzero(is_labelled)),
    )


def _check_rows(baseline_rows: Ids, candidate_rows: Ids, where: object) -> None:
    if np.array_equal(baseline_rows, candidate_rows):
        return
    only_baseline = np.setdiff1d(baseline_rows, candidate_rows, assume_unique=True)
    only_candidate = np.setdiff1d(candidate_rows, baseline_rows, assume_unique=True)
    raise UserError(
        f"The sides predicted other rows: {len(only_baseline):,} rows have predictions of the "
        f"baseline alone, {len(only_candidate):,} of the candidate alone.",
        where=where,
        fix="evaluate both sides on the same data set with the same evaluation.max_samples",
    )
