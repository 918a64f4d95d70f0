"""Ceilings of this machine, and what is attainable under given ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from utils.analysis import roofline


def ceilings(**changes: Any) -> roofline.Ceilings:
    settings: dict[str, Any] = {
        "dtype": "float32", "matmul_flops_per_s": 1e9, "matmul_size": 1, "matmul_spread_pct": 0.0, "copy_bytes_per_s": 1e6,
        "copy_points": ((1000, 4e6), (10_000, 5e6), (100_000, 1e6)), "copy_spread_pct": 0.0, "dispatch_s": 1e-6,
        "bfloat16_matmul_flops_per_s": None,
    }
    return roofline.Ceilings(**{**settings, **changes})


def test_attainable() -> None:
    given = ceilings()
    assert given.attainable_s(10**9, 1000) == (1.0, "matmul")
    assert given.attainable_s(1000, 10**6) == (1.0, "copy")
    assert given.attainable_s(None, 50_000) == (0.05, "copy")
    assert given.attainable_s(0, 500) == (pytest.approx(0.0001), "copy"), "the best rate for that many bytes or more"
    assert given.attainable_s(0, 0) == (0.0, "copy")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_measured_here(dtype: torch.dtype) -> None:
    found = roofline.measure(torch.device("cpu"), dtype)
    assert found.matmul_flops_per_s > 1e8 and found.copy_bytes_per_s > 1e8
    assert [size for size, _ in found.copy_points] == [2 * size for size in roofline.COPY_BYTES["cpu"]]
    assert 1e-8 < found.dispatch_s < 1e-3
    assert found.matmul_spread_pct >= 0 and found.copy_spread_pct >= 0
    assert found.bfloat16_matmul_flops_per_s is None
    assert found.dtype == str(dtype).removeprefix("torch.")
