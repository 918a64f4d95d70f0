"""The schema of the metrics file is strict, and a real payload fits it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from tests import support
from utils import baseline
from utils.core.errors import ModelError
from utils.core.files import METRICS_SCHEMA
from utils.data.labels import LabelMapping
from utils.data.prepared import check_prepared_data
from utils.data.reader import hash_data
from utils.evaluation.runner import evaluate_dataset
from utils.model_utils import load_model, model_labels
from utils.reporting.evaluation_facts import evaluation_lines
from utils.sweep.records import COLUMNS

SCHEMA = json.loads(METRICS_SCHEMA.read_text())


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Any]:
    config = support.small_config(tmp_path_factory.mktemp("baseline"), tiny_model)
    loaded = load_model(config)
    prepared = check_prepared_data(config, model_labels(config))
    sweep = baseline.measure_sweep(loaded, config, hash_data(config.data_file))
    evaluation = evaluate_dataset(loaded, config, data_sha256=hash_data(config.data_file))
    return baseline.build_metrics(config, loaded, prepared, sweep, evaluation, started=0.0)


def test_a_real_payload_fits_the_schema(payload: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(json.dumps(payload)), SCHEMA)


@pytest.mark.parametrize("key", SCHEMA["required"])
def test_every_part_is_required(payload: dict[str, Any], key: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({name: value for name, value in payload.items() if name != key}, SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("more",), 1),
        (("schema_version",), 1),
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
def test_what_does_not_fit_is_refused(
    payload: dict[str, Any], path: tuple[Any, ...], value: Any
) -> None:
    changed = copy.deepcopy(payload)
    target: Any = changed
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed, SCHEMA)


def test_the_schema_asks_for_every_column_of_the_table() -> None:
    row = SCHEMA["properties"]["batch_size_profiling"]["items"]
    assert sorted(row["required"]) == sorted([*COLUMNS, "sample_size"])


def test_not_measured_is_null_and_not_left_out(payload: dict[str, Any]) -> None:
    changed = copy.deepcopy(payload)
    changed["full_dataset_metrics"].update(accuracy=None, f1_macro=None, per_class=None)
    changed["optimal_batch_size"] = None
    jsonschema.validate(changed, SCHEMA)
    del changed["full_dataset_metrics"]["accuracy"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed, SCHEMA)


def test_every_metric_of_the_table_has_a_unit(payload: dict[str, Any]) -> None:
    words = {"status", "energy_source", "stable", "warnings"}
    assert set(COLUMNS) - words <= set(payload["units"])


def test_an_empty_cell_is_not_measured(tmp_path: Path, payload: dict[str, Any]) -> None:
    changed = copy.deepcopy(payload)
    row = changed["batch_size_profiling"][0]
    row.update(gpu_power_w_mean=None, warnings=["one", "two, and a half"])
    config = support.load_config(overrides=support.small_overrides(tmp_path, tmp_path))
    baseline.write_results(config, changed)
    head, first, *_ = config.files.detailed_metrics.read_text().splitlines()
    assert head.split(",") == list(COLUMNS)
    assert first.endswith('"one; two, and a half"')
    assert (
        json.loads(config.files.metrics.read_text())["batch_size_profiling"][0]["gpu_power_w_mean"]
        is None
    )


def test_a_payload_that_does_not_fit_replaces_nothing(
    tmp_path: Path, payload: dict[str, Any]
) -> None:
    config = support.load_config(overrides=support.small_overrides(tmp_path, tmp_path))
    baseline.write_results(config, payload)
    before = config.files.metrics.read_bytes(), config.files.detailed_metrics.read_bytes()
    changed = copy.deepcopy(payload)
    changed["batch_size_profiling"][0]["status"] = "maybe"
    with pytest.raises(jsonschema.ValidationError):
        baseline.write_results(config, changed)
    assert (config.files.metrics.read_bytes(), config.files.detailed_metrics.read_bytes()) == before


def test_label_counts_must_agree() -> None:
    loaded: Any = SimpleNamespace(info=SimpleNamespace(num_labels=2, name="m"))
    with pytest.raises(ModelError, match="2 labels, the data set 3"):
        baseline.check_labels(loaded, LabelMapping(names=support.LABELS))


@pytest.mark.parametrize(("labelled", "reason"), [(None, "dummy weights"), (0, "no labels")])
def test_the_block_says_why_there_is_no_accuracy(
    payload: dict[str, Any], labelled: int | None, reason: str
) -> None:
    metrics = {
        **payload["full_dataset_metrics"],
        "accuracy": None,
        "f1_macro": None,
        "num_labelled": labelled,
    }
    assert f"Accuracy: not measured ({reason})" in evaluation_lines(metrics)
