"""What every operator call has to do at least: FLOPs and bytes moved, counted from shapes.

FLOPs are those of matrix products, convolutions and attention: torch.utils.flop_counter's formulas,
and one of our own for fused attention, which counts the pairs of query and key that its kernel
computes: where ``is_causal`` is set and queries are as many as keys, the triangle with its
diagonal, L * (L + 1) / 2 of L * L; with a mask instead, or as products of their own (eager), the
square. Element-wise operators, reductions and normalisations count none: their time is that of the
bytes they move. Padding counts as work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

Shapes = tuple[tuple[int, ...], ...]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PRODUCT_WORDS = _words(
    "mm addmm bmm baddbmm addbmm mv addmv dot vdot matmul linear bilinear trilinear conv"
    " convolution conv1d conv2d conv3d cdist attention attn transformer lstm gru rnn"
)
"""Words in the names of operators that multiply matrices: without a formula, FLOPs are unknown."""
LOOKUPS = frozenset(("embedding", "index", "index_select", "gather"))
"""These read no more of their first input than they put out."""
NO_BYTES = _words(
    "empty empty_like empty_strided new_empty new_empty_strided resize_ detach_ squeeze_ unsqueeze_"
    " transpose_ t_ as_strided_"
)
"""These only allocate, or change in place how a tensor is looked at."""
WRITE_ONLY = frozenset(("copy_", "fill_", "zero_"))
"""These work in place, without reading what they overwrite."""
ONLY_IN_PLACE = frozenset(("copy_", "resize_"))
"""Operators that exist only in place: their names end in an underscore."""
# All have one formula here: the registry's own count a causal square in full and refuse grouped
# heads before torch 2.12; it has none for the first two, the first of which is the CPU's.
FUSED_ATTENTION = frozenset(
    (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_fused_attention_overrideable",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
)
CATEGORIES = {
    "matrix product": "mm addmm bmm baddbmm _scaled_mm convolution _convolution linear matmul",
    "normalisation": "native_layer_norm _fused_rms_norm layer_norm rms_norm rsqrt",
    "reduction": (
        "sum mean prod max min amax amin argmax argmin cumsum var linalg_vector_norm _softmax"
        " _log_softmax _safe_softmax any all"
    ),
    "copy": (
        "copy_ clone _to_copy cat stack fill_ zero_ fill zero embedding index index_select gather"
    ),
    "element-wise": (
        "add sub rsub mul div neg abs reciprocal sqrt pow exp log sin cos tanh erf relu maximum"
        " minimum clamp clamp_min addcmul lerp sigmoid silu gelu where masked_fill"
    ),
}
"""Names of operators by what kind of work they do."""
CATEGORY_BY_NAME = {name: kind for kind, names in CATEGORIES.items() for name in names.split()}


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorCost:
    """The calls of one operator on one set of tensor shapes, all together.

    Args:
        flops: 0 for operators that multiply no matrices; None where no formula is known.
    """

    name: str
    input_shapes: Shapes
    calls: int
    flops: int | None
    bytes_moved: int


@dataclass(slots=True)
class _Total:
    """What was counted so far of one operator on one set of shapes."""

    calls: int = 0
    flops: int | None = 0
    bytes_moved: int = 0

    def add(self, flops: int | None, bytes_moved: int) -> None:
        self.calls += 1
        self.bytes_moved += bytes_moved
        if flops is None or self.flops is None:
            self.flops = None
        else:
            self.flops += flops


class CostCounter(TorchDispatchMode):  # type: ignore[misc, unused-ignore]
    """Counts while it is entered; composite operators are counted by their parts."""

    def __init__(self) -> None:
        super().__init__()
        self.totals: dict[tuple[str, Shapes], _Total] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket not in flop_registry:
            # In inference mode a composite operator, such as aten::linear, arrives here as one
            # call, but the profiler records its parts, such as aten::addmm. So the parts are
            # counted: PyTorch switches this mode off inside this method, and `with self` switches
            # it on again for the calls that decompose makes.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        out = func(*args, **kwargs)
        key = (func._schema.name, _recorded_shapes((*args, *kwargs.values())))
        total = self.totals.setdefault(key, _Total())
        total.add(count_flops(func, args, kwargs, out), count_bytes(func, args, kwargs, out))
        return out


def count_op_costs(run: Callable[[], object]) -> tuple[OperatorCost, ...]:
    """The costs of one call of ``run``, by operator and set of shapes, in order of first call."""
    with torch.inference_mode(), CostCounter() as counter:
        run()
    costs = []
    for (name, shapes), total in counter.totals.items():
        costs.append(
            OperatorCost(
                name=name,
                input_shapes=shapes,
                calls=total.calls,
                flops=total.flops,
                bytes_moved=total.bytes_moved,
            )
        )
    return tuple(costs)


def base_op_name(name: str) -> str:
    """``aten::add_`` is ``add``; operators that exist only in place keep their underscore."""
    bare = name.rpartition("::")[2]
    if bare in ONLY_IN_PLACE or bare.endswith("__"):
        return bare
    return bare.removesuffix("_")


def operator_category(name: str) -> str:
    """What kind of work an operator does."""
    base = base_op_name(name)
    if "attention" in base or "flash_attn" in name:
        return "attention"
    return CATEGORY_BY_NAME.get(base, "other")


def show_shapes(shapes: Shapes) -> str:
    """``8x10x32, 32``"""
    return ", ".join("x".join(map(str, shape)) for shape in shapes)


def count_flops(func: Any, args: Any, kwargs: Any, out: Any) -> int | None:
    """FLOPs of one call: 0 where it multiplies no matrices, None where no formula is known."""
    name = func._schema.name
    if base_op_name(name) in FUSED_ATTENTION or "flash_attn" in name:
        names = [argument.name for argument in func._schema.arguments]
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        return _attention_flops(arguments)
    packet = func._overloadpacket
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=out))
    if _may_multiply_matrices(name) and not _is_view(func, args, kwargs, out):
        return None
    return 0


def _may_multiply_matrices(name: str) -> bool:
    """Whether an operator's name says so, or it is not PyTorch's own and may do anything."""
    namespace, _, bare = name.rpartition("::")
    return namespace != "aten" or not PRODUCT_WORDS.isdisjoint(bare.split("_"))


def _attention_flops(arguments: dict[str, Any]) -> int | None:
    """FLOPs of a fused forward; key-value heads count as often as they are used.

    Returns:
        None for flash-attn's other operators.
    """
    if "query" in arguments:
        lengths = _pytorch_lengths(arguments)
        heads, query_width = arguments["query"].shape[1], arguments["query"].shape[-1]
        value_width = arguments["value"].shape[-1]
    elif {"q", "k", "v"} <= arguments.keys():
        lengths = _flash_attn_lengths(arguments)
        heads, query_width = arguments["q"].shape[-2:]
        value_width = arguments["v"].shape[-1]
    else:
        return None
    causal = arguments.get("is_causal", arguments.get("causal", False))
    pairs = 0
    for queries, keys in lengths:
        if causal and queries == keys:
            pairs += queries * (queries + 1) // 2
        else:
            pairs += queries * keys
    return int(2 * pairs * heads * (query_width + value_width))


def _pytorch_lengths(arguments: dict[str, Any]) -> list[tuple[int, int]]:
    """Queries and keys of each sequence; tensors are batch x heads x length x width."""
    batch, _, queries, _ = arguments["query"].shape
    return [(queries, arguments["value"].shape[-2])] * batch


def _flash_attn_lengths(arguments: dict[str, Any]) -> list[tuple[int, int]]:
    """Queries and keys of each sequence.

    Tensors are batch x length x heads x width or, where ``cu_seqlens_q`` says where each sequence
    begins and where the last one ends, sequences end to end without padding.
    """
    if "cu_seqlens_q" not in arguments:
        batch, queries = arguments["q"].shape[:2]
        return [(queries, arguments["k"].shape[1])] * batch
    queries_each = arguments["cu_seqlens_q"].diff().tolist()
    keys_each = arguments["cu_seqlens_k"].diff().tolist()
    return list(zip(queries_each, keys_each, strict=True))


def count_bytes(func: Any, args: Any, kwargs: Any, out: Any) -> int:
    """Bytes that one call must read and write at least.

    Every distinct tensor counts once, views count nothing, expanded elements once.
    """
    bare = func._schema.name.rpartition("::")[2]
    if bare in NO_BYTES or _is_view(func, args, kwargs, out):
        return 0
    written = sum(stored_bytes(tensor) for tensor in _tensors(out))
    inputs = _tensors((args[1:] if bare in WRITE_ONLY else args, _without_outs(func, kwargs)))
    read = 0
    if base_op_name(bare) in LOOKUPS and inputs:
        read += min(stored_bytes(inputs[0]), written)
        inputs = inputs[1:]
    for tensor in _distinct(inputs):
        read += stored_bytes(tensor)
    return read + written


def stored_bytes(tensor: torch.Tensor) -> int:
    """Bytes of the elements that are really there: an expanded dimension counts once.

    Layouts other than strided count their dense size.
    """
    if tensor.layout != torch.strided or tensor.numel() == 0:
        return tensor.numel() * tensor.element_size()
    sizes = []
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        if stride != 0:
            sizes.append(size)
    return math.prod(sizes) * tensor.element_size()


def _recorded_shapes(values: Iterable[Any]) -> Shapes:
    """Shapes of the tensors that are arguments themselves, as the profiler records them."""
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return tuple(tuple(tensor.shape) for tensor in tensors if tensor.dim())


def _without_outs(func: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """What is read of the named arguments: not ``out=``."""
    outs = {argument.name for argument in func._schema.arguments if argument.is_out}
    return {name: value for name, value in kwargs.items() if name not in outs}


def _distinct(tensors: Iterable[torch.Tensor]) -> Iterable[torch.Tensor]:
    """Each look at a memory once."""
    by_place = {}
    for tensor in tensors:
        place = (_storage(tensor), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        by_place[place] = tensor
    return by_place.values()


def _storage(tensor: torch.Tensor) -> int:
    """Identity of what a tensor looks at; the data pointer is 0 for every empty tensor."""
    return int(tensor.untyped_storage()._cdata)


def _is_view(func: Any, args: Any, kwargs: Any, out: Any) -> bool:
    """Whether a call only gave a new look at its inputs.

    That includes ``to`` and ``contiguous`` where they have nothing to do.
    """
    outputs = _tensors(out)
    if func._schema.is_mutable or not outputs:
        return False
    sources = {_storage(tensor) for tensor in _tensors((args, kwargs))}
    return all(_storage(tensor) in sources for tensor in outputs)


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
