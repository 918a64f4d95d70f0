#!/usr/bin/env python
"""What a GPU should reach with the 0.5B architecture, by arithmetic: no measurement.

Prints the table of docs/BENCHMARKS.md. Every number follows from the architecture, the data sheet
of the GPU, the plan of the batches and the assumptions below.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURE = ROOT / "configs" / "architectures" / "qwen2.5-0.5b.json"

# NVIDIA H100 SXM, dense: https://www.nvidia.com/en-us/data-center/h100/ (the data sheet's rates of
# TF32 and bfloat16 with sparsity are twice these).
MATRIX_FLOPS_PER_S = {"float32": 67e12, "TF32": 494e12, "bfloat16": 989e12}
BYTES_PER_S = 3.35e12

# Assumptions, each a pessimistic and an optimistic value.
# Share of the best matrix product's rate that products of this model's shapes reach.
PRODUCT_SHARE = (0.75, 0.90)
# Share of the data sheet's memory rate that element-wise kernels reach.
COPY_SHARE = (0.80, 0.92)
# What the host takes to start one kernel from transformers' Python code.
LAUNCH_US = (8.0, 5.0)

# Of 4,096 texts of the embedded corpus, truncated at 512 tokens. L is the length of a text.
MEAN_TOKENS = 122.0
# Sum of L (L + 1) / 2 over the sum of L: what a causal kernel computes for each token.
CAUSAL_PAIRS_PER_TOKEN = 159.0
# Sum of L ** 2 over the sum of L: what the math kernel stores for each token.
SQUARE_PAIRS_PER_TOKEN = 317.0
# Batches of 32 in file order compute so many tokens for each real one.
PADDING_IN_FILE_ORDER = 4.14
# The math kernel passes over the scores so often: the first product writes them, the mask is added
# in place (2), the softmax reads and writes them (2), a look for rows without a key reads them,
# writes and reads a byte for each (1.5), a choice reads and writes them (2), the second product
# reads them (1).
SCORE_PASSES = 9.5
SCORE_BYTES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlan:
    """How the evaluation's batches of the corpus turn out.

    Args:
        tokens_per_forward: computed ones, on average.
        padding: computed tokens for each real one.
    """

    tokens_per_forward: float
    padding: float


# Budgets of 4,096 and 16,384 tokens, each with batches that end where the length changes from a
# quarter of the budget on, and with full ones.
PARTLY_FULL = (
    BatchPlan(tokens_per_forward=1871, padding=1.003),
    BatchPlan(tokens_per_forward=5907, padding=1.017),
)
FULL = (
    BatchPlan(tokens_per_forward=3998, padding=1.016),
    BatchPlan(tokens_per_forward=16065, padding=1.061),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """Sizes of a Qwen2 classifier."""

    layers: int
    width: int
    heads: int
    key_value_heads: int
    inner_width: int
    labels: int

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def key_width(self) -> int:
        """Of all key heads together, and of all value heads."""
        return self.key_value_heads * self.head_width

    @property
    def linear_flops_per_token(self) -> float:
        """Two for each weight of the linear layers and of the classification head."""
        attention = 2 * self.width * self.width + 2 * self.width * self.key_width
        mlp = 3 * self.width * self.inner_width
        return 2.0 * (self.layers * (attention + mlp) + self.width * self.labels)

    @property
    def attention_flops_per_token(self) -> float:
        """Scores and weighted values of a causal kernel, two FLOPs for each product."""
        return 4.0 * self.layers * self.width * CAUSAL_PAIRS_PER_TOKEN

    @property
    def flops_per_token(self) -> float:
        return self.linear_flops_per_token + self.attention_flops_per_token

    @property
    def score_bytes_per_token(self) -> float:
        """What the math kernel writes and reads for the scores."""
        scores = self.layers * self.heads * SQUARE_PAIRS_PER_TOKEN
        return scores * SCORE_PASSES * SCORE_BYTES


def load_architecture(file: Path = ARCHITECTURE) -> Architecture:
    values = json.loads(file.read_text(encoding="utf-8"))
    return Architecture(
        layers=values["num_hidden_layers"],
        width=values["hidden_size"],
        heads=values["num_attention_heads"],
        key_value_heads=values["num_key_value_heads"],
        inner_width=values["intermediate_size"],
        labels=values["num_labels"],
    )


def element_wise_bytes_per_layer(model: Architecture, element_bytes: int) -> int:
    """What the operators of a layer between its products read and write for each token.

    - Two norms, in float32: square (4 + 4 bytes), mean (4), times the root (4 + 4), times the
      weight (read and write); with 2-byte weights a cast before (2 + 4) and one after (4 + 2).
    - Rotation of queries and keys: times the cosine (2 passes), half of them negated (1), both
      halves joined (2), times the sine (2), added (3).
    - SiLU (2 passes) and its product with the other projection (3); two residual additions (3).
    """
    norm = 4 + 4 + 4 + 4 + 4 + 2 * element_bytes
    if element_bytes < 4:
        norm += 2 * (element_bytes + 4)
    rotation = 10 * element_bytes * (model.width + model.key_width)
    mlp = 5 * element_bytes * model.inner_width
    residuals = 2 * 3 * element_bytes * model.width
    return 2 * norm * model.width + rotation + mlp + residuals


def fused_bytes_per_layer(model: Architecture, element_bytes: int) -> int:
    """The same where a compiler leaves one kernel between two products.

    - A residual addition with the norm after it: two reads, two writes; twice.
    - Rotation: a read and a write. SiLU and its product: two reads and a write.
    """
    norms = 2 * 4 * element_bytes * model.width
    rotation = 2 * element_bytes * (model.width + model.key_width)
    mlp = 3 * element_bytes * model.inner_width
    return norms + rotation + mlp


def kernels_per_layer(element_bytes: int) -> int:
    """Kernels of a layer that runs operator by operator, without those of attention.

    Two norms of 6 kernels, or 8 with their casts; 7 linear layers; rotations of 2 times 5; SiLU and
    product; two residual additions.
    """
    norm = 6 if element_bytes == 4 else 8
    return 2 * norm + 7 + 10 + 2 + 2


# Compiled: the linear layers and one kernel between each two products.
FUSED_KERNELS_PER_LAYER = 7 + 5
# A fused kernel is one, and repeating the heads of keys and values takes a copy each. The math
# kernel: scaled queries and keys, two repeats, a mask of three, two products, the mask added,
# softmax, and four to keep rows without a key apart.
ATTENTION_KERNELS = {"fused": 1, "fused, repeated heads": 3, "math": 15}
# Embedding, angles of the rotation, the last norm, the classification head, the choice of a token.
KERNELS_BESIDE_LAYERS = 22


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A state of the evaluation.

    Args:
        plans: for a budget of 4,096 and of 16,384 tokens.
        stores_scores: whether the math kernel computes float32 attention.
        is_fused: whether ``evaluation.compile`` joins element-wise operators.
    """

    name: str
    plans: tuple[BatchPlan, BatchPlan]
    stores_scores: bool = False
    is_fused: bool = False


CHANGES = (
    Change(name="as it was", plans=PARTLY_FULL, stores_scores=True),
    Change(name="no stored scores", plans=PARTLY_FULL),
    Change(name="full batches", plans=FULL),
    Change(name="fused element-wise", plans=FULL, is_fused=True),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Expectation:
    """Of one precision after one change.

    Args:
        product_us, copy_us: for each computed token at the rates of the data sheet.
        kernels: of a forward.
        shares: of the matrix rate, from pessimistic to optimistic, for each budget.
    """

    precision: str
    change: str
    product_us: float
    copy_us: float
    kernels: int
    shares: tuple[tuple[float, float], tuple[float, float]]


def expect(model: Architecture, precision: str, change: Change) -> Expectation:
    element_bytes = 2 if precision == "bfloat16" else 4
    layer_bytes = element_wise_bytes_per_layer(model, element_bytes)
    layer_kernels = kernels_per_layer(element_bytes)
    attention = "fused"
    if element_bytes == 4:
        attention = "math" if change.stores_scores else "fused, repeated heads"
    if change.is_fused:
        layer_bytes = fused_bytes_per_layer(model, element_bytes)
        layer_kernels = FUSED_KERNELS_PER_LAYER
    layer_kernels += ATTENTION_KERNELS[attention]
    num_bytes = float(model.layers * layer_bytes)
    if attention == "math":
        num_bytes += model.score_bytes_per_token
    product_us = model.flops_per_token / MATRIX_FLOPS_PER_S[precision] * 1e6
    copy_us = num_bytes / BYTES_PER_S * 1e6
    kernels = model.layers * layer_kernels + KERNELS_BESIDE_LAYERS
    small, large = change.plans
    return Expectation(
        precision=precision,
        change=change.name,
        product_us=product_us,
        copy_us=copy_us,
        kernels=kernels,
        shares=(
            share_range(product_us, copy_us, kernels, small),
            share_range(product_us, copy_us, kernels, large),
        ),
    )


def share_range(
    product_us: float, copy_us: float, kernels: int, plan: BatchPlan
) -> tuple[float, float]:
    """Share of the matrix rate that the real tokens reach, pessimistic and optimistic.

    A forward takes as long as the host or the device, whichever takes longer.
    """
    shares = []
    assumptions = zip(PRODUCT_SHARE, COPY_SHARE, LAUNCH_US, strict=True)
    for product_share, copy_share, launch_us in assumptions:
        device_us = plan.tokens_per_forward * (product_us / product_share + copy_us / copy_share)
        host_us = kernels * launch_us
        useful_us = plan.tokens_per_forward * product_us / plan.padding
        shares.append(useful_us / max(device_us, host_us))
    return shares[0], shares[1]


def expectations() -> Iterator[Expectation]:
    """Every precision after each change that matters to it."""
    model = load_architecture()
    for precision in MATRIX_FLOPS_PER_S:
        for change in CHANGES:
            if change.name == "no stored scores" and precision == "bfloat16":
                # Its kernel stored none before.
                continue
            yield expect(model, precision, change)


def padding_speedup() -> float:
    """How many times faster full batches are than batches of 32 in file order, by padding alone."""
    return PADDING_IN_FILE_ORDER / FULL[1].padding


def table_lines() -> Iterator[str]:
    """The table as Markdown."""
    yield (
        "| precision | after | products, µs a token | bytes, µs a token | kernels a forward "
        "| share of the matrix rate, budget 4,096 | budget 16,384 |"
    )
    yield "|---|---|---|---|---|---|---|"
    for row in expectations():
        small, large = row.shares
        yield (
            f"| {row.precision} | {row.change} | {row.product_us:.2f} | {row.copy_us:.2f} "
            f"| {row.kernels:,} | {_range(small)} | {_range(large)} |"
        )


def _range(shares: tuple[float, float]) -> str:
    low, high = shares
    return f"{low:.0%} to {high:.0%}"


def main() -> int:
    print("\n".join(table_lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
