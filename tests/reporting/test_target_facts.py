"""Targets and costs in the text report: what is met, missed, undecided or not measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.builders import Scenario, write_results
from utils.config_loader import load_config
from utils.core.errors import ConfigError
from utils.reporting.cost_facts import cost_facts
from utils.reporting.results import Results, read_results, with_report_settings
from utils.reporting.target_facts import TARGET_UNITS, compare_targets, target_facts
from utils.reporting.text_report import render_text_report
from utils.settings import TargetsConfig


def results_with(
    folder: Path, *, cost: Mapping[str, Any] | None = None, **targets: float
) -> Results:
    results = read_results(write_results(folder).files)
    return with_report_settings(results, {"cost": dict(cost or {}), "targets": dict(targets)})


def with_evaluation(results: Results, **changes: Any) -> Results:
    evaluation = results.metrics.full_dataset_metrics
    assert evaluation is not None
    changed = evaluation.model_copy(update=changes)
    metrics = results.metrics.model_copy(update={"full_dataset_metrics": changed})
    return replace(results, metrics=metrics)


def test_every_metric_of_the_settings_is_compared() -> None:
    assert set(TARGET_UNITS) == set(TargetsConfig.model_fields)


def test_lower_is_better_for_times_and_higher_for_rates(tmp_path: Path) -> None:
    results = results_with(tmp_path, latency_per_sample_ms=50, throughput_samples_per_sec=100)
    fast = with_evaluation(results, latency_per_sample_ms=8.0, throughput_samples_per_sec=125.0)
    slow = with_evaluation(results, latency_per_sample_ms=80.0, throughput_samples_per_sec=12.5)
    assert [item.status for item in compare_targets(fast)] == ["met", "met"]
    assert [item.status for item in compare_targets(slow)] == ["missed", "missed"]


def test_an_interval_that_includes_the_target_decides_nothing(tmp_path: Path) -> None:
    results = with_evaluation(
        results_with(tmp_path, accuracy=0.92),
        accuracy=0.93,
        accuracy_ci95_low=0.91,
        accuracy_ci95_high=0.95,
    )
    [item] = compare_targets(results)
    assert item.status == "undecided"
    [fact] = target_facts(results)
    assert fact.text == (
        "undecided: 0.930 (95% interval 0.910 to 0.950); target at least 0.92, "
        "which the interval includes"
    )


def test_what_was_not_measured_has_its_reason(tmp_path: Path) -> None:
    [item] = compare_targets(results_with(tmp_path, gpu_util=80))
    assert (item.status, item.value) == ("not measured", None)


def test_sections_stand_in_the_report_where_something_is_set(tmp_path: Path) -> None:
    plain = render_text_report(results_with(tmp_path))
    assert "\nTargets\n" not in plain and "\nCost\n" not in plain
    cost = {"gpu_price_per_hour_usd": 3.6}
    text = render_text_report(results_with(tmp_path, cost=cost, accuracy=0.5))
    assert "\nTargets\n" in text and "\nCost\n" in text


def test_cost_counts_every_gpu_of_the_evaluation(tmp_path: Path) -> None:
    config = write_results(tmp_path, Scenario(gpu=True))
    settings = {"cost": {"gpu_price_per_hour_usd": 3.6}, "targets": {}}
    results = with_report_settings(read_results(config.files), settings)
    # A million texts at 1,000 a second take 1,000 s, at 0.001 USD each, on both GPUs.
    two = with_evaluation(results, throughput_samples_per_sec=1000.0, num_workers=2)
    assert cost_facts(two)[0].text == "2 USD for a million texts"


def test_bad_targets_are_refused() -> None:
    with pytest.raises(ConfigError, match="targets.acuracy"):
        load_config("configs/config.yaml", ["targets.acuracy=0.9"])
    with pytest.raises(ConfigError, match=r"targets\.accuracy"):
        load_config("configs/config.yaml", ["targets.accuracy=92"])
