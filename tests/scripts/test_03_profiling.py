"""Step 03 for real, on the tiny model."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests import support
from utils.config_loader import Config
from utils.diagnosis import layers, operators
from utils.diagnosis.headline import rank
from utils.pipeline import steps
from utils.schema.diagnosis import Diagnosis, load_diagnosis

SCRIPT = "scripts/03_detailed_profiling.py"


@dataclass(frozen=True, kw_only=True)
class FinishedStep:
    """Step 03 after it has run with ``--verify`` on batches of 1 and 4, without a sweep."""

    config: Config
    process: subprocess.CompletedProcess[str]

    @property
    def diagnosis(self) -> Diagnosis:
        return load_diagnosis(self.config.files.bottlenecks)

    @property
    def trace_events(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]]
        events = json.loads(self.config.files.trace.read_text())["traceEvents"]
        return events


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> FinishedStep:
    folder = tmp_path_factory.mktemp("step_03")
    # Compiled already: nothing suggests it, so that no test waits for a compiler.
    compiled = "evaluation.compile=true"
    config = support.small_config(folder, tiny_model, compiled)
    overrides = [*support.small_overrides(folder, tiny_model), compiled]
    done = support.run_script(SCRIPT, *support.set_flags(overrides), "--verify")
    assert done.returncode == 0, done.stderr
    return FinishedStep(config=config, process=done)


def test_the_terminal_shows_the_verdict_and_what_was_tried(finished: FinishedStep) -> None:
    shown = finished.process.stdout
    assert "BOTTLENECK ANALYSIS\n" + "=" * 70 in shown
    in_one_line = " ".join(shown.split())
    assert finished.diagnosis.main_bottleneck in in_one_line
    tried = [one.verification for one in finished.diagnosis.all_suggestions if one.setting]
    measured = [one for one in tried if one is not None and one.reason is None]
    assert in_one_line.count(", measured ") == len(measured)


def test_a_missing_sweep_is_named_and_nothing_else_is_reported(finished: FinishedStep) -> None:
    assert "python scripts/02_baseline_inference.py" in finished.process.stderr
    assert "USDT" not in finished.process.stderr, "lines of the tracing library"


def test_each_batch_size_has_a_verdict_with_its_evidence(finished: FinishedStep) -> None:
    diagnosis = finished.diagnosis
    assert (diagnosis.schema_version, diagnosis.device, diagnosis.dtype) == (3, "cpu", "float32")
    assert [size.batch_size for size in diagnosis.batch_sizes] == [1, 4]
    for size in diagnosis.batch_sizes:
        assert size.sentence and size.rule and size.confidence is not None
        assert size.threshold is not None and size.threshold > 0
        assert 0 < size.roofline_ms <= size.measured_ms
        assert size.padding_fraction is not None and 0 <= size.padding_fraction < 1
        assert size.evidence.flops > 0 and size.evidence.unknown_operators == ()


def test_what_is_not_measured_has_its_reason(finished: FinishedStep) -> None:
    diagnosis = finished.diagnosis
    assert diagnosis.kernels is None
    assert diagnosis.reason("kernels") == "no GPU was used"
    assert diagnosis.ceilings.reason("tf32_matmul_flops_per_s") is not None
    for size in diagnosis.batch_sizes:
        assert size.evidence.reason("device_busy_ms") == "no GPU was used"
    assert not finished.config.files.kernels.exists()


def test_what_is_worth_a_try_comes_first_and_three_settings_are_tried(
    finished: FinishedStep,
) -> None:
    diagnosis = finished.diagnosis
    assert 1 <= len(diagnosis.suggestions) <= 3
    suggestions = list(diagnosis.all_suggestions)
    assert suggestions == sorted(suggestions, key=rank)
    assert diagnosis.verified_at is not None
    tried = [one.verification for one in diagnosis.all_suggestions if one.setting]
    verifications = [one for one in tried if one is not None]
    assert len(verifications) == min(3, len(tried))
    for verification in verifications:
        assert verification.measured_speedup or verification.reason


def test_without_a_sweep_saturation_follows_from_timed_forwards(finished: FinishedStep) -> None:
    saturation = finished.diagnosis.saturation
    assert saturation is not None and saturation.source is not None
    assert saturation.source.startswith("the forward passes")


def test_phases_and_modules_are_named_in_the_trace(finished: FinishedStep) -> None:
    names = {event.get("name") for event in finished.trace_events}
    assert {"tokenize", "host_to_device", "forward", "device_to_host", "model.layers.0"} <= names
    assert finished.diagnosis.tracing_overhead_ratio > 0


def test_call_stacks_end_in_microseconds(finished: FinishedStep) -> None:
    stacks = finished.config.files.stacks.read_text().splitlines()
    assert stacks and all(line.rpartition(" ")[2].isdigit() for line in stacks)


def test_operators_have_time_and_work(finished: FinishedStep) -> None:
    table = pd.read_csv(finished.config.files.operators)
    assert tuple(table) == operators.COLUMNS
    assert table["share_pct"].sum() == pytest.approx(100)
    assert table["flops"].sum() > 0


def test_modules_have_time_and_memory(finished: FinishedStep) -> None:
    table = pd.read_csv(finished.config.files.layers)
    assert tuple(table) == (*layers.COLUMNS, "memory_kept_mb", "memory_peak_mb")
    assert table.loc[table["module"] == "model.layers.0", "memory_peak_mb"].item() > 0
    model_ms = table.loc[table["module"] == "(model)", "time_ms"].item()
    assert table["self_time_ms"].sum() == pytest.approx(model_ms, rel=0.05)


def test_times_by_kind_and_by_layer_add_up_to_those_of_the_modules(finished: FinishedStep) -> None:
    diagnosis = finished.diagnosis
    own_ms = pd.read_csv(finished.config.files.layers)["self_time_ms"].sum()
    assert sum(time.self_time_ms for time in diagnosis.layers_by_kind) == pytest.approx(own_ms)
    assert [time.layer_index for time in diagnosis.layers_by_index] == [0, 1, None]


def test_the_peak_is_that_of_the_memory_table(finished: FinishedStep) -> None:
    peak = finished.diagnosis.peak_memory
    assert peak is not None and peak.other_mb is None
    parts_mb = peak.weights_mb + peak.activations_mb + peak.workspace_mb
    assert peak.total_mb == pytest.approx(parts_mb)
    allocated_mb = pd.read_csv(finished.config.files.memory)["allocated_mb"]
    assert allocated_mb.max() == pytest.approx(peak.activations_mb + peak.workspace_mb)


def test_a_finished_step_is_not_stale(finished: FinishedStep) -> None:
    assert steps.stale_reason(steps.get_step("03"), finished.config) is None


def test_no_data_set(tmp_path: Path, tiny_model: Path) -> None:
    done = support.run_script(
        SCRIPT, *support.set_flags(support.small_overrides(tmp_path, tiny_model))
    )
    assert done.returncode == 2, done.stderr
    assert "01_download_data.py" in done.stderr and "Traceback" not in done.stderr
