"""What a traced batch size shows in detail."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests import support
from tests.diagnosis.builders import CUDA_TRACE, make_evidence
from utils.diagnosis.operators import group_operators
from utils.diagnosis.profiling import (
    largest_products,
    module_times_ms,
    read_events,
    time_modules,
)
from utils.diagnosis.roofline import MatrixProduct
from utils.diagnosis.tracing import NO_KERNELS, NONE_READABLE
from utils.diagnosis.workload import Workload
from utils.model.costs import OperatorCost
from utils.model_utils import LoadedModel, load_model


@pytest.fixture(scope="module")
def loaded(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(support.small_config(tmp_path_factory.mktemp("load"), tiny_model))


def test_kernels_of_a_cuda_trace_reach_the_files(
    tmp_path: Path, tiny_model: Path, loaded: LoadedModel
) -> None:
    files = support.small_config(tmp_path, tiny_model).files
    workload = Workload(replace(loaded, device=torch.device("cuda")), (["books"],), 64)
    findings = read_events(workload, CUDA_TRACE, (), files)
    assert findings.kernels is not None and findings.kernels.num_kernels == 9
    assert "kernels" not in findings.unavailable
    assert pd.read_csv(files.kernels)["calls"].sum() == 9
    assert findings.peak_memory is None
    assert "incomplete" in findings.unavailable["peak_memory"]
    modules = pd.DataFrame({"module": ["a"]}).join(findings.module_memory, on="module")
    assert modules["memory_peak_mb"].isna().all()


def test_the_reason_for_missing_kernels_is_named(
    tmp_path: Path, tiny_model: Path, loaded: LoadedModel
) -> None:
    files = support.small_config(tmp_path, tiny_model).files
    workload = Workload(replace(loaded, device=torch.device("cuda")), (["books"],), 64)
    read_events(workload, CUDA_TRACE, (), files)
    unreadable = read_events(workload, (), (), files)
    assert unreadable.unavailable["kernels"] == NONE_READABLE
    assert not files.kernels.exists(), "an earlier run's is gone"
    host_only = [event for event in CUDA_TRACE if event.get("cat") == "cpu_op"]
    assert read_events(workload, host_only, (), files).unavailable["kernels"] == NO_KERNELS
    on_cpu = read_events(Workload(loaded, (["books"],), 64), (), (), files)
    assert on_cpu.unavailable["kernels"] == "no GPU was used"


def test_a_long_trace_of_the_modules_is_warned_of(loaded: LoadedModel) -> None:
    workload = Workload(loaded, (["books"], ["books number 1"]), 64)
    with torch.inference_mode():
        times = time_modules(workload, make_evidence(forward_ms=1e-3))
        assert "times as long" in times.warnings[0]
        times = time_modules(workload, make_evidence(forward_ms=1e3))
    assert times.warnings == () and times.unavailable == {}
    assert times.table["self_time_ms"].sum() == pytest.approx(1e3)


def test_module_times_on_cuda_leave_out_the_devices_idle_time() -> None:
    table = pd.DataFrame({"module": ["a", "b"], "self_time_ms": [4.0, math.nan]})
    assert module_times_ms(table, make_evidence(forward_ms=10.0)) == {"a": 4.0}
    busy = make_evidence(forward_ms=10.0, device="cuda", device_busy_ms=5.0)
    assert module_times_ms(table, busy) == {"a": 2.0}


def test_the_largest_products_are_chosen() -> None:
    def cost(name: str, shapes: tuple[tuple[int, ...], ...], flops: int) -> OperatorCost:
        return OperatorCost(name=name, input_shapes=shapes, calls=2, flops=flops, bytes_moved=1)

    chosen = largest_products(
        [
            cost("aten::mm", ((8, 16), (16, 32)), 10),
            cost("aten::addmm", ((64,), (8, 32), (32, 64)), 20),
            cost("aten::bmm", ((1, 8, 16), (1, 16, 32)), 30),
        ]
    )
    assert chosen == [
        MatrixProduct(rows=8, inner=32, columns=64, calls=2),
        MatrixProduct(rows=8, inner=16, columns=32, calls=2),
    ]


def test_operators_are_scaled_to_the_untraced_forward() -> None:
    table = pd.DataFrame(
        {
            "operator": ["aten::linear", "aten::mm", "aten::copy_"],
            "self_device_ms": [1.0, 2.0, 1.0],
            "calls": [1.0, 1.0, 2.0],
            "bytes_moved": [math.nan, 8.0, 8.0],
            "attainable_ms": [math.nan, 0.25, 0.5],
        }
    )
    groups = {group.kind: group for group in group_operators(table, 2.0, 2.0)}
    assert {kind: group.measured_ms for kind, group in groups.items()} == {
        "matrix product": 1.5,
        "copy": 0.5,
    }
    product = groups["matrix product"]
    assert (product.attainable_ms, product.calls) == (0.25, 1), (
        "a composite operator's calls are those of its parts"
    )
    assert group_operators(table.assign(self_device_ms=math.nan), 2.0, 2.0) == ()
    [longer] = [group for group in group_operators(table, 2.0, 3.0) if group.kind == "copy"]
    assert (longer.measured_ms, longer.attainable_ms) == (0.75, 0.75), (
        "the average batch is longer than the traced ones"
    )
