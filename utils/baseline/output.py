"""Writes ``baseline_metrics.json`` and ``detailed_metrics.csv``: both or none."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Any

from utils.core.files import atomic_path
from utils.core.result_files import ResultFiles
from utils.schema.baseline import BaselineMetrics, save_baseline_metrics
from utils.schema.batch_size import COLUMNS


def write_results(files: ResultFiles, metrics: BaselineMetrics) -> None:
    """Write the metrics file and the table.

    The table moves into place only once the checked metrics file is there.

    Raises:
        ValidationError: a value is impossible.
        UserError: a file cannot be written.
    """
    with (
        atomic_path(files.detailed_metrics) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as out,
    ):
        table = csv.writer(out, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in metrics.batch_size_profiling:
            table.writerow([_cell(value) for value in row.to_dict().values()])
        out.flush()
        save_baseline_metrics(files.metrics, metrics)


def _cell(value: Any) -> Any:
    """The value as a cell: several warnings are one cell, and None is an empty one."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(map(str, value))
    return value
