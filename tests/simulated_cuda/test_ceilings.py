"""The ceilings of a GPU: how they are measured, and what the file says of it."""

from __future__ import annotations

import pytest
import torch

from tests.simulated_cuda.simulate import simulated_cuda
from utils.diagnosis import roofline


def test_products_on_cuda_run_until_the_power_limit_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert roofline.CEILING_PRODUCT_AT_LEAST_S["cuda"] >= 0.3
    smallest_bytes = roofline.COPY_BYTES["cuda"][0]
    assert smallest_bytes == 32 << 20
    monkeypatch.setitem(roofline.MATMUL_SIZES, "cuda", (64,))
    monkeypatch.setitem(roofline.COPY_BYTES, "cuda", (smallest_bytes,))
    monkeypatch.setitem(roofline.CEILING_PRODUCT_AT_LEAST_S, "cuda", 0.03)
    monkeypatch.setitem(roofline.REPEAT_AT_LEAST_S, "cuda", 0.002)
    with simulated_cuda():
        ceilings = roofline.measure_ceilings(torch.device("cuda", 0), torch.bfloat16)
    assert "a repeat of products takes 0.03 s at least" in ceilings.method
    assert "copies of less than 32 MiB are left out" in ceilings.method
    assert [rate.num_bytes for rate in ceilings.copy_rates] == [2 * smallest_bytes]
