"""The ceilings of a GPU: how they are measured, and what the file says of it."""

from __future__ import annotations

import pytest
import torch

from tests.simulated_cuda.simulate import Simulation, simulated_cuda
from utils.diagnosis import roofline


@pytest.fixture
def _small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products and copies of a real GPU's sizes take minutes on the host."""
    monkeypatch.setitem(roofline.MATMUL_SIZES, "cuda", (64,))
    monkeypatch.setitem(roofline.COPY_BYTES, "cuda", (1 << 16,))
    monkeypatch.setitem(roofline.CEILING_PRODUCT_AT_LEAST_S, "cuda", 0.002)
    monkeypatch.setitem(roofline.REPEAT_AT_LEAST_S, "cuda", 0.002)


@pytest.mark.usefixtures("_small_sizes")
def test_only_precisions_of_the_models_own_gpu_are_measured() -> None:
    """PyTorch says of every GPU that it has bfloat16, because it counts emulation."""
    cuda = torch.device("cuda", 0)
    with simulated_cuda(Simulation(capability=(7, 5))):
        assert torch.cuda.is_bf16_supported()
        old = roofline.measure_ceilings(cuda, torch.float32)
    assert old.bfloat16_matmul_flops_per_s is None
    assert old.tf32_matmul_flops_per_s is None
    assert old.unavailable["bfloat16_matmul_flops_per_s"] == roofline.NO_BFLOAT16
    assert old.unavailable["tf32_matmul_flops_per_s"] == roofline.TOO_OLD_FOR_TF32
    with simulated_cuda(Simulation(capability=(8, 0))):
        new = roofline.measure_ceilings(cuda, torch.float32)
    assert new.bfloat16_matmul_flops_per_s is not None
    assert new.tf32_matmul_flops_per_s is not None


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
