"""How far logits may differ where float32 products run in less than float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.simulated_cuda.simulate import Simulation, simulated_cuda
from utils.model.checks import product_precision

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")


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


class RoundedProducts(TorchDispatchMode):  # type: ignore[misc, unused-ignore]
    """A CPU whose float32 products keep so many bits of their factors' mantissa."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.step = 2.0**-bits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.mm.default:
            # Of numbers from 1 up to 2.
            args = [(factor / self.step).round() * self.step for factor in args]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("bits", "expected"), [(23, "float32"), (10, "float16"), (7, "bfloat16")])
def test_the_products_of_a_cpu_show_their_precision(bits: int, expected: str) -> None:
    torch.set_float32_matmul_precision("medium")
    with RoundedProducts(bits):
        assert product_precision("float32", CPU) == expected


def test_exact_products_are_not_looked_at() -> None:
    torch.set_float32_matmul_precision("highest")
    with RoundedProducts(7):
        assert product_precision("float32", CPU) == "float32"


def test_a_gpu_before_ampere_has_no_tf32() -> None:
    torch.set_float32_matmul_precision("high")
    with simulated_cuda(Simulation(capability=(7, 5))):
        assert product_precision("float32", CUDA) == "float32"
