"""Whole made-up results of a run, as steps 02 and 03 write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.reporting import diagnosis_builders as diagnosis
from tests.reporting import metrics_builders as metrics
from utils.baseline.assemble import NOT_EVALUATED
from utils.config_loader import Config, load_config
from utils.reporting.results import Results
from utils.schema.baseline import BASELINE_VERSION, BaselineMetrics, save_baseline_metrics
from utils.schema.diagnosis import save_diagnosis


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is particular about the results of a test.

    Args:
        out_of_memory: batch sizes that were not measured: the smallest one did not fit, the others
            were not tried.
        sections: replaces keys in sections of ``baseline_metrics.json``.
    """

    gpu: bool = False
    dummy_weights: bool = False
    has_diagnosis: bool = True
    has_evaluation: bool = True
    batch_sizes: tuple[int, ...] = (1, 4, 8, 16, 32, 64)
    out_of_memory: tuple[int, ...] = ()
    labels: tuple[str, ...] = ("books", "games", "music")
    sample_sizes: tuple[int, ...] = (100,)
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def device(self) -> str:
        return "cuda:0" if self.gpu else "cpu"


def write_results(folder: Path, scenario: Scenario | None = None) -> Config:
    """Write the files of steps 02 and 03 under ``folder``; return the config that points there."""
    scenario = scenario or Scenario()
    config = load_config(
        "configs/config.yaml",
        [f"output.results_dir={folder}", f"dataset.local_path={folder / 'data.csv'}"],
    )
    files = config.files
    rows = _build_rows(scenario)
    save_baseline_metrics(files.metrics, _build_metrics(scenario, rows, config))
    # Step 04 names this table, but does not read it.
    files.detailed_metrics.touch()
    if scenario.has_diagnosis:
        save_diagnosis(files.bottlenecks, diagnosis.build_diagnosis(rows, scenario.device))
        diagnosis.write_traces(files, gpu=scenario.gpu)
    return config


def _build_rows(scenario: Scenario) -> list[dict[str, Any]]:
    rows = []
    for sample_size in scenario.sample_sizes:
        for batch_size in scenario.batch_sizes:
            if batch_size not in scenario.out_of_memory:
                row = metrics.build_row(batch_size, gpu=scenario.gpu, sample_size=sample_size)
            else:
                was_tried = batch_size == min(scenario.out_of_memory)
                status = "oom" if was_tried else "not_tried"
                row = metrics.build_unmeasured_row(batch_size, sample_size, status)
            rows.append(row)
    return rows


def _build_metrics(
    scenario: Scenario, rows: list[dict[str, Any]], config: Config
) -> BaselineMetrics:
    evaluation = metrics.build_evaluation(
        scenario.labels, gpu=scenario.gpu, dummy_weights=scenario.dummy_weights
    )
    payload: dict[str, Any] = {
        "schema_version": BASELINE_VERSION,
        "run": metrics.build_run(evaluation["warnings"], dummy_weights=scenario.dummy_weights),
        "environment": metrics.build_environment(gpu=scenario.gpu),
        "config": config.to_dict(),
        "model_info": metrics.build_model_info(
            len(scenario.labels), device=scenario.device, dummy_weights=scenario.dummy_weights
        ),
        "dataset_info": metrics.build_dataset_info(scenario.labels),
        "batch_size_profiling": rows,
        "optimal_batch_size": metrics.choose_optimal(rows),
        "full_dataset_metrics": evaluation,
        "first_inference_ms": 73.2,
        "measurement": metrics.build_measurement(rows, gpu=scenario.gpu),
        "units": {},
    }
    if not scenario.has_evaluation:
        payload["full_dataset_metrics"] = None
        payload["unavailable"] = {"full_dataset_metrics": NOT_EVALUATED}
    for name, values in scenario.sections.items():
        payload[name] |= values
    # As JSON, whose lists fit the strict tuples of the records.
    return BaselineMetrics.model_validate_json(json.dumps(payload))


def with_rows(results: Results, **changes: Any) -> Results:
    """The results with changes in every row of the sweep."""
    (sweep,) = results.sweeps
    rows = tuple(row.model_copy(update=changes) for row in sweep.rows)
    return replace(results, sweeps=(replace(sweep, rows=rows),))
