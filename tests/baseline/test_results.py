"""The records of a real small run: complete, strict, and written both or not at all."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from tests import support
from utils.baseline.assemble import build_metrics, check_labels
from utils.baseline.output import write_results
from utils.baseline.sweep import measure_sweep
from utils.core.errors import ModelError
from utils.core.files import METRICS_SCHEMA
from utils.core.result_files import ResultFiles
from utils.data.dataset_settings import DatasetSettings
from utils.data.labels import LabelMapping
from utils.data.prepared import check_prepared_data
from utils.data.reader import hash_data
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.evaluation.runner import evaluate_dataset
from utils.model_utils import load_model, model_labels
from utils.schema.baseline import BaselineMetrics, load_baseline_metrics
from utils.schema.batch_size import COLUMNS
from utils.schema.common import NO_REASON, MeasuredRecord, nullable_metrics
from utils.schema.run import GpuInfo
from utils.schema.warning_codes import WarningCode
from utils.system.environment import DRIVER_SETTINGS

SCHEMA = json.loads(METRICS_SCHEMA.read_text())
OF_STEP_01 = WarningCode.DATA.warn("2 of 60 texts are empty or missing")


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> BaselineMetrics:
    config = support.small_config(tmp_path_factory.mktemp("baseline"), tiny_model)
    loaded = load_model(config)
    prepared = check_prepared_data(DatasetSettings.of(config), model_labels(config))
    info = prepared.info.model_copy(update={"warnings": (OF_STEP_01,)})
    prepared = replace(prepared, info=info)
    sweep = measure_sweep(loaded, config, hash_data(config.data_file))
    evaluation = evaluate_dataset(
        loaded, EvaluationSettings.of(config), data_sha256=hash_data(config.data_file)
    )
    return build_metrics(config, loaded, prepared, sweep, evaluation, started=0.0)


@pytest.fixture
def files(tmp_path: Path) -> ResultFiles:
    return support.load_config(overrides=support.small_overrides(tmp_path, tmp_path)).files


def test_the_file_fits_the_published_schema_and_loads_again(
    metrics: BaselineMetrics, files: ResultFiles
) -> None:
    write_results(files, metrics)
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(files.metrics.read_text()), SCHEMA)
    assert load_baseline_metrics(files.metrics) == metrics


def test_what_step_01_noticed_stands_beside_the_results(metrics: BaselineMetrics) -> None:
    assert OF_STEP_01 in metrics.run.warnings


def test_every_metric_that_is_null_has_its_reason(metrics: BaselineMetrics) -> None:
    records: list[MeasuredRecord] = [
        *metrics.batch_size_profiling,
        metrics.full_dataset_metrics,
        *metrics.full_dataset_metrics.workers,
        metrics.measurement,
        *metrics.measurement.sample_dependence,
    ]
    for record in records:
        missing = [name for name in nullable_metrics(type(record)) if getattr(record, name) is None]
        reasons = record.model_dump()["unavailable"]
        assert set(reasons) == set(missing), type(record)
        assert NO_REASON not in reasons.values()


@pytest.mark.parametrize("key", SCHEMA["required"])
def test_every_part_is_required_in_what_is_written(metrics: BaselineMetrics, key: str) -> None:
    payload = metrics.to_dict()
    del payload[key]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(payload, SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("more",), 1),
        (("full_dataset_metrics", "accuracy"), 1.5),
        (("full_dataset_metrics", "inference_time_s"), None),
        (("model_info", "weights"), "random"),
        (("batch_size_profiling", 0, "status"), "maybe"),
        (("batch_size_profiling", 0, "latency_total_s_mean"), -1),
        (("measurement", "rounds", 0, "order"), [[0]]),
        (("run", "data_sha256"), "abc"),
        (("units", "accuracy"), 3),
    ],
)
def test_an_impossible_value_is_refused(
    metrics: BaselineMetrics, path: tuple[Any, ...], value: Any
) -> None:
    payload = metrics.to_dict()
    target: Any = payload
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(payload, SCHEMA)
    with pytest.raises(ValidationError):
        BaselineMetrics.model_validate_json(json.dumps(payload))


def test_the_table_has_an_empty_cell_for_what_was_not_measured(
    metrics: BaselineMetrics, files: ResultFiles
) -> None:
    first, *others = metrics.batch_size_profiling
    changes = {"gpu_power_w_mean": None, "warnings": ("one", "two, and a half")}
    changed = metrics.model_copy(
        update={"batch_size_profiling": (first.model_copy(update=changes), *others)}
    )
    write_results(files, changed)
    with files.detailed_metrics.open(encoding="utf-8", newline="") as source:
        head, row, *_ = csv.reader(source)
    assert tuple(head) == COLUMNS
    cells = dict(zip(head, row, strict=True))
    assert (cells["gpu_power_w_mean"], cells["warnings"]) == ("", "one; two, and a half")


def test_an_impossible_record_replaces_nothing(
    metrics: BaselineMetrics, files: ResultFiles
) -> None:
    write_results(files, metrics)
    before = files.metrics.read_bytes(), files.detailed_metrics.read_bytes()
    first, *others = metrics.batch_size_profiling
    wrong = first.model_copy(update={"num_runs": -1})
    changed = metrics.model_copy(update={"batch_size_profiling": (wrong, *others)})
    with pytest.raises(ValidationError):
        write_results(files, changed)
    assert (files.metrics.read_bytes(), files.detailed_metrics.read_bytes()) == before


def test_the_record_of_a_gpu_has_a_field_for_each_setting_of_the_driver() -> None:
    assert set(DRIVER_SETTINGS) <= set(GpuInfo.model_fields)


def test_label_counts_must_agree() -> None:
    loaded: Any = SimpleNamespace(info=SimpleNamespace(num_labels=2, name="m"))
    with pytest.raises(ModelError, match="2 labels, the data set 3"):
        check_labels(loaded, LabelMapping(names=support.LABELS))
