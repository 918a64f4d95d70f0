"""What every operator call has to do at least: floating-point operations and bytes moved, counted from shapes.

FLOPs of matrix products and convolutions are torch.utils.flop_counter's formulas. Fused attention counts the pairs of query
and key that its kernel computes: where it is told ``is_causal`` and queries are as many as keys, the triangle with its
diagonal, L * (L + 1) / 2 of L * L; with a mask instead, or as products of their own (eager), the square. Element-wise
operators, reductions and normalisations count one FLOP for each addition, multiplication, comparison or elementary function
of their textbook formula. Padding counts as work.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

Shapes = tuple[tuple[int, ...], ...]


def _flops(by_names: dict[str, int]) -> dict[str, int]:
    """From several names to a number to one name to a number."""
    return {name: flops for names, flops in by_names.items() for name in names.split()}


PER_OUTPUT_ELEMENT = _flops({
    "add sub rsub mul div neg abs reciprocal sqrt rsqrt pow exp log sin cos tanh erf relu maximum minimum clamp clamp_min": 1,
    "addcmul": 2,
    "lerp": 3,  # subtract, multiply, add
    "sigmoid": 4,  # negate, exponential, add, reciprocal
    "silu": 4,  # negate, exponential, add, divide
    "gelu": 5,  # scale, error function, add, multiply, halve
})
PER_INPUT_ELEMENT = _flops({  # of the first input
    "sum mean prod max min amax amin argmax argmin cumsum": 1,
    "var": 4,  # sum, subtract, square, sum
    "linalg_vector_norm": 2,  # square, sum
    "_softmax _log_softmax _safe_softmax": 5,  # maximum, subtract, exponential, sum, divide
    "native_layer_norm": 7,  # sum, subtract, square, sum, scale, weight, bias
    "_fused_rms_norm": 4,  # square, sum, scale, weight
})
NO_FLOPS = _flops({  # they move, compare or make values but compute none
    "copy_ clone _to_copy cat stack embedding index index_select gather slice_scatter select_scatter masked_fill where fill zero "
    "zeros zeros_like ones ones_like full full_like new_zeros new_ones new_full new_empty new_empty_strided empty empty_like "
    "empty_strided arange scalar_tensor lift_fresh eq ne lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and "
    "bitwise_or bitwise_not bitwise_xor any all isin isnan isinf constant_pad_nd repeat tril triu _local_scalar_dense resize_ flip "
    "roll detach squeeze unsqueeze transpose t as_strided repeat_interleave nonzero scatter index_put": 0,
})
LOOKUPS = frozenset(("embedding", "index", "index_select", "gather"))  # read no more of their first input than they put out
NO_BYTES = frozenset((  # they only allocate, or change in place how a tensor is looked at
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "detach_", "squeeze_", "unsqueeze_",
    "transpose_", "t_", "as_strided_",
))
WRITE_ONLY = frozenset(("copy_", "fill_", "zero_"))  # in place, without reading what they overwrite
# All have one formula here: the registry's own count a causal square whole and refuse grouped heads before torch 2.12, and it
# has none for the first two.
FORWARD_ATTENTION = frozenset(f"_scaled_dot_product_{kernel}" for kernel in (
    "flash_attention_for_cpu", "fused_attention_overrideable", "flash_attention", "efficient_attention", "cudnn_attention"
))
CATEGORIES = (
    ("matrix product", ("mm", "addmm", "bmm", "baddbmm", "_scaled_mm", "convolution", "_convolution", "linear", "matmul")),
    ("normalisation", ("native_layer_norm", "_fused_rms_norm", "layer_norm", "rms_norm", "rsqrt")),
    ("reduction", tuple(PER_INPUT_ELEMENT) + ("any", "all")),
    ("copy", ("copy_", "clone", "_to_copy", "cat", "stack", "fill_", "zero_", "fill", *LOOKUPS)),
    ("element-wise", (*PER_OUTPUT_ELEMENT, "where", "masked_fill")),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorCost:
    """The calls of one operator on one set of tensor shapes. ``flops`` is None where no formula is known."""

    name: str
    input_shapes: Shapes
    calls: int
    flops: int | None
    bytes_moved: int


class CostCounter(TorchDispatchMode):  # type: ignore[misc, unused-ignore]
    """Counts while it is entered; composite operators are counted by their parts."""

    def __init__(self) -> None:
        super().__init__()
        self.totals: dict[tuple[str, Shapes], list[Any]] = {}  # calls, FLOPs, bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket not in flop_registry:
            # Under inference mode composite operators arrive whole; the profiler sees their parts.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        out = func(*args, **kwargs)
        # Of tensors with at least one dimension that are arguments themselves, as the profiler records them.
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor) and value.dim())
        total = self.totals.setdefault((func._schema.name, tuple(tuple(tensor.shape) for tensor in tensors)), [0, 0, 0])
        flops = count_flops(func, args, kwargs, out)
        total[0] += 1
        total[1] = None if flops is None or total[1] is None else total[1] + flops
        total[2] += count_bytes(func, args, kwargs, out)
        return out


def count(run: Callable[[], object]) -> tuple[OperatorCost, ...]:
    """The costs of one call of ``run``: one record for each operator and set of shapes, in order of first call."""
    with torch.inference_mode(), CostCounter() as counter:
        run()
    return tuple(
        OperatorCost(name=name, input_shapes=shapes, calls=calls, flops=flops, bytes_moved=moved)
        for (name, shapes), (calls, flops, moved) in counter.totals.items()
    )


def plain_name(name: str) -> str:
    """``aten::add_`` is ``add``; operators that exist only in place keep their underscore."""
    bare = name.rpartition("::")[2]
    in_place = bare.endswith("_") and not bare.endswith("__") and bare not in NO_FLOPS
    return bare[:-1] if in_place else bare


def category(name: str) -> str:
    """What kind of work an operator does."""
    bare = plain_name(name)
    if "attention" in bare or "flash_attn" in name:
        return "attention"
    return next((kind for kind, names in CATEGORIES if bare in names), "other")


def show_shapes(shapes: Shapes) -> str:
    """``8x10x32, 32``"""
    return ", ".join("x".join(map(str, shape)) for shape in shapes)


def count_flops(func: Any, args: Any, kwargs: Any, out: Any) -> int | None:
    """FLOPs of one call; None where no formula is known."""
    packet = func._overloadpacket
    bare = plain_name(func._schema.name)
    if bare in FORWARD_ATTENTION or "flash_attn" in func._schema.name:
        names = [argument.name for argument in func._schema.arguments]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return _attention_flops(given)
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=out))
    if bare in NO_FLOPS or _is_view(func, args, kwargs, out):
        return 0
    factor, counted = PER_OUTPUT_ELEMENT.get(bare), _tensors(out)
    if factor is None:
        factor, counted = PER_INPUT_ELEMENT.get(bare), [value for value in args[:1] if isinstance(value, torch.Tensor)]
    if factor is None or not counted:
        return None
    return factor * sum(tensor.numel() for tensor in counted if tensor.is_floating_point())


def _attention_flops(given: dict[str, Any]) -> int | None:
    """FLOPs of a fused forward; key-value heads count as often as they are used. None for flash-attn's other operators."""
    if "query" in given:  # PyTorch's: batch x heads x length x width
        batch, heads, queries, width = given["query"].shape
        lengths, values = [(queries, given["value"].shape[-2])] * batch, given["value"]
    elif {"q", "k", "v"} <= given.keys():  # flash-attn's: batch x length x heads x width, or sequences end to end without padding
        (*_, heads, width), values = given["q"].shape, given["v"]
        if "cu_seqlens_q" in given:  # where each sequence begins, and where the last one ends
            lengths = list(zip(*(given[f"cu_seqlens_{which}"].diff().tolist() for which in "qk"), strict=True))
        else:
            lengths = [(given["q"].shape[1], given["k"].shape[1])] * given["q"].shape[0]
    else:
        return None
    causal = given.get("is_causal", given.get("causal", False))
    pairs = sum(q * (q + 1) // 2 if causal and q == k else q * k for q, k in lengths)
    return int(2 * pairs * heads * (width + values.shape[-1]))


def count_bytes(func: Any, args: Any, kwargs: Any, out: Any) -> int:
    """Bytes that one call must read and write at least: every distinct tensor once, views nothing, real elements only."""
    bare = func._schema.name.rpartition("::")[2]
    if bare in NO_BYTES or _is_view(func, args, kwargs, out):
        return 0
    written = sum(stored_bytes(tensor) for tensor in _tensors(out))
    # Neither ``out=`` nor what ``copy_`` or ``fill_`` overwrites is read.
    outs = {argument.name for argument in func._schema.arguments if argument.is_out}
    inputs = _tensors((args[bare in WRITE_ONLY :], {name: value for name, value in kwargs.items() if name not in outs}))
    looked_up = inputs[:1] if plain_name(bare) in LOOKUPS else []
    distinct = {(_storage(t), t.storage_offset(), tuple(t.shape), t.stride()): t for t in inputs[len(looked_up) :]}
    return sum(min(stored_bytes(t), written) for t in looked_up) + sum(map(stored_bytes, distinct.values())) + written


def stored_bytes(tensor: torch.Tensor) -> int:
    """Bytes of the elements that are really there: an expanded dimension counts once. Other layouts count their dense size."""
    if tensor.layout != torch.strided or tensor.numel() == 0:
        return tensor.numel() * tensor.element_size()
    sizes = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride != 0)
    return math.prod(sizes) * tensor.element_size()


def _storage(tensor: torch.Tensor) -> int:
    """Identity of what a tensor looks at; its data pointer will not do, for that is 0 for every empty tensor."""
    return int(tensor.untyped_storage()._cdata)


def _is_view(func: Any, args: Any, kwargs: Any, out: Any) -> bool:
    """Whether a call only gave a new look at its inputs (also ``to`` and ``contiguous`` with nothing to do)."""
    outputs = _tensors(out)
    if func._schema.is_mutable or not outputs:
        return False
    sources = {_storage(tensor) for tensor in _tensors((args, kwargs))}
    return all(_storage(tensor) in sources for tensor in outputs)


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
