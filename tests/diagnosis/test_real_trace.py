"""Kernels of a trace that a real GPU recorded; the judge adds intervals up with NumPy alone."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from utils.diagnosis import kernels

TRACE = Path(__file__).parent / "traces" / "h100_torch_2.11.json.gz"
LAYERS = 24


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    with gzip.open(TRACE, "rt", encoding="utf-8") as file:
        recorded: list[dict[str, Any]] = json.load(file)["traceEvents"]
    return recorded


def of(events: list[dict[str, Any]], *categories: str) -> list[dict[str, Any]]:
    return [event for event in events if event["cat"] in categories]


def busy_us(events: list[dict[str, Any]]) -> float:
    """Length of the union of intervals, counted on a grid of their ends."""
    begins = np.array([event["ts"] for event in events])
    ends = begins + np.array([event["dur"] for event in events])
    grid = np.unique(np.concatenate([begins, ends]))
    middles = (grid[1:] + grid[:-1]) / 2
    running = np.searchsorted(np.sort(begins), middles) - np.searchsorted(np.sort(ends), middles)
    return float(np.diff(grid)[running > 0].sum())


def test_busy_and_idle_time_are_those_of_the_intervals(events: list[dict[str, Any]]) -> None:
    summary = kernels.summarize_kernels(events)
    assert summary is not None
    on_device = of(events, "kernel", "gpu_memcpy", "gpu_memset")
    begin = min(event["ts"] for event in on_device)
    end = max(event["ts"] + event["dur"] for event in on_device)
    assert summary.num_kernels == len(on_device)
    assert summary.span_ms == pytest.approx((end - begin) / 1e3)
    assert summary.busy_ms == pytest.approx(busy_us(on_device) / 1e3)
    assert sum(summary.idle_by_cause_ms.values()) == pytest.approx(summary.idle_ms)
    # A batch of 8 leaves this GPU waiting for the host, which starts a thousand kernels.
    assert summary.idle_by_cause_ms["host_wait"] > 0.8 * summary.idle_ms


def test_launches_of_both_apis_are_counted(events: list[dict[str, Any]]) -> None:
    """PyTorch launches by the runtime's API, cuBLAS and cuDNN by the driver's."""
    launches = [
        event for event in of(events, "cuda_runtime", "cuda_driver") if "Launch" in event["name"]
    ]
    assert {event["cat"] for event in launches} == {"cuda_runtime", "cuda_driver"}
    summary = kernels.summarize_kernels(events)
    assert summary is not None
    assert summary.num_launches == len(launches) == len(of(events, "kernel"))
    found = kernels.find_kernels(events)
    assert found["launch_us"].notna().all()
    assert (found["launch_us"] <= found["begin_us"]).all()


def test_every_kernel_has_a_kind_and_each_layer_its_kernels(events: list[dict[str, Any]]) -> None:
    table = kernels.build_kernel_table(events)
    assert "other" not in set(table["category"])
    calls = table.groupby("category")["calls"].sum()
    # Seven linear layers each; besides, the rotary embedding, and the classifier with the kernel
    # that adds up its parts.
    assert calls["matrix product"] == 7 * LAYERS + 3
    assert calls["attention"] == LAYERS
