"""Counts compared with values that were calculated independently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from tests import support
from utils.model import costs

F32 = 4


def total(run: Callable[[], object]) -> tuple[int | None, int, int]:
    """FLOPs, bytes and calls of all operators."""
    counted = costs.count_op_costs(run)
    flops = [cost.flops for cost in counted]
    known = None if None in flops else sum(flop or 0 for flop in flops)
    return known, sum(cost.bytes_moved for cost in counted), sum(cost.calls for cost in counted)


x = torch.randn(8, 16)
scale = torch.randn(16)
table = torch.randn(1000, 16)
ids = torch.tensor([[1, 2, 3], [3, 2, 1]])

CASES = {
    "matrix product": (
        lambda: x @ torch.empty(16, 32),
        2 * 8 * 16 * 32,
        F32 * (8 * 16 + 16 * 32 + 8 * 32),
    ),
    "linear with bias": (
        lambda: functional.linear(x, torch.empty(32, 16), torch.empty(32)),
        2 * 8 * 16 * 32,
        F32 * (8 * 16 + 16 * 32 + 32 + 8 * 32),
    ),
    "addition": (lambda: x + x.neg(), 0, F32 * (2 * 128 + 3 * 128)),
    "the same tensor twice is read once": (lambda: x * x, 0, F32 * 256),
    "broadcast reads what is there": (lambda: x * scale, 0, F32 * (128 + 16 + 128)),
    "expanded reads what is there": (lambda: x * scale.expand(8, 16), 0, F32 * (128 + 16 + 128)),
    "in place reads and writes": (lambda: torch.empty(128).add_(1.0), 0, F32 * 256),
    "out= is not read": (lambda: torch.add(x, 1.0, out=torch.empty(8, 16)), 0, F32 * 256),
    "copy_ does not read its target": (lambda: torch.empty(8, 16).copy_(x), 0, F32 * 256),
    "fill_ only writes": (lambda: torch.empty(128).fill_(1.0), 0, F32 * 128),
    "clone": (lambda: x.clone(), 0, F32 * 256),
    "to another precision": (lambda: x.to(torch.bfloat16), 0, 128 * (4 + 2)),
    "to the same precision": (lambda: x.to(torch.float32), 0, 0),
    "views": (lambda: x.t().unsqueeze(0).expand(3, 16, 8)[:, :4].view(3, 4, 8), 0, 0),
    "contiguous already": (lambda: x.contiguous(), 0, 0),
    "contiguous of a transpose": (lambda: x.t().contiguous(), 0, F32 * 256),
    "embedding reads the rows that it looks up": (
        lambda: functional.embedding(ids, table),
        0,
        F32 * 2 * 6 * 16 + 8 * 6,
    ),
    "SiLU": (lambda: functional.silu(x), 0, F32 * 256),
    "softmax": (lambda: x.softmax(-1), 0, F32 * 256),
    "mean": (lambda: x.mean(-1), 0, F32 * (128 + 8)),
    "layer norm": (
        lambda: functional.layer_norm(x, (16,), scale, scale.clone()),
        0,
        # its bias is a copy; the kernel puts out mean and reciprocal deviation of each row too
        F32 * (2 * 16) + F32 * (128 + 16 + 16 + 128 + 8 + 8),
    ),
    "root mean square norm, by its parts": (
        lambda: Qwen2RMSNorm(16)(x),
        0,  # then square, mean, add, root, scale, weight
        F32
        * (
            16 + 256 + (128 + 8) + 16 + 16 + (128 + 8 + 128) + (16 + 128 + 128)
        ),  # first the weights are made
    ),
    "concatenation": (lambda: torch.cat((x, x.neg())), 0, F32 * 256 + F32 * 512),
    "integers": (lambda: ids + 1, 0, 8 * 12),
    "empty tensors": (lambda: torch.empty(0, 4) + 1, 0, 0),
}


@pytest.mark.parametrize("name", CASES)
def test_worked_by_hand(name: str) -> None:
    run, flops, moved = CASES[name]
    assert total(run)[:2] == (flops, moved)


@pytest.mark.parametrize("query_heads", [2, 4])
def test_fused_attention(query_heads: int) -> None:
    """Two products of 2 FLOPs a multiply-add; grouped heads count as often as they are used."""
    q = torch.randn(3, query_heads, 10, 8)
    k, v = (torch.randn(3, 2, 12, 8) for _ in range(2))
    grouped = query_heads != 2
    counted = costs.count_op_costs(
        lambda: functional.scaled_dot_product_attention(q, k, v, enable_gqa=grouped)
    )
    flops = sum(
        cost.flops or 0 for cost in counted if costs.operator_category(cost.name) == "attention"
    )
    matmuls = sum(
        cost.flops or 0
        for cost in counted
        if costs.operator_category(cost.name) == "matrix product"
    )
    assert flops + matmuls == 2 * 2 * 3 * query_heads * 10 * 12 * 8
    if not grouped:
        [attention] = [cost for cost in counted if "flash_attention_for_cpu" in cost.name]
        assert attention.bytes_moved == F32 * (
            2 * q.numel() + k.numel() + v.numel() + 3 * query_heads * 10
        )


@pytest.mark.parametrize("kernel", ["flash", "efficient", "cudnn"])
def test_grouped_heads_on_cudas_kernels(kernel: str) -> None:
    """As transformers calls them for grouped heads; torch's own formulas refused it once."""
    q, k = torch.empty(2, 8, 5, 16), torch.empty(2, 2, 5, 16)
    func = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_attention").default
    assert costs.count_flops(func, (q, k, k), {}, q) == 2 * (2 * 2 * 8 * 5 * 5 * 16)


@pytest.mark.parametrize(
    ("queries", "keys", "pairs"), [(4, 4, 1 + 2 + 3 + 4), (1, 1, 1), (3, 4, 3 * 4)]
)
def test_causal_attention_computes_half(queries: int, keys: int, pairs: int) -> None:
    """The triangle with its diagonal; where lengths differ the kernels differ, all pairs count."""
    q, k, v = torch.empty(2, 6, queries, 8), torch.empty(2, 3, keys, 8), torch.empty(2, 3, keys, 16)
    expected = 2 * 2 * 6 * pairs * (8 + 16)  # multiply-add, batch, heads
    for kernel, before in (
        ("flash", (0.0,)),
        ("efficient", (None, False, 0.0)),
        ("cudnn", (None, False, 0.0)),
    ):
        func = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_attention").default
        assert costs.count_flops(func, (q, k, v, *before, True), {}, q) == expected, "in its place"
        assert (
            costs.count_flops(func, (q, k, v, *before[:2]), {"is_causal": True}, q) == expected
        ), "by name"
        assert costs.count_flops(
            func, (q, k, v, *before, False), {}, q
        ) == 2 * 2 * 6 * queries * keys * (8 + 16)
    q = torch.randn(2, 6, queries, 8)
    k = v = torch.randn(2, 6, keys, 8)
    counted = costs.count_op_costs(
        lambda: functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    )
    [attention] = [cost for cost in counted if "flash_attention_for_cpu" in cost.name]
    assert attention.flops == 2 * 2 * 6 * pairs * (8 + 8), "as it runs on the CPU"


def test_fused_attention_with_a_mask_reads_it() -> None:
    q, mask = torch.randn(3, 2, 10, 8), torch.zeros(3, 1, 10, 10)
    expanded = mask.expand(3, 2, 10, 10)
    counted = costs.count_op_costs(
        lambda: functional.scaled_dot_product_attention(q, q.neg(), q.abs(), attn_mask=expanded)
    )
    [attention] = [cost for cost in counted if "flash_attention_for_cpu" in cost.name]
    assert attention.flops == 2 * 2 * 3 * 2 * 10 * 10 * 8
    assert attention.bytes_moved == F32 * (4 * q.numel() + 3 * 2 * 10 + mask.numel()), (
        "a mask for all heads is read once"
    )


def test_flash_attn_package() -> None:
    """Its operators' signatures, on stand-ins: the package runs on GPUs alone."""
    library = torch.library.Library("flash_attn_standin", "DEF")
    rest = "float dropout_p, bool causal=False) -> Tensor"
    library.define(f"_flash_attn_forward(Tensor q, Tensor k, Tensor v, {rest}")
    library.define(
        "_flash_attn_varlen_forward(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens_q, "
        f"Tensor cu_seqlens_k, {rest}"
    )
    library.define("_flash_attn_other(Tensor x) -> Tensor")
    for name in ("_flash_attn_forward", "_flash_attn_varlen_forward", "_flash_attn_other"):
        library.impl(name, lambda q, *_: torch.empty_like(q), "CPU")
    ops = torch.ops.flash_attn_standin
    q, k = (
        torch.empty(3, 10, 4, 8),
        torch.empty(3, 12, 2, 8),
    )  # batch, length, heads (grouped), width
    [cost] = [
        cost
        for cost in costs.count_op_costs(lambda: ops._flash_attn_forward(q, k, k, 0.0))
        if "forward" in cost.name
    ]
    assert (
        cost.flops == 2 * 2 * 3 * 4 * 10 * 12 * 8
        and costs.operator_category(cost.name) == "attention"
    )
    for keys, pairs in ((q[:, :, :2], 55), (k, 10 * 12)):  # 1 + 2 + … + 10
        assert (
            costs.count_flops(ops._flash_attn_forward.default, (q, keys, keys, 0.0, True), {}, q)
            == 2 * 2 * 3 * 4 * pairs * 8
        )
    _check_packed_texts(ops)


def _check_packed_texts(ops: Any) -> None:
    """Two texts of 2 and 7 tokens, one after the other; and an operator that is no attention."""
    packed = torch.empty(9, 4, 8)
    ends = torch.tensor([0, 2, 9], dtype=torch.int32)
    counted = costs.count_op_costs(
        lambda: ops._flash_attn_varlen_forward(packed, packed, packed, ends, ends, 0.0)
    )
    [cost] = [cost for cost in counted if "varlen" in cost.name]
    assert cost.flops == 2 * 2 * (2 * 2 + 7 * 7) * 4 * 8, "padding that is not there is no work"
    counted = costs.count_op_costs(
        lambda: ops._flash_attn_varlen_forward(packed, packed, packed, ends, ends, 0.0, causal=True)
    )
    [cost] = [cost for cost in counted if "varlen" in cost.name]
    assert cost.flops == 2 * 2 * (3 + 28) * 4 * 8, "1 + 2, and 1 + 2 + … + 7"
    [other] = [
        cost
        for cost in costs.count_op_costs(lambda: ops._flash_attn_other(packed))
        if "other" in cost.name
    ]
    assert other.flops is None


def test_eager_attention() -> None:
    q, k, v = (torch.randn(3, 2, 10, 8) for _ in range(3))
    flops, moved, _ = total(lambda: (q @ k.transpose(-1, -2) * 0.5).softmax(-1) @ v)
    scores, heads = 3 * 2 * 10 * 10, 3 * 2 * 10 * 8
    assert flops == 2 * (2 * scores * 8), "two products; scaling and softmax count none"
    assert moved == F32 * ((2 * heads + scores) + 2 * scores + 2 * scores + (scores + 2 * heads))


@pytest.mark.parametrize(
    ("attention", "padded", "pairs"),
    [
        ("sdpa", False, 16 * 17 // 2),
        ("sdpa", True, 16 * 16),
        ("eager", False, 16 * 16),
    ],
)
def test_a_complete_model_is_two_flops_a_parameter_and_token(
    attention: str, padded: bool, pairs: int
) -> None:
    """The rule of thumb, plus attention as it runs; embeddings are looked up, not multiplied."""
    # With grouped heads PyTorch 2.6 takes the math kernel on the CPU, which computes the square.
    config = support.build_model_config(
        hidden_size=64, intermediate_size=256, num_key_value_heads=4
    )
    model = support.Qwen2ForSequenceClassification(config).eval()
    model.set_attn_implementation(attention)
    tokens = torch.ones(2, 16, dtype=torch.long)
    mask = tokens.clone()
    mask[0, -1] = not padded
    counted = costs.count_op_costs(
        lambda: model(input_ids=tokens, attention_mask=mask, use_cache=False)
    )
    assert all(cost.flops is not None for cost in counted), "no operator of the model is unknown"
    products = sum(
        cost.flops or 0
        for cost in counted
        if costs.operator_category(cost.name) in ("matrix product", "attention")
    )
    weights = sum(
        p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name
    )
    attention_flops = 2 * (
        2 * 2 * 2 * 4 * pairs * 16
    )  # layers x (two products, multiply-add, batch, heads, pairs, width)
    assert products == pytest.approx(2 * weights * 2 * 16 + attention_flops, rel=0.003)


def test_element_wise_operators_count_bytes_alone() -> None:
    [cost] = costs.count_op_costs(lambda: torch.erfinv(x))
    assert (cost.name, cost.flops, cost.bytes_moved) == ("aten::erfinv", 0, F32 * 256)


def test_a_product_without_a_formula_is_unknown() -> None:
    [cost] = costs.count_op_costs(lambda: x @ scale)
    assert (cost.name, cost.flops) == ("aten::mv", None)
    assert cost.bytes_moved == F32 * (128 + 16 + 8)
    [twice] = costs.count_op_costs(lambda: [x @ scale for _ in range(2)])
    assert twice.flops is None and twice.calls == 2


def test_an_operator_of_another_library_is_unknown() -> None:
    library = torch.library.Library("costs_standin", "DEF")
    library.define("fused(Tensor x) -> Tensor")
    library.impl("fused", lambda tensor: tensor.clone(), "CPU")
    counted = {
        cost.name: cost.flops
        for cost in costs.count_op_costs(lambda: torch.ops.costs_standin.fused(x))
    }
    assert counted["costs_standin::fused"] is None, "it may do anything"


def test_the_complete_model_agrees_with_pytorchs_own_counter() -> None:
    """With eager attention, whose products the counter knows; it counts none of SDPA on the CPU."""
    model = support.Qwen2ForSequenceClassification(support.build_model_config()).eval()
    model.set_attn_implementation("eager")
    tokens = torch.ones(2, 16, dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, use_cache=False)
    counted = costs.count_op_costs(lambda: model(input_ids=tokens, use_cache=False))
    assert sum(cost.flops or 0 for cost in counted) == counter.get_total_flops() > 0


def test_calls_and_shapes() -> None:
    linear = nn.Linear(16, 32, bias=False)
    counted = {
        cost.name: cost for cost in costs.count_op_costs(lambda: [linear(x) for _ in range(3)])
    }
    assert counted["aten::mm"].calls == 3
    assert counted["aten::mm"].input_shapes == ((8, 16), (16, 32))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::addmm", "matrix product"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::native_layer_norm", "normalisation"),
        ("aten::mul_", "element-wise"),
        ("aten::mean", "reduction"),
        ("aten::copy_", "copy"),
        ("aten::index_select", "copy"),
        ("aten::view", "other"),
    ],
)
def test_category(name: str, kind: str) -> None:
    assert costs.operator_category(name) == kind
