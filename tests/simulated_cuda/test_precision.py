"""How far logits may differ where float32 products run in TF32."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.simulated_cuda.simulate import simulated_cuda
from utils.model.checks import product_precision

CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _restored_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("dtype", "matmul_precision", "expected"),
    [
        ("float32", "highest", "float32"),
        ("float32", "high", "float16"),
        ("float32", "medium", "float16"),
        ("bfloat16", "high", "bfloat16"),
    ],
)
def test_tf32_products_round_as_float16(dtype: str, matmul_precision: str, expected: str) -> None:
    torch.set_float32_matmul_precision(matmul_precision)
    with simulated_cuda():
        assert product_precision(dtype, CUDA) == expected


def test_a_cpu_has_no_tf32() -> None:
    torch.set_float32_matmul_precision("high")
    assert product_precision("float32", torch.device("cpu")) == "float32"


def test_a_gpu_before_ampere_has_no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_float32_matmul_precision("high")
    with simulated_cuda():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
        assert product_precision("float32", CUDA) == "float32"
