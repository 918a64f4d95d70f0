"""What differs is said, and what it makes meaningless is refused, metric by metric."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.comparison.builders import Payload, compare, metric, write_process, write_processes
from tests.reporting.builders import Scenario
from utils.core.errors import UserError
from utils.schema.comparison import Comparison

Change = Callable[[Payload], object]


def compare_with(folder: Path, change: Change, *, gpu: bool = False, force: bool = False):
    """A baseline compared with a candidate that has one change."""
    scenario = Scenario(gpu=gpu)
    before = write_process(folder, "before", scenario=scenario)
    after = write_process(folder, "after", scenario=scenario, change=change)
    return compare(before, after, force=force)


def differences(comparison: Comparison) -> dict[str, tuple[str, str]]:
    return {item.name: (item.baseline, item.candidate) for item in comparison.differences}


def reasons(comparison: Comparison) -> dict[str, str]:
    return {item.metrics: item.reason for item in comparison.refusals}


def test_nothing_differs_between_repeats(tmp_path: Path) -> None:
    comparison = compare_with(tmp_path, lambda payload: None)
    assert comparison.differences == ()
    assert comparison.refusals == ()


def test_what_differs_is_named_with_both_values(tmp_path: Path) -> None:
    def change(payload: Payload) -> None:
        payload["model_info"]["dtype"] = "bfloat16"
        payload["config"]["model"]["dtype"] = "bfloat16"
        payload["config"]["profiling"]["max_length"] = 128
        payload["environment"]["libraries"]["torch"] = "2.13.0"
        payload["environment"]["gpu"]["driver"] = "580.1"
        payload["environment"]["torch"]["num_threads"] = 8

    assert differences(compare_with(tmp_path, change, gpu=True)) == {
        "dtype": ("float32", "bfloat16"),
        "profiling.max_length": ("512", "128"),
        "torch": ("2.6.0", "2.13.0"),
        "driver": ("550.1", "580.1"),
        "num_threads": ("2", "8"),
    }


def test_folders_and_prices_are_no_differences(tmp_path: Path) -> None:
    def change(payload: Payload) -> None:
        payload["config"]["cost"]["gpu_price_per_hour_usd"] = 3.0
        payload["config"]["dataset"]["local_path"] = "elsewhere.csv"

    assert differences(compare_with(tmp_path, change)) == {}


def test_a_setting_that_an_older_file_lacks_had_its_default(tmp_path: Path) -> None:
    def change(payload: Payload) -> None:
        del payload["config"]["evaluation"]["unknown_labels"]

    assert differences(compare_with(tmp_path, change)) == {}


def test_other_data_refuses_what_depends_on_it(tmp_path: Path) -> None:
    def change(payload: Payload) -> None:
        payload["dataset_info"]["sha256"] = "2" * 64

    comparison = compare_with(tmp_path, change)
    assert set(reasons(comparison)) == {
        "all metrics of the batch-size sweep",
        "speed and memory on the complete data set",
        "accuracy, F1 and predictions",
    }
    speed = metric(comparison)
    assert (speed.verdict, speed.effect) == (None, None)
    assert speed.baseline is not None
    assert "other data" in str(speed.reason)
    assert metric(comparison, "load_time_s", batch_size=None, scope="run").verdict is not None
    assert "other data" in str(comparison.quality_reason)


def test_force_shows_what_is_refused_and_marks_it(tmp_path: Path) -> None:
    def change(payload: Payload) -> None:
        payload["dataset_info"]["sha256"] = "2" * 64

    comparison = compare_with(tmp_path, change, force=True)
    speed = metric(comparison)
    assert speed.forced
    assert speed.verdict == "equivalent"
    assert "other data" in str(speed.reason)
    assert all(item.forced for item in comparison.refusals)


def test_another_seed_is_another_sample(tmp_path: Path) -> None:
    def change(payload: Payload) -> None:
        payload["run"]["seed"] = 1

    comparison = compare_with(tmp_path, change)
    assert "another sample of texts: profiling.seed is 0 and 1" in str(metric(comparison).reason)
    assert metric(comparison, scope="evaluation", batch_size=None).verdict == "equivalent"
    assert set(comparison.diagnosis.unavailable) == {"phases", "operators", "kernels", "modules"}


def test_other_labels_refuse_quality_alone(tmp_path: Path) -> None:
    def change(payload: Payload) -> None:
        payload["dataset_info"]["label_names"] = ["music", "games", "books"]

    comparison = compare_with(tmp_path, change)
    assert set(reasons(comparison)) == {"accuracy, F1 and predictions"}
    assert metric(comparison).verdict == "equivalent"


def test_random_weights_refuse_quality_alone(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before")
    after = write_process(tmp_path, "after", scenario=Scenario(dummy_weights=True))
    comparison = compare(before, after)
    assert reasons(comparison) == {
        "accuracy, F1 and predictions": "the weights of the candidate are random (dummy)"
    }


def test_other_rows_refuse_the_evaluation_and_the_quality(tmp_path: Path) -> None:
    def change(payload: Payload) -> None:
        payload["full_dataset_metrics"]["num_samples"] = 1000

    comparison = compare_with(tmp_path, change)
    assert set(reasons(comparison)) == {
        "speed and memory on the complete data set",
        "accuracy, F1 and predictions",
    }
    assert "5,000 and 1,000" in str(comparison.quality_reason)


def test_other_tokens_refuse_tokens_per_second_alone(tmp_path: Path) -> None:
    def change(payload: Payload) -> None:
        payload["full_dataset_metrics"]["num_tokens"] = 200_000

    comparison = compare_with(tmp_path, change)
    assert set(reasons(comparison)) == {"tokens per second"}
    assert metric(comparison, "throughput_tokens_per_sec").verdict is None


def test_energy_of_two_sources_is_not_compared(tmp_path: Path) -> None:
    def set_source(source: str) -> Change:
        def change(payload: Payload) -> None:
            for row in payload["batch_size_profiling"]:
                row["energy_source"] = source

        return change

    scenario = Scenario(gpu=True)
    before = write_process(tmp_path, "before", scenario=scenario, change=set_source("counter"))
    after = write_process(
        tmp_path, "after", scenario=scenario, change=set_source("integrated power")
    )
    comparison = compare(before, after)
    assert reasons(comparison) == {"energy": "measured in two ways: counter and integrated power"}


def test_runs_of_a_side_must_be_repeats(tmp_path: Path) -> None:
    def change(payload: Payload) -> None:
        payload["config"]["profiling"]["max_length"] = 128

    before = write_process(tmp_path, "before")
    mixed = [write_process(tmp_path, "one"), write_process(tmp_path, "two", change=change)]
    with pytest.raises(UserError, match="differ in profiling.max_length: 512, 128") as caught:
        compare(before, mixed)
    assert "--force" in str(caught.value.fix)
    assert "profiling.max_length" in compare(before, mixed, force=True).warnings[0]


def test_repeats_on_another_version_of_a_library_are_a_warning(tmp_path: Path) -> None:
    def change(payload: Payload) -> None:
        payload["environment"]["libraries"]["torch"] = "2.13.0"

    before = write_processes(tmp_path, "before", [1.0, 1.01])
    mixed = [write_process(tmp_path, "one"), write_process(tmp_path, "two", change=change)]
    comparison = compare(before, mixed)
    warning = "comparison: The runs of the candidate differ in torch: 2.6.0, 2.13.0"
    assert warning in comparison.warnings
    assert differences(comparison) == {"torch": ("2.6.0", "2.6.0 | 2.13.0")}


def test_a_sweep_without_the_evaluation_is_a_repeat_of_the_sweep(tmp_path: Path) -> None:
    def leave_out(payload: Payload) -> None:
        payload["config"]["evaluation"]["enabled"] = False
        payload["full_dataset_metrics"] = None

    before = [
        write_process(tmp_path, "complete"),
        write_process(tmp_path, "sweep", change=leave_out),
    ]
    after = write_processes(tmp_path, "after", [1.0, 1.01], change=leave_out)
    comparison = compare(before, after)
    assert comparison.warnings == ()
    assert {item.scope for item in comparison.metrics} == {"sweep", "run"}
    assert comparison.quality is None
