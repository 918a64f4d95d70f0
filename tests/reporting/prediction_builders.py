"""Made-up predictions and their data set, as steps 01 and 02 write them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from utils.core.result_files import ResultFiles


@dataclass(frozen=True, kw_only=True)
class PredictedRow:
    """A row of the data set with its prediction; ``label_id`` is None without a label."""

    label_id: int | None
    predicted_id: int
    probability: float
    num_tokens: int = 7
    text: str = "a text"


def right(label_id: int, probability: float, **fields: int) -> PredictedRow:
    """A row whose prediction is right."""
    return PredictedRow(label_id=label_id, predicted_id=label_id, probability=probability, **fields)


def write_predictions(files: ResultFiles, rows: Sequence[PredictedRow], num_files: int = 2) -> None:
    """The folder of predictions, in ``num_files`` chunks."""
    files.predictions_dir.mkdir(parents=True)
    table = pa.table(
        {
            "row_id": pa.array(range(len(rows)), type=pa.int64()),
            "label_id": pa.array([row.label_id for row in rows], type=pa.int32()),
            "predicted_id": pa.array([row.predicted_id for row in rows], type=pa.int32()),
            "predicted_probability": pa.array([row.probability for row in rows], pa.float32()),
            "num_tokens": pa.array([row.num_tokens for row in rows], type=pa.int32()),
        }
    )
    chunk_rows = -(-len(rows) // num_files)
    for start in range(0, len(rows), chunk_rows):
        file = files.predictions_dir / f"rows-{start:012d}.parquet"
        pq.write_table(table.slice(start, chunk_rows), file)


def write_texts(file: Path, rows: Sequence[PredictedRow]) -> None:
    """The data set that the predictions are of."""
    with file.open("w", encoding="utf-8", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(["text", "labels", "label_id"])
        for row in rows:
            writer.writerow([row.text, "", "" if row.label_id is None else row.label_id])
