"""Time by module of the model, from ranges that carry the modules' names in a trace."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import nn
from torch.profiler import record_function

from utils.diagnosis.kernels import Event, find_kernels
from utils.schema.profile import KindTime, LayerTime

PROJECTIONS = frozenset(
    ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
)
HEADS = frozenset(("score", "classifier"))
CLASS_KINDS = (
    ("attention", r"Attention$"),
    ("mlp", r"MLP$"),
    ("rotary", r"RotaryEmbedding$"),
    ("norm", r"Norm\d?d?$"),
)
ROOT = "(model)"
"""The model itself, which has no dotted name."""
COLUMNS = (
    "module",
    "kind",
    "layer_index",
    "calls",
    "time_ms",
    "self_time_ms",
    "share_pct",
)


@dataclass(slots=True)
class ModuleCall:
    """One call of a module in a trace, in microseconds.

    Args:
        forward: which of the traced forward passes it belongs to, from 0.
        caller: position of the call that made this one; None for the model itself.
        self_us: without the calls that it makes; on CUDA the time of its own kernels, NaN where
            the trace holds no kernels.
        total_us: with the calls that it makes.
    """

    module: str
    begin_us: float
    end_us: float
    forward: int
    caller: int | None
    self_us: float = 0.0
    total_us: float = 0.0


def module_kind(model: nn.Module, name: str, module: nn.Module) -> str:
    """What a module is for, by its name in the model and its class; else the class's name."""
    container, _, last = name.rpartition(".")
    class_name = type(module).__name__
    if last in PROJECTIONS:
        return last
    if last in HEADS:
        return "score"
    if module is model or module is getattr(model, "base_model", None):
        return "model"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if last.isdigit() and isinstance(model.get_submodule(container), nn.ModuleList):
        return "layer"
    for kind, pattern in CLASS_KINDS:
        if re.search(pattern, class_name):
            return kind
    return class_name


def layer_index(name: str) -> int | None:
    """The first number in a module's dotted name."""
    for part in name.split("."):
        if part.isdigit():
            return int(part)
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTimes:
    """Time by module of the average batch.

    Args:
        table: ``layers.csv``.
        traced_forward_ms: how long the forward took in the trace, which lengthens it; None where
            no time was measured.
    """

    table: pd.DataFrame
    traced_forward_ms: float | None


@contextmanager
def annotate_modules(model: nn.Module) -> Iterator[None]:
    """While open, every call of a module is a range in the trace under the module's name."""
    ranges: list[record_function] = []

    def open_range(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            ranges.append(record_function(name))
            ranges[-1].__enter__()

        return hook

    def close_range(*_: Any) -> None:
        ranges.pop().__exit__(None, None, None)

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.enter_context(module.register_forward_pre_hook(open_range(name or ROOT)))
            # A forward that raises must not leave its range open.
            after = module.register_forward_hook(close_range, always_call=True)
            hooks.enter_context(after)
        yield


def find_calls(
    events: Sequence[Event], modules: Collection[str], *, on_cuda: bool
) -> list[ModuleCall]:
    """The calls of the named modules in a trace, with their times, in order of their begin."""
    calls = _nested_calls(events, modules)
    if on_cuda:
        _add_kernel_times(calls, events)
    else:
        _add_host_times(calls)
    # A call comes after its caller, so that going backwards each total is final when it is added.
    for call in reversed(calls):
        call.total_us += call.self_us
        if call.caller is not None:
            calls[call.caller].total_us += call.total_us
    return calls


def measure_layers(
    model: nn.Module,
    events: Sequence[Event],
    num_batches: int,
    forward_ms: float,
    *,
    on_cuda: bool,
) -> LayerTimes:
    """Means over the batches, from the fastest traced forward of each.

    Shares are those of the traced forward; milliseconds are shares of ``forward_ms``. On the CPU
    they are the host's time, on CUDA the time of the kernels that a module launched; empty where
    the trace holds no kernels.

    Args:
        events: of a trace in which :func:`annotate_modules` was open; its forward passes take the
            batches in turn.
        forward_ms: the untraced forward of the average batch.
    """
    modules = {name or ROOT: module for name, module in model.named_modules()}
    frame = _to_frame(find_calls(events, modules, on_cuda=on_cuda))
    frame = frame[frame["forward"].isin(_fastest_forwards(frame, num_batches))]
    sums = frame.groupby("module", sort=False).agg(
        calls=("module", "size"), total_us=("total_us", _sum), self_us=("self_us", _sum)
    )
    num_forwards = max(1, frame["forward"].nunique())
    forward_us = sums["self_us"].sum(min_count=1)
    share = sums / forward_us
    table = pd.DataFrame(
        {
            "module": sums.index,
            "kind": [_kind(model, name, modules[name]) for name in sums.index],
            "layer_index": pd.array([layer_index(name) for name in sums.index], dtype="Int64"),
            "calls": (sums["calls"] / num_forwards).to_numpy(),
            "time_ms": (share["total_us"] * forward_ms).to_numpy(),
            "self_time_ms": (share["self_us"] * forward_ms).to_numpy(),
            "share_pct": (100 * share["self_us"]).to_numpy(),
        },
        columns=list(COLUMNS),
    )
    traced_ms = None if pd.isna(forward_us) else float(forward_us) / num_forwards / 1e3
    return LayerTimes(table=table, traced_forward_ms=traced_ms)


def aggregate_by_kind(table: pd.DataFrame) -> tuple[KindTime, ...]:
    """Own time of the modules by kind, the longest first; none where no time was measured."""
    sums = _sum_times(table, "kind").sort_values("self_time_ms", ascending=False)
    times = []
    for kind, self_time_ms, share_pct in sums.itertuples():
        times.append(KindTime(kind=str(kind), self_time_ms=self_time_ms, share_pct=share_pct))
    return tuple(times)


def aggregate_by_layer(table: pd.DataFrame) -> tuple[LayerTime, ...]:
    """Own time of the modules by layer; the modules outside of the layers come last."""
    times = []
    for index, self_time_ms, share_pct in _sum_times(table, "layer_index").itertuples():
        number = None if pd.isna(index) else int(index)
        times.append(LayerTime(layer_index=number, self_time_ms=self_time_ms, share_pct=share_pct))
    return tuple(times)


def _sum_times(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """``self_time_ms`` and ``share_pct`` of the modules whose time was measured, added up."""
    measured = table[table["self_time_ms"].notna()]
    return measured.groupby(by, dropna=False)[["self_time_ms", "share_pct"]].sum()


def _nested_calls(events: Sequence[Event], modules: Collection[str]) -> list[ModuleCall]:
    """Which module called which, without times; each call of the model begins a forward."""
    ranges = []
    for event in events:
        is_range = event.get("ph") == "X" and event.get("cat") == "user_annotation"
        if is_range and event["name"] in modules:
            begin_us = float(event["ts"])
            ranges.append((begin_us, begin_us + float(event["dur"]), event["name"]))
    # Of ranges that begin together the longer one is the caller.
    ranges.sort(key=lambda one: (one[0], -one[1]))
    calls: list[ModuleCall] = []
    open_calls: list[int] = []
    forward = -1
    for begin_us, end_us, name in ranges:
        while open_calls and calls[open_calls[-1]].end_us < end_us:
            open_calls.pop()
        if not open_calls:
            forward += 1
        caller = open_calls[-1] if open_calls else None
        open_calls.append(len(calls))
        calls.append(ModuleCall(name, begin_us, end_us, forward, caller))
    return calls


def _add_host_times(calls: Sequence[ModuleCall]) -> None:
    """A call's own time is its length less those of the calls that it makes."""
    for call in calls:
        length_us = call.end_us - call.begin_us
        call.self_us += length_us
        if call.caller is not None:
            calls[call.caller].self_us -= length_us


def _add_kernel_times(calls: Sequence[ModuleCall], events: Sequence[Event]) -> None:
    """A call's own time is that of the kernels that were launched in it and in no call below."""
    kernels = find_kernels(events).dropna(subset="launch_us")
    if kernels.empty:
        for call in calls:
            call.self_us = float("nan")
        return
    begins_us = [call.begin_us for call in calls]
    for launch_us, begin_us, end_us in kernels[["launch_us", "begin_us", "end_us"]].itertuples(
        index=False
    ):
        position: int | None = bisect_right(begins_us, launch_us) - 1
        if position == -1:
            # Launched before the model was called.
            continue
        # The last call that began before may have ended: then it was a caller of it.
        while position is not None and calls[position].end_us < launch_us:
            position = calls[position].caller
        if position is not None:
            calls[position].self_us += end_us - begin_us


def _to_frame(calls: Sequence[ModuleCall]) -> pd.DataFrame:
    rows = [(call.forward, call.module, call.total_us, call.self_us) for call in calls]
    return pd.DataFrame(rows, columns=["forward", "module", "total_us", "self_us"])


def _fastest_forwards(frame: pd.DataFrame, num_batches: int) -> pd.Series[int]:
    """Of each batch the forward pass that took least; any where times were not measured."""
    length_us = frame.groupby("forward")["self_us"].sum()
    batch = length_us.index % num_batches
    return length_us.groupby(batch).idxmin()


def _sum(values: pd.Series[float]) -> float:
    """NaN where nothing was measured, which is not 0."""
    return float(values.sum(min_count=1))


def _kind(model: nn.Module, name: str, module: nn.Module) -> str:
    return module_kind(model, "" if name == ROOT else name, module)
