"""Step 03 for real, on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests import support
from utils.pipeline import steps

SCRIPT = "scripts/03_detailed_profiling.py"
VERDICTS = {"input-bound", "overhead-bound", "memory-bound", "compute-bound", "no-dominant-limit"}


def test_all_files(tmp_path: Path, tiny_model: Path) -> None:
    config = support.small_config(tmp_path, tiny_model, "evaluation.compile=true")
    # Compiled already: nothing suggests it, so that no test waits for a compiler.
    overrides = [*support.small_overrides(tmp_path, tiny_model), "evaluation.compile=true"]
    done = support.run_script(SCRIPT, *support.set_flags(overrides), "--verify")
    assert done.returncode == 0, done.stderr
    assert "BOTTLENECK ANALYSIS\n" + "=" * 70 in done.stdout
    assert "python scripts/02_baseline_inference.py" in done.stderr, (
        "names the step that makes the missing sweep"
    )
    assert "USDT" not in done.stderr

    found = json.loads(config.files.bottlenecks.read_text())
    assert found["schema_version"] == 3 and (found["device"], found["dtype"]) == ("cpu", "float32")
    assert [row["batch_size"] for row in found["batch_sizes"]] == [1, 4]
    for row in found["batch_sizes"]:
        assert row["verdict"] in VERDICTS and row["sentence"] and row["rule"]
        assert 0 < row["roofline_ms"] <= row["measured_ms"]
        assert 0 <= row["padding_fraction"] < 1
        assert row["evidence"]["flops"] > 0 and row["evidence"]["unknown_operators"] == []
        assert row["confidence"] in ("high", "low") and row["threshold"] > 0
    wins = found["suggestions"] + found["further_suggestions"]
    assert 1 <= len(found["suggestions"]) <= 3 and found["verified_at"]
    assert all(
        set(win)
        == {
            "title",
            "cause",
            "saving_ms",
            "saving_pct",
            "predicted_speedup",
            "prediction",
            "advice",
            "setting",
            "evidence",
            "batch_size",
            "verification",
        }
        for win in wins
    )
    assert sorted(wins, key=lambda win: -win["saving_ms"]) == wins
    tried = [win["verification"] for win in wins if win["setting"]]
    assert all(one["measured_speedup"] or one["reason"] for one in tried[:3]) and tried[3:] == [
        None
    ] * len(tried[3:])
    assert done.stdout.count(", measured ") == sum(one["reason"] is None for one in tried[:3])
    assert found["saturation"]["source"].startswith("the forward passes")
    assert found["main_bottleneck"] in done.stdout
    assert found["tracing_overhead_ratio"] > 0

    assert json.loads(config.files.trace.read_text())["traceEvents"]
    names = {
        event.get("name") for event in json.loads(config.files.trace.read_text())["traceEvents"]
    }
    assert {"tokenize", "host_to_device", "forward", "device_to_host", "model.layers.0"} <= names
    stacks = config.files.stacks.read_text().splitlines()
    assert stacks and all(line.rpartition(" ")[2].isdigit() for line in stacks)

    operators = pd.read_csv(config.files.operators)
    assert list(operators) == [
        "operator",
        "calls",
        "input_shapes",
        "self_device_ms",
        "total_device_ms",
        "self_host_ms",
        "total_host_ms",
        "flops",
        "bytes_moved",
        "arithmetic_intensity",
        "memory_allocated_mb",
        "achieved_gflops_per_s",
        "achieved_gbytes_per_s",
        "share_pct",
        "attainable_ms",
        "ceiling",
        "ceiling_share",
    ]
    assert operators["share_pct"].sum() == pytest.approx(100)
    assert operators["flops"].sum() > 0
    layers = pd.read_csv(config.files.layers)
    assert list(layers) == [
        "module",
        "kind",
        "layer_index",
        "calls",
        "time_ms",
        "self_time_ms",
        "share_pct",
        "memory_kept_mb",
        "memory_peak_mb",
    ]
    assert layers.loc[layers["module"] == "model.layers.0", "memory_peak_mb"].item() > 0
    assert sum(row["self_time_ms"] for row in found["layers_by_kind"]) == pytest.approx(
        layers["self_time_ms"].sum()
    )
    assert [row["layer_index"] for row in found["layers_by_index"]] == [0, 1, None]
    assert found["kernels"] is None and found["unavailable"]["kernels"] == "no GPU was used"
    assert not config.files.kernels.exists()
    peak = found["peak_memory"]
    assert peak["total_mb"] == pytest.approx(
        peak["weights_mb"] + peak["activations_mb"] + peak["workspace_mb"]
    )
    allocated = pd.read_csv(config.files.memory)["allocated_mb"]
    assert allocated.max() == pytest.approx(peak["activations_mb"] + peak["workspace_mb"])
    whole = layers.loc[layers["module"] == "(model)", "time_ms"].item()
    assert layers["self_time_ms"].sum() == pytest.approx(whole, rel=0.05)
    assert steps.stale_reason(steps.get_step("03"), config) is None


def test_no_data_set(tmp_path: Path, tiny_model: Path) -> None:
    done = support.run_script(
        SCRIPT, *support.set_flags(support.small_overrides(tmp_path, tiny_model))
    )
    assert done.returncode == 2, done.stderr
    assert "01_download_data.py" in done.stderr and "Traceback" not in done.stderr
