"""Which attention kernel ran, and what the math kernel stores and could save."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests import support
from tests.diagnosis.builders import make_ceilings
from utils.diagnosis.attention import NONE_IN_TRACE, find_attention, why_no_attention
from utils.diagnosis.profiling import TracedSize, trace_size
from utils.diagnosis.workload import Workload
from utils.model_utils import LoadedModel, load_model
from utils.schema.profile import AttentionUse

QUERY, KEY = "8x14x100x64", "8x2x100x64"


@pytest.fixture(scope="module")
def loaded(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(support.small_config(tmp_path_factory.mktemp("load"), tiny_model))


def trace(loaded: LoadedModel, folder: Path) -> TracedSize:
    workload = Workload(loaded, (["books", "a book of maps"],), 64)
    with torch.inference_mode():
        return trace_size(workload, 1, make_ceilings(), folder)


def uses_of(operators: pd.DataFrame, dtype: str = "float32", scale: float = 1.0) -> AttentionUse:
    """The only kernel in a table."""
    [use] = find_attention(
        operators, batch_size=8, ceilings=make_ceilings(dtype=dtype), scale=scale
    )
    return use


def operator_table(name: str, total_device_ms: float = 4.0) -> pd.DataFrame:
    """24 calls of an attention operator in a batch, beside another operator."""
    return pd.DataFrame(
        {
            "operator": [name, "aten::linear"],
            "input_shapes": [f"{QUERY}, {KEY}, {KEY}", "800x896, 896x896"],
            "calls": [24.0, 24.0],
            "self_host_ms": [0.1, 0.1],
            "total_device_ms": [total_device_ms, 1.0],
        }
    )


@pytest.mark.parametrize(
    ("operator", "kernel"),
    [
        ("aten::_scaled_dot_product_flash_attention", "flash"),
        ("flash_attn::_flash_attn_forward", "flash"),
        ("aten::_scaled_dot_product_efficient_attention", "memory_efficient"),
        ("aten::_scaled_dot_product_cudnn_attention", "cudnn"),
    ],
)
def test_fused_kernels_store_no_scores(operator: str, kernel: str) -> None:
    use = uses_of(operator_table(operator), scale=0.5)
    assert (use.kernel, use.calls, use.measured_ms) == (kernel, 24, 2.0)
    assert use.stored_score_bytes == 0
    assert use.attainable_ms is None and "stores no scores" in use.unavailable["attainable_ms"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_math_kernel_stores_float32_scores_in_every_precision(dtype: str) -> None:
    use = uses_of(operator_table("aten::_scaled_dot_product_attention_math"), dtype)
    assert use.stored_score_bytes == 24 * 8 * 14 * 100 * 100 * 4
    assert use.has_grouped_heads


def test_attention_without_stored_scores_is_limited_by_the_ceilings() -> None:
    use = uses_of(operator_table("aten::_scaled_dot_product_attention_math"))
    # Two products of 2 x 8 x 14 x 100 x 100 x 64 FLOPs at 100 GFLOP/s; the bytes take less.
    assert use.attainable_ms == pytest.approx(24 * 2 * 2 * 8 * 14 * 100 * 100 * 64 / 1e11 * 1e3)


def test_without_times_of_the_device_the_kernel_is_still_named() -> None:
    use = uses_of(operator_table("aten::_scaled_dot_product_flash_attention", math.nan))
    assert use.kernel == "flash"
    assert use.measured_ms is None and use.unavailable["measured_ms"]


def test_a_kernel_that_was_counted_but_not_traced_is_left_out() -> None:
    traced = operator_table("aten::_scaled_dot_product_flash_attention")
    counted = traced.assign(input_shapes="8x14x100x64", self_host_ms=math.nan)
    use = uses_of(pd.concat([traced, counted], ignore_index=True))
    assert (use.calls, use.measured_ms) == (24, 4.0)


def test_a_trace_without_attention_operators_says_so() -> None:
    uses = find_attention(
        operator_table("aten::softmax"), batch_size=8, ceilings=make_ceilings(), scale=1.0
    )
    assert uses == []
    assert why_no_attention(uses) == {"attention": NONE_IN_TRACE}


def test_a_real_trace_names_the_kernel(loaded: LoadedModel, tmp_path: Path) -> None:
    stock = uses_of(trace(loaded, tmp_path / "stock").operators)
    assert (stock.kernel, stock.stored_score_bytes) == ("flash", 0)
    with sdpa_kernel(SDPBackend.MATH):
        traced = trace(loaded, tmp_path / "math")
    use = uses_of(traced.operators)
    config = loaded.model.config
    assert (use.kernel, use.calls) == ("math", config.num_hidden_layers)
    [shapes] = {
        row.input_shapes
        for row in traced.operators.itertuples()
        if row.operator == "aten::_scaled_dot_product_attention_math"
    }
    rows, heads, length, _ = map(int, shapes.split(", ")[0].split("x"))
    assert (rows, heads) == (2, config.num_attention_heads)
    assert use.stored_score_bytes == config.num_hidden_layers * rows * heads * length**2 * 4
    assert use.measured_ms is not None and use.measured_ms > 0
