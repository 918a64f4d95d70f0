"""Each metric of two sides gets a ratio and a verdict in its own words."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from tests.comparison.builders import Payload, compare, metric, write_process, write_processes
from tests.reporting.builders import Scenario
from utils.comparison.metric_comparison import OTHER_ALPHA, SPEED_ALPHA
from utils.core.files import PROJECT_ROOT
from utils.schema.comparison import Comparison, load_comparison, save_comparison

NOISE = (0.99, 1.0, 1.012)
SPEED_METRICS = (
    "throughput_samples_per_sec",
    "latency_per_sample_ms",
    "latency_per_batch_ms",
    "throughput_tokens_per_sec",
    "latency_per_batch_ms_p95",
)


def verdicts(comparison: Comparison) -> set[str | None]:
    return {item.verdict for item in comparison.metrics}


def test_identical_sides_are_equivalent_with_a_ratio_of_exactly_1(tmp_path: Path) -> None:
    before = write_processes(tmp_path, "before", NOISE)
    after = write_processes(tmp_path, "after", NOISE)
    comparison = compare(before, after)
    ratios = {item.effect.ratio for item in comparison.metrics if item.effect is not None}
    assert ratios == {1.0}
    assert verdicts(comparison) == {"equivalent", None}


@pytest.mark.parametrize(("slowdown", "verdict"), [(1.25, "slower"), (0.8, "faster")])
def test_a_change_of_a_quarter_is_found_in_every_metric_of_speed(
    tmp_path: Path, slowdown: float, verdict: str
) -> None:
    before = write_processes(tmp_path, "before", NOISE)
    after = write_processes(tmp_path, "after", [slowdown * noise for noise in (0.995, 1.01, 1.0)])
    comparison = compare(before, after)
    for name in SPEED_METRICS:
        for batch_size in (1, 4, 8, 16, 32, 64):
            assert metric(comparison, name, batch_size=batch_size).verdict == verdict
    speed = metric(comparison)
    assert speed.effect is not None and speed.effect.ci95 is not None
    assert speed.effect.ci95[0] < 1 / slowdown < speed.effect.ci95[1]
    assert speed.effect.interval_from == "processes"


def test_equal_sides_are_not_called_different(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(5):
        folder = tmp_path / str(number)
        before = write_processes(folder, "before", np.exp(random.normal(0, 0.05, 3)))
        after = write_processes(folder, "after", np.exp(random.normal(0, 0.05, 3)))
        assert verdicts(compare(before, after)) <= {"equivalent", "inconclusive", None}


def test_the_levels_of_all_verdicts_add_up_to_5_percent(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before")
    comparison = compare(before, write_process(tmp_path, "after"))
    assert comparison.alpha == SPEED_ALPHA + OTHER_ALPHA == pytest.approx(0.05)


def test_one_process_a_side_takes_the_spread_of_its_kind_of_device(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before")
    comparison = compare(before, write_process(tmp_path, "after", slowdown=1.1))
    speed = metric(comparison)
    assert speed.verdict == "inconclusive"
    assert speed.effect is not None and speed.effect.interval_from == "process_spread"
    assert speed.decision is not None and speed.decision.smallest_detectable is not None
    assert speed.decision.smallest_detectable > 0.3
    assert metric(comparison, "padding_fraction").verdict == "equivalent"


def test_the_configured_spread_is_used_instead(tmp_path: Path) -> None:
    def set_spread(payload: Payload) -> None:
        payload["config"]["profiling"]["process_spread"] = 0.005

    before = write_process(tmp_path, "before", change=set_spread)
    comparison = compare(before, write_process(tmp_path, "after", slowdown=1.2, change=set_spread))
    assert metric(comparison).verdict == "slower"


def test_one_process_on_a_gpu_shows_nothing(tmp_path: Path) -> None:
    scenario = Scenario(gpu=True)
    before = write_process(tmp_path, "before", scenario=scenario)
    after = write_process(tmp_path, "after", slowdown=3.0, scenario=scenario)
    speed = metric(compare(before, after))
    assert speed.verdict == "inconclusive"
    assert speed.decision is not None and "process_spread" in speed.decision.reason


def test_amounts_are_less_or_more(tmp_path: Path) -> None:
    def halve(payload: Payload) -> None:
        for row in payload["batch_size_profiling"]:
            row["peak_gpu_mem"] /= 2
            row["padding_fraction"] *= 1.5

    scenario = Scenario(gpu=True)
    before = write_processes(tmp_path, "before", NOISE, scenario=scenario)
    after = write_processes(tmp_path, "after", NOISE, scenario=scenario, change=halve)
    comparison = compare(before, after)
    assert metric(comparison, "peak_gpu_mem").verdict == "less"
    assert metric(comparison, "padding_fraction").verdict == "more"


def test_batch_sizes_that_one_side_did_not_finish_are_listed(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before", scenario=Scenario(batch_sizes=(1, 4, 8, 16)))
    after = write_process(
        tmp_path, "after", scenario=Scenario(batch_sizes=(4, 8, 16, 32), out_of_memory=(16, 32))
    )
    comparison = compare(before, after)
    changes = [
        (item.batch_size, item.baseline, item.candidate) for item in comparison.status_changes
    ]
    assert changes == [
        (1, "ok", "not measured"),
        (16, "ok", "oom"),
        (32, "not measured", "not_tried"),
    ]
    assert {item.batch_size for item in comparison.metrics} == {4, 8, None}


def test_sides_without_a_finished_batch_size_are_compared_on_the_rest(tmp_path: Path) -> None:
    scenario = Scenario(batch_sizes=(1, 4), out_of_memory=(1, 4), has_diagnosis=False)
    comparison = compare(
        write_process(tmp_path, "before", scenario=scenario),
        write_process(tmp_path, "after", scenario=scenario),
    )
    assert {item.scope for item in comparison.metrics} == {"evaluation", "run"}
    assert verdicts(comparison) <= {"equivalent", "inconclusive", None}


def test_single_runs_and_no_variance_are_never_significant(tmp_path: Path) -> None:
    def keep_one_run(payload: Payload) -> None:
        for row in payload["batch_size_profiling"]:
            row["num_runs"] = 1
            for name in [key for key in row if key.endswith("_std")]:
                row[name] = None

    before = write_processes(tmp_path, "before", [1.0, 1.0], change=keep_one_run)
    after = write_processes(tmp_path, "after", [1.5, 1.5], change=keep_one_run)
    several = compare(before, after)
    assert metric(several).verdict == "inconclusive"
    assert metric(compare(before[0], after[0])).verdict == "inconclusive"


def test_unequal_numbers_of_processes_are_compared(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before")
    after = write_processes(tmp_path, "after", [2.0, 2.02, 1.99, 2.01])
    speed = metric(compare(before, after))
    assert speed.verdict == "slower"
    assert speed.effect is not None
    assert (speed.effect.num_baseline, speed.effect.num_candidate) == (1, 4)


def test_a_value_that_one_side_lacks_has_its_reason(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before", scenario=Scenario(gpu=True))
    comparison = compare(before, write_process(tmp_path, "after"))
    memory = metric(comparison, "peak_gpu_mem")
    assert (memory.candidate, memory.verdict) == (None, None)
    assert memory.reason == "not measured in the candidate: the model is on the CPU"


def test_the_record_survives_its_file(tmp_path: Path) -> None:
    before = write_processes(tmp_path, "before", NOISE)
    after = write_processes(tmp_path, "after", [0.9, 0.91, 0.92])
    comparison = compare(before, after, fail_if=("throughput<-5%",))
    save_comparison(tmp_path / "comparison.json", comparison)
    assert load_comparison(tmp_path / "comparison.json") == comparison


def test_the_file_fits_its_published_schema(tmp_path: Path) -> None:
    before = write_processes(tmp_path, "before", NOISE, scenario=Scenario(gpu=True))
    after = write_processes(tmp_path, "after", NOISE, scenario=Scenario(gpu=True))
    comparison = compare(before, after, fail_if=("throughput<-5%", "accuracy<-1pp"))
    save_comparison(tmp_path / "comparison.json", comparison)
    payload = json.loads((tmp_path / "comparison.json").read_text())
    schema = json.loads((PROJECT_ROOT / "configs" / "comparison.schema.json").read_text())
    jsonschema.validate(payload, schema)
    assert payload["schema_version"] == 1
