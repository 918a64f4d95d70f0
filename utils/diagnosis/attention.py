"""Which of PyTorch's attention kernels traced batches ran, and what the math kernel costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from utils.diagnosis.roofline import attainable
from utils.schema.ceilings import Ceilings
from utils.schema.profile import AttentionKernel, AttentionUse

KERNELS: dict[AttentionKernel, tuple[str, ...]] = {
    "flash": (
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "flash_attn::_flash_attn_forward",
        "flash_attn::_flash_attn_varlen_forward",
    ),
    "memory_efficient": ("aten::_scaled_dot_product_efficient_attention",),
    "cudnn": ("aten::_scaled_dot_product_cudnn_attention",),
    "math": ("aten::_scaled_dot_product_attention_math",),
}
"""The operator by which a trace shows each kernel; the operators inside it are not listed."""
MIN_SCORE_BYTES = 4
"""The math kernel computes in float32 also where the weights are float16 or bfloat16."""
STORES_NO_SCORES = "the kernel stores no scores"
NO_DEVICE_TIME = "the profiler saw no CUDA kernels"
NONE_IN_TRACE = (
    "the trace has no operator of PyTorch's fused attention: the model computes attention with"
    " operators of its own (attn_implementation eager: matrix products and a softmax)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shapes:
    """Sizes of one call: ``rows`` are the batch's, ``width`` is that of a query."""

    rows: int
    heads: int
    queries: int
    keys: int
    width: int
    key_value_heads: int

    @property
    def pairs(self) -> int:
        """Pairs of query and key, masked ones included, in all rows and heads."""
        return self.rows * self.heads * self.queries * self.keys

    @property
    def flops(self) -> int:
        """Of the products of queries with keys and of scores with values."""
        return 4 * self.pairs * self.width

    @property
    def num_elements(self) -> int:
        """Of queries, keys, values and results, each of which is moved once at least."""
        queries = self.heads * self.queries
        keys = self.key_value_heads * self.keys
        return 2 * self.rows * self.width * (queries + keys)


@dataclass(frozen=True, kw_only=True, slots=True)
class _MathWork:
    """What the math kernel does in a batch; a fused kernel stores nothing.

    Args:
        attainable_ms: of the same attention without stored scores, at the ceilings.
    """

    score_bytes: float = 0.0
    attainable_ms: float = 0.0
    has_grouped_heads: bool | None = None


def find_attention(
    operators: pd.DataFrame, *, batch_size: int, ceilings: Ceilings, scale: float
) -> list[AttentionUse]:
    """The kernels that traced batches of one size ran, in the order of ``KERNELS``.

    Args:
        operators: the table of ``operators.csv``; calls and times are per batch. Rows that were
            counted but not traced have no host time; they are left out.
        ceilings: of the device; their ``dtype`` is that of the weights.
        scale: untraced time over traced time of the operators.
    """
    uses = []
    traced = operators[operators["self_host_ms"].notna()]
    for kernel, names in KERNELS.items():
        rows = traced[traced["operator"].isin(names)]
        if not rows.empty:
            uses.append(_describe(kernel, rows, batch_size, ceilings, scale))
    return uses


def _describe(
    kernel: AttentionKernel,
    rows: pd.DataFrame,
    batch_size: int,
    ceilings: Ceilings,
    scale: float,
) -> AttentionUse:
    unavailable = {}
    measured_ms = None
    if rows["total_device_ms"].notna().all():
        measured_ms = scale * float(rows["total_device_ms"].sum())
    else:
        unavailable["measured_ms"] = NO_DEVICE_TIME
    work = _MathWork()
    attainable_ms = None
    if kernel == "math":
        work = _math_work(rows, ceilings)
        attainable_ms = work.attainable_ms
    else:
        unavailable["attainable_ms"] = STORES_NO_SCORES
    return AttentionUse(
        batch_size=batch_size,
        kernel=kernel,
        calls=float(rows["calls"].sum()),
        measured_ms=measured_ms,
        attainable_ms=attainable_ms,
        stored_score_bytes=work.score_bytes,
        has_grouped_heads=work.has_grouped_heads,
        unavailable=unavailable,
    )


def _math_work(rows: pd.DataFrame, ceilings: Ceilings) -> _MathWork:
    """What the math kernel stores, and what the same attention needs without that."""
    element_bytes = getattr(torch, ceilings.dtype).itemsize
    score_bytes = 0.0
    attainable_ms = 0.0
    has_grouped_heads = False
    for text, calls in zip(rows["input_shapes"], rows["calls"], strict=True):
        shapes = _parse_shapes(text)
        score_bytes += calls * shapes.pairs * max(element_bytes, MIN_SCORE_BYTES)
        fused = attainable(ceilings, shapes.flops, shapes.num_elements * element_bytes)
        attainable_ms += calls * fused.seconds * 1e3
        has_grouped_heads = has_grouped_heads or shapes.key_value_heads < shapes.heads
    return _MathWork(
        score_bytes=score_bytes,
        attainable_ms=attainable_ms,
        has_grouped_heads=has_grouped_heads,
    )


def _parse_shapes(text: str) -> _Shapes:
    """Of ``2x14x50x64, 2x2x50x64, …``: queries, then keys; rows and heads may be missing."""
    query_text, key_text = text.split(", ")[:2]
    *query_outer, queries, width = map(int, query_text.split("x"))
    *key_outer, keys, _ = map(int, key_text.split("x"))
    return _Shapes(
        rows=math.prod(query_outer[:-1]),
        heads=math.prod(query_outer[-1:]),
        queries=queries,
        keys=keys,
        width=width,
        key_value_heads=math.prod(key_outer[-1:]),
    )


def why_no_attention(uses: Sequence[AttentionUse]) -> dict[str, str]:
    """The entry of ``unavailable`` where no traced batch shows a kernel."""
    if uses:
        return {}
    return {"attention": NONE_IN_TRACE}
