"""What the stored predictions show beyond accuracy: lengths, calibration, mistakes, confusions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from utils.core.errors import UserError
from utils.core.paths import project_path
from utils.data.reader import file_signature, hash_data, iter_rows
from utils.reporting.results import Results

COLUMNS = ("row_id", "label_id", "predicted_id", "predicted_probability", "num_tokens")
NUM_CALIBRATION_BINS = 10
NUM_MISTAKES = 15
NUM_LENGTH_BINS = 40
LARGEST_TEXT_FILE_BYTES = 500_000_000
"""A larger data set is not read for the texts of mistakes: the page has to be there in seconds."""
BLOCK_ROWS = 8192
NO_LABEL = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthBin:
    """Texts with ``start`` up to, not including, ``stop`` tokens."""

    start: int
    stop: int
    num_rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Tokens of the texts as the model got them, after truncation.

    Args:
        percentiles: tokens by percent of the texts that have at most so many.
    """

    bins: tuple[LengthBin, ...]
    percentiles: dict[int, int]
    longest: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationBin:
    """Labelled rows whose predicted probability lies in one range.

    Args:
        mean_probability: what the model promises.
        accuracy: what it keeps.
    """

    start: float
    stop: float
    num_rows: int
    mean_probability: float
    accuracy: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """A wrong prediction.

    Args:
        text: None where it is not known.
    """

    row_id: int
    label_id: int
    predicted_id: int
    probability: float
    text: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """Rows with one label that got the same prediction."""

    label_id: int
    predicted_id: int
    num_rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionStats:
    """All of it; a part is empty or None where ``reason`` or ``label_reason`` says why.

    Args:
        calibration_error: mean distance of probability and accuracy, weighted by rows (ECE: Guo et
            al., "On Calibration of Modern Neural Networks", 2017).
        confusions: wrong predictions by pair of labels, the most frequent first.
        correct: right predictions by label, the most frequent first.
        reason: why nothing is known.
        label_reason: why nothing is known of what needs labels.
        text_reason: why mistakes have no texts.
    """

    lengths: Lengths | None = None
    calibration: tuple[CalibrationBin, ...] = ()
    calibration_error: float | None = None
    mistakes: tuple[Mistake, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    correct: tuple[Confusion, ...] = ()
    reason: str | None = None
    label_reason: str | None = None
    text_reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Columns:
    """The predictions of all rows, each array of shape ``[rows]``."""

    row_ids: NDArray[np.int64]
    label_ids: NDArray[np.int64]
    predicted_ids: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    num_tokens: NDArray[np.int64]


def read_prediction_stats(results: Results) -> PredictionStats:
    """What the predictions of these results show, or why nothing is known."""
    evaluation = results.evaluation
    if evaluation is None:
        return _without_predictions(results.metrics.not_evaluated)
    try:
        columns = _read_columns(results.files.predictions_dir)
    except (OSError, pa.ArrowException) as error:
        return _without_predictions(f"the predictions cannot be read: {error}")
    if columns is None:
        return _without_predictions("the folder predictions/ has no predictions")
    num_rows = len(columns.row_ids)
    if num_rows != evaluation.num_samples:
        return _without_predictions(
            f"the folder predictions/ has {num_rows:,} rows, the evaluation "
            f"{evaluation.num_samples:,}"
        )
    lengths = _lengths(columns.num_tokens)
    labelled = columns.label_ids >= 0
    if evaluation.accuracy is None or not labelled.any():
        label_reason = evaluation.reason("accuracy") or "no row has a label"
        return PredictionStats(lengths=lengths, label_reason=label_reason)
    calibration = _calibration(columns, labelled)
    wrong = labelled & (columns.label_ids != columns.predicted_ids)
    mistakes, text_reason = _with_texts(results, _mistakes(columns, wrong))
    return PredictionStats(
        lengths=lengths,
        calibration=calibration,
        calibration_error=_calibration_error(calibration),
        mistakes=mistakes,
        confusions=_count_pairs(columns, wrong),
        correct=_count_pairs(columns, labelled & ~wrong),
        text_reason=text_reason,
    )


def _without_predictions(reason: str | None) -> PredictionStats:
    return PredictionStats(reason=reason, label_reason=reason)


def _read_columns(folder: Path) -> _Columns | None:
    files = sorted(folder.glob("*.parquet"))
    if not files:
        return None
    tables = [pq.read_table(file, columns=list(COLUMNS)) for file in files]
    table = pa.concat_tables(tables)
    return _Columns(
        row_ids=_whole_numbers(table, "row_id"),
        label_ids=_whole_numbers(table, "label_id"),
        predicted_ids=_whole_numbers(table, "predicted_id"),
        probabilities=table["predicted_probability"].to_numpy().astype(np.float64),
        num_tokens=_whole_numbers(table, "num_tokens"),
    )


def _whole_numbers(table: pa.Table, name: str) -> NDArray[np.int64]:
    filled = table[name].cast(pa.int64()).fill_null(NO_LABEL)
    return np.asarray(filled.to_numpy(), dtype=np.int64)


def _lengths(num_tokens: NDArray[np.int64]) -> Lengths:
    longest = int(num_tokens.max())
    width = max(1, -(-(longest + 1) // NUM_LENGTH_BINS))
    edges = np.arange(0, longest + width + 1, width)
    counts, _ = np.histogram(num_tokens, bins=edges)
    bins = []
    for start, count in zip(edges[:-1].tolist(), counts.tolist(), strict=True):
        bins.append(LengthBin(start=start, stop=start + width, num_rows=count))
    percentiles = {}
    for percent in (50, 90, 99):
        percentiles[percent] = int(np.percentile(num_tokens, percent))
    return Lengths(bins=tuple(bins), percentiles=percentiles, longest=longest)


def _calibration(columns: _Columns, labelled: NDArray[np.bool_]) -> tuple[CalibrationBin, ...]:
    usable = labelled & np.isfinite(columns.probabilities)
    probabilities = columns.probabilities[usable]
    correct = (columns.label_ids == columns.predicted_ids)[usable]
    positions = np.minimum(
        (probabilities * NUM_CALIBRATION_BINS).astype(int), NUM_CALIBRATION_BINS - 1
    )
    bins = []
    for position in range(NUM_CALIBRATION_BINS):
        chosen = positions == position
        if chosen.any():
            bins.append(
                CalibrationBin(
                    start=position / NUM_CALIBRATION_BINS,
                    stop=(position + 1) / NUM_CALIBRATION_BINS,
                    num_rows=int(chosen.sum()),
                    mean_probability=float(probabilities[chosen].mean()),
                    accuracy=float(correct[chosen].mean()),
                )
            )
    return tuple(bins)


def _calibration_error(bins: Sequence[CalibrationBin]) -> float | None:
    num_rows = sum(item.num_rows for item in bins)
    if not num_rows:
        return None
    total = sum(item.num_rows * abs(item.mean_probability - item.accuracy) for item in bins)
    return total / num_rows


def _mistakes(columns: _Columns, wrong: NDArray[np.bool_]) -> list[Mistake]:
    """The wrong predictions with the highest probability, the first rows first among equals."""
    positions = np.flatnonzero(wrong & np.isfinite(columns.probabilities))
    order = np.argsort(-columns.probabilities[positions], kind="stable")
    mistakes = []
    for position in positions[order[:NUM_MISTAKES]].tolist():
        mistakes.append(
            Mistake(
                row_id=int(columns.row_ids[position]),
                label_id=int(columns.label_ids[position]),
                predicted_id=int(columns.predicted_ids[position]),
                probability=float(columns.probabilities[position]),
            )
        )
    return mistakes


def _count_pairs(columns: _Columns, chosen: NDArray[np.bool_]) -> tuple[Confusion, ...]:
    pairs = np.stack([columns.label_ids[chosen], columns.predicted_ids[chosen]], axis=1)
    if not len(pairs):
        return ()
    unique, counts = np.unique(pairs, axis=0, return_counts=True)
    confusions = []
    for position in np.argsort(-counts, kind="stable").tolist():
        label_id, predicted_id = unique[position].tolist()
        confusions.append(
            Confusion(label_id=label_id, predicted_id=predicted_id, num_rows=int(counts[position]))
        )
    return tuple(confusions)


def _with_texts(
    results: Results, mistakes: Sequence[Mistake]
) -> tuple[tuple[Mistake, ...], str | None]:
    """The mistakes with their texts, or why those are not known."""
    path = project_path(results.metrics.dataset_info.path)
    reason = _why_no_texts(path, results.metrics.run.data_sha256)
    if reason is not None or not mistakes:
        return tuple(mistakes), reason
    wanted = {mistake.row_id for mistake in mistakes}
    try:
        texts = dict(_texts_of(path, wanted))
    except UserError as error:
        return tuple(mistakes), f"the data set cannot be read: {error.what}"
    complete = []
    for mistake in mistakes:
        complete.append(
            Mistake(
                row_id=mistake.row_id,
                label_id=mistake.label_id,
                predicted_id=mistake.predicted_id,
                probability=mistake.probability,
                text=texts.get(mistake.row_id),
            )
        )
    return tuple(complete), None


def _why_no_texts(path: Path, expected_sha256: str) -> str | None:
    signature = file_signature(path)
    if signature is None:
        return f"the data set is no longer at {path}"
    _, num_bytes = signature
    if num_bytes > LARGEST_TEXT_FILE_BYTES:
        return f"the data set is larger than {LARGEST_TEXT_FILE_BYTES / 1e6:,.0f} MB"
    if hash_data(path) != expected_sha256:
        return "the data set has changed since the run"
    return None


def _texts_of(path: Path, row_ids: set[int]) -> Iterator[tuple[int, str]]:
    for rows in iter_rows(path, BLOCK_ROWS, max_rows=max(row_ids) + 1):
        for row_id in row_ids:
            position = row_id - rows.start
            if 0 <= position < len(rows.texts):
                yield row_id, rows.texts[position]
