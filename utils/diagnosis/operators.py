"""Operators: what they took beside what they had to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import replace

import numpy as np
import pandas as pd

from utils.diagnosis.findings import OperatorGroup
from utils.diagnosis.roofline import Attainable, attainable
from utils.model.costs import OperatorCost, operator_category, show_shapes
from utils.schema.ceilings import Ceilings

COLUMNS = (
    "operator",
    "calls",
    "input_shapes",
    "self_device_ms",
    "total_device_ms",
    "self_host_ms",
    "total_host_ms",
    "flops",
    "bytes_moved",
    "arithmetic_intensity",
    "memory_allocated_mb",
    "achieved_gflops_per_s",
    "achieved_gbytes_per_s",
    "share_pct",
    "attainable_ms",
    "ceiling",
    "ceiling_share",
)
KEY = ["operator", "input_shapes"]


def build_operator_table(
    times: pd.DataFrame, costs: Iterable[OperatorCost], batches: int, ceilings: Ceilings
) -> pd.DataFrame:
    """``operators.csv``: all operators, the longest self time first; every amount is per batch.

    FLOPs and bytes stand at one operator of each chain of calls, so that the columns add up: for
    ``aten::linear``, which calls ``aten::addmm``, they stand at ``aten::addmm`` alone. Achieved
    rates are over the total device time, shares over the sum of self device times (host times where
    the device's were not measured). Times are of the traced run, which tracing lengthens.
    ``ceiling_share`` is attainable over total device time: 1 is at the ``ceiling`` that decides.
    Unknown FLOPs stay empty.

    Args:
        times: per batch, from the trace.
        costs: of all ``batches`` together, counted on the same batches.
    """
    recorded = set(zip(times["operator"], times["input_shapes"], strict=True))
    named = _name_as_recorded(tuple(costs), recorded)
    table = times.merge(_work_table(named, batches, ceilings), how="outer", on=KEY)
    # Work that the profiler has under another name keeps its place in the sums, without a time.
    has_work = table[["flops", "bytes_moved"]].gt(0).any(axis=1)
    table = table[table["self_host_ms"].notna() | has_work]
    own_ms = table["self_device_ms"].fillna(table["self_host_ms"])
    total_ms = table["total_device_ms"].replace(0.0, np.nan)
    flops = table["flops"].replace(0.0, np.nan)
    bytes_moved = table["bytes_moved"].replace(0.0, np.nan)
    table = table.assign(
        calls=table["calls"].fillna(table["counted_calls"]),
        share_pct=100 * own_ms / (own_ms.sum() or np.nan),
        arithmetic_intensity=table["flops"] / bytes_moved,
        achieved_gflops_per_s=flops / total_ms / 1e6,
        achieved_gbytes_per_s=bytes_moved / total_ms / 1e6,
        ceiling=table["ceiling"].where(table["attainable_ms"].gt(0)),
        ceiling_share=table["attainable_ms"].replace(0.0, np.nan) / total_ms,
    )
    return table.sort_values("share_pct", ascending=False, kind="stable", ignore_index=True)


def _name_as_recorded(
    costs: Sequence[OperatorCost], recorded: Set[tuple[str, str]]
) -> list[OperatorCost]:
    """The costs under their in-place name where the profiler recorded that one alone.

    Attention's math kernel calls ``add_``, but ``add`` while a dispatch mode counts
    (``areAnyTensorSubclassLike`` in ATen). Both read and write the same number of bytes.

    Args:
        recorded: operators of the trace, each with its shapes.
    """
    counted = {(cost.name, cost.input_shapes) for cost in costs}
    named = []
    for cost in costs:
        in_place = replace(cost, name=f"{cost.name}_")
        shapes = show_shapes(cost.input_shapes)
        is_recorded = (cost.name, shapes) in recorded
        is_recorded_in_place = (in_place.name, shapes) in recorded
        is_counted_in_place = (in_place.name, cost.input_shapes) in counted
        if is_recorded_in_place and not is_recorded and not is_counted_in_place:
            named.append(in_place)
        else:
            named.append(cost)
    return named


def _work_table(costs: Iterable[OperatorCost], batches: int, ceilings: Ceilings) -> pd.DataFrame:
    """What each operator has to do per batch, and how long that takes at the ceilings."""
    rows = []
    for cost in costs:
        seconds, ceiling = attainable_all_calls(cost, ceilings)
        shapes = show_shapes(cost.input_shapes)
        amounts = (cost.calls, cost.flops, cost.bytes_moved, seconds * 1e3)
        rows.append((cost.name, shapes, *amounts, ceiling))
    amount_names = ["counted_calls", "flops", "bytes_moved", "attainable_ms"]
    work = pd.DataFrame(rows, columns=[*KEY, *amount_names, "ceiling"])
    work[amount_names] = work[amount_names].astype(float) / batches
    return work


def attainable_all_calls(cost: OperatorCost, ceilings: Ceilings) -> Attainable:
    """Time of all calls together at the ceilings, and which ceiling decides."""
    flops = None if cost.flops is None else cost.flops // cost.calls
    one = attainable(ceilings, flops, cost.bytes_moved / cost.calls)
    return Attainable(one.seconds * cost.calls, one.ceiling)


def group_operators(
    table: pd.DataFrame, traced_ms: float, forward_ms: float
) -> tuple[OperatorGroup, ...]:
    """Operators by kind, per average batch; scaled down where tracing lengthened their times.

    Args:
        traced_ms: untraced forward of the traced batches, which may be longer or shorter than
            ``forward_ms``, that of the average batch.
    """
    if not table["self_device_ms"].notna().any():
        # Nothing to compare with the ceilings.
        return ()
    # Operators that are made of others have a time of their own; work and calls are counted for
    # their parts.
    counted_calls = table["calls"].where(table["bytes_moved"].notna())
    table = table.assign(kind=table["operator"].map(operator_category), calls=counted_calls)
    sums = table.groupby("kind", sort=False)[["self_device_ms", "attainable_ms", "calls"]].sum()
    average = forward_ms / traced_ms
    untraced = average * untraced_share(table, traced_ms)
    groups = []
    for kind, own_ms, attainable_ms, calls in sums.itertuples():
        groups.append(
            OperatorGroup(
                kind=str(kind),
                measured_ms=untraced * own_ms,
                attainable_ms=average * attainable_ms,
                calls=calls,
            )
        )
    return tuple(groups)


def untraced_share(table: pd.DataFrame, traced_ms: float) -> float:
    """By what operators' traced times are multiplied: tracing can lengthen them, not shorten.

    Args:
        traced_ms: untraced forward of the traced batches.
    """
    operators_ms = max(table["self_device_ms"].sum(), 1e-9)
    return min(1.0, traced_ms / float(operators_ms))
