"""Builders of what the statistics of a comparison are made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from utils.comparison.log_ratio import ProcessValue


def process_values(means: Sequence[float]) -> list[ProcessValue]:
    """One value for each process, with a spread of 1% over ten runs."""
    return [ProcessValue(mean=mean, std=0.01 * mean, num_runs=10) for mean in means]


def write_predictions(
    folder: Path,
    label_ids: Sequence[int | None],
    predicted_ids: Sequence[int],
    *,
    probabilities: Sequence[float] | None = None,
    first_row: int = 0,
    chunk_rows: int = 8192,
) -> Path:
    """A folder of stored predictions in chunks, as step 02 writes it; returns the folder."""
    num_rows = len(predicted_ids)
    table = pa.table(
        {
            "row_id": pa.array(range(first_row, first_row + num_rows), pa.int64()),
            "label_id": pa.array(label_ids, pa.int32()),
            "predicted_id": pa.array(predicted_ids, pa.int32()),
            "predicted_probability": pa.array(probabilities or [0.9] * num_rows, pa.float32()),
            "num_tokens": pa.array([8] * num_rows, pa.int32()),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, num_rows, chunk_rows):
        chunk = table.slice(start, chunk_rows)
        rows = f"{first_row + start:012d}-{first_row + start + len(chunk):012d}"
        pq.write_table(chunk, folder / f"rows-{rows}-0123456789ab.parquet")
    return folder
