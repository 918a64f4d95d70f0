"""Made-up results of processes that differ by a known factor. Nothing in them was measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.reporting.builders import Scenario, write_results
from utils.comparison.compare import ComparisonOptions, compare_sides
from utils.schema.comparison import Comparison, MetricComparison, Scope

TIMES = ("latency_", "tokenize_ms", "host_to_device_ms", "forward_ms", "device_to_host_ms")
RATES = ("throughput_",)
Payload = dict[str, Any]
LABELS = ("books", "games", "music")
NUM_ROWS = 300


def write_process(
    folder: Path,
    name: str,
    *,
    slowdown: float = 1.0,
    scenario: Scenario | None = None,
    change: Callable[[Payload], object] | None = None,
) -> Path:
    """Write the results of one process, whose batch sizes were all stable.

    Args:
        name: of the folder, and the run's id.
        slowdown: every time is longer by this factor, every rate lower.
        change: changes the content of ``baseline_metrics.json``.
    """
    results = folder / name
    results.mkdir(parents=True)
    write_results(results, scenario or Scenario())
    file = results / "baseline_metrics.json"
    payload = json.loads(file.read_text())
    payload["run"]["id"] = name
    for record in (*payload["batch_size_profiling"], payload["full_dataset_metrics"]):
        slow_down(record, slowdown)
    for row in payload["batch_size_profiling"]:
        if row["status"] == "ok":
            row["stable"] = True
    if change is not None:
        change(payload)
    file.write_text(json.dumps(payload))
    return results


def slow_down(record: Payload, factor: float) -> None:
    """Multiply the times of a record, and divide its rates."""
    for key, value in record.items():
        if not isinstance(value, float):
            continue
        if key.startswith(TIMES):
            record[key] = value * factor
        elif key.startswith(RATES):
            record[key] = value / factor


def write_processes(
    folder: Path, name: str, slowdowns: Sequence[float], **options: Any
) -> list[Path]:
    """Write one process for each slow-down."""
    paths = []
    for number, slowdown in enumerate(slowdowns):
        paths.append(write_process(folder, f"{name}{number}", slowdown=slowdown, **options))
    return paths


def compare(
    baseline: Sequence[Path] | Path, candidate: Sequence[Path] | Path, **options: Any
) -> Comparison:
    """Compare two sides; a single path is a side of one process."""
    sides = []
    for side in (baseline, candidate):
        sides.append([side] if isinstance(side, Path) else list(side))
    return compare_sides(sides[0], sides[1], ComparisonOptions(**options))


def metric(
    comparison: Comparison,
    name: str = "throughput_samples_per_sec",
    *,
    batch_size: int | None = 8,
    scope: Scope = "sweep",
) -> MetricComparison:
    """One compared metric."""
    [item] = [
        item
        for item in comparison.metrics
        if (item.scope, item.metric, item.batch_size) == (scope, name, batch_size)
    ]
    return item


def write_predictions(results: Path, predicted_ids: np.ndarray, label_ids: np.ndarray) -> None:
    """Write predictions beside the metrics of a process, and their accuracy into the metrics."""
    folder = results / "predictions"
    folder.mkdir(exist_ok=True)
    count = len(label_ids)
    table = pa.table(
        {
            "row_id": pa.array(range(count), pa.int64()),
            "label_id": pa.array(label_ids, pa.int32()),
            "predicted_id": pa.array(predicted_ids, pa.int32()),
            "predicted_probability": pa.array(np.linspace(0.4, 0.99, count), pa.float32()),
            "num_tokens": pa.array([7] * count, pa.int32()),
        }
    )
    pq.write_table(table, folder / f"rows-{0:012d}-{count:012d}-0123456789ab.parquet")
    file = results / "baseline_metrics.json"
    payload = json.loads(file.read_text())
    payload["full_dataset_metrics"]["num_samples"] = count
    payload["full_dataset_metrics"]["num_labelled"] = count
    payload["full_dataset_metrics"]["accuracy"] = float(np.mean(predicted_ids == label_ids))
    file.write_text(json.dumps(payload))
