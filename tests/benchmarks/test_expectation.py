"""The arithmetic for a GPU: its terms are those of the real operators, and its bars follow."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForSequenceClassification

from benchmarks import expectation
from benchmarks.expectation import BatchPlan, load_architecture
from benchmarks.peers import limit, verdicts
from benchmarks.peers.contestants import PIPELINE
from utils.model.costs import OperatorCost, count_op_costs, operator_category

DOCUMENT = Path(__file__).parents[2] / "docs" / "BENCHMARKS.md"
MODEL = load_architecture()

needs_fused_attention = pytest.mark.skipif(
    torch.__version__ < "2.7",
    reason="torch 2.6 computes attention without a mask by plain products",
)


def make_model(num_layers: int, dtype: torch.dtype) -> Qwen2ForSequenceClassification:
    """The architecture with few layers, random weights and a small vocabulary."""
    config = Qwen2Config.from_json_file(expectation.ARCHITECTURE)
    config.num_hidden_layers = num_layers
    config.layer_types = ["full_attention"] * num_layers
    config.vocab_size = 32
    config.pad_token_id = config.bos_token_id = config.eos_token_id = 0
    with torch.device("cpu"):
        return Qwen2ForSequenceClassification(config).to(dtype).eval()


def count(num_layers: int, length: int, dtype: torch.dtype) -> tuple[OperatorCost, ...]:
    model = make_model(num_layers, dtype)
    ids = torch.ones(1, length, dtype=torch.long)
    return count_op_costs(lambda: model(input_ids=ids))


def element_wise_bytes(num_layers: int, length: int, dtype: torch.dtype) -> int:
    """Of all operators that are neither products nor attention."""
    total = 0
    for cost in count(num_layers, length, dtype):
        if operator_category(cost.name) not in ("matrix product", "attention"):
            total += cost.bytes_moved
    return total


def num_kernels(num_layers: int, dtype: torch.dtype) -> int:
    """Operators that move bytes: views and allocations start no kernel."""
    costs = count(num_layers, 16, dtype)
    return sum(cost.calls for cost in costs if cost.bytes_moved)


@needs_fused_attention
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_of_a_layer_are_those_of_its_operators(dtype: torch.dtype) -> None:
    # What a layer adds for 32 more tokens has no bytes of weights in it.
    with_one = element_wise_bytes(1, 64, dtype) - element_wise_bytes(1, 32, dtype)
    with_two = element_wise_bytes(2, 64, dtype) - element_wise_bytes(2, 32, dtype)
    counted = (with_two - with_one) / 32
    expected = expectation.element_wise_bytes_per_layer(MODEL, dtype.itemsize)
    assert counted == pytest.approx(expected, rel=0.02)


@needs_fused_attention
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_of_a_layer_are_its_operators(dtype: torch.dtype) -> None:
    counted = num_kernels(2, dtype) - num_kernels(1, dtype)
    assert counted == expectation.kernels_per_layer(dtype.itemsize) + 1, "and one of attention"


def test_linear_flops_are_those_of_the_benchmarks_limit() -> None:
    model = make_model(1, torch.float32)
    of_one_layer = expectation.Architecture(
        layers=1,
        width=MODEL.width,
        heads=MODEL.heads,
        key_value_heads=MODEL.key_value_heads,
        inner_width=MODEL.inner_width,
        labels=model.config.num_labels,
    )
    assert of_one_layer.linear_flops_per_token == 2 * limit.linear_products(model)


def test_a_forward_takes_as_long_as_the_host_or_the_device() -> None:
    plan = BatchPlan(tokens_per_forward=1000, padding=1.25)
    # 1000 x (3 / 0.75 + 4 / 0.8) us on the device; 3000 / 1.25 us of products of real tokens.
    slow, _ = expectation.share_range(3.0, 4.0, 10, plan)
    assert slow == pytest.approx(2400 / 9000)
    host_bound, _ = expectation.share_range(3.0, 4.0, 10_000, plan)
    assert host_bound == pytest.approx(2400 / 80_000)


def test_the_document_has_the_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for line in expectation.table_lines():
        assert line in text, "run benchmarks/expectation.py and paste its table"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bars_are_the_pessimistic_end_for_full_batches(precision: str) -> None:
    [change] = [one for one in expectation.CHANGES if one.name == "full batches"]
    expected = expectation.expect(MODEL, precision, change)
    lowest = min(low for low, _ in expected.shares)
    assert verdicts.MIN_SHARE[precision] == pytest.approx(lowest, abs=0.01)
    assert verdicts.MIN_SPEEDUP_CUDA[PIPELINE] == pytest.approx(
        expectation.padding_speedup(), abs=0.05
    )
