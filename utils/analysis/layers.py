"""Time by module of the model, measured with hooks around every forward call."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import nn
from torch.profiler import record_function

from utils.analysis.roofline import synchronize, timed

PROJECTIONS = frozenset(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"))
HEADS = frozenset(("score", "classifier"))
CLASS_KINDS = (("attention", r"Attention$"), ("mlp", r"MLP$"), ("rotary", r"RotaryEmbedding$"), ("norm", r"Norm\d?d?$"))
NAMED_IN_TRACE = frozenset(("layer", "attention", "mlp", "embedding", "score"))
CALIBRATION_CALLS, CALIBRATION_ROUNDS = 1000, 5
ROOT = "(model)"
PARTS_APART = 0.05  # modules' times that differ by more from the forward without hooks come with a warning


class HookCost(NamedTuple):
    """Seconds that hooks add to one call: inside the module's own clock, and outside of it, in the caller's."""

    inside_s: float
    outside_s: float


@dataclass(slots=True)
class _Call:
    """One call of a module: ``begin`` and ``end`` are ``perf_counter``'s seconds or CUDA events; ``hooks_s`` is in its time."""

    name: str
    caller: _Call | None
    begin: Any = None
    end: Any = None
    hooks_s: float = 0.0

    @property
    def ms(self) -> float:
        """Without what hooks took."""
        seconds = self.end - self.begin if isinstance(self.begin, float) else self.begin.elapsed_time(self.end) / 1e3
        return float(1e3 * (seconds - self.hooks_s))


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
    return next((kind for kind, pattern in CLASS_KINDS if re.search(pattern, class_name)), class_name)


def layer_index(name: str) -> int | None:
    """The first number in a module's dotted name."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def time_layers(
    model: nn.Module, forwards: Sequence[Callable[[], object]], repeats: int, device: torch.device, warnings: list[str]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Means over the forwards of different batches, from the fastest pass of each; passes with and without hooks take turns.

    Returns:
        ``layers.csv``, and for ``bottlenecks.json`` the parts held against the whole without hooks, and the roll-ups.
    """
    plain_ms, tables, taken_out_us = 0.0, [], []
    for forward in forwards:
        passes = [(timed(forward, device), *measure_layers(model, forward, device)) for _ in range(repeats)]
        plain_ms += min(seconds for seconds, *_ in passes) / len(forwards) * 1e3
        _, fastest, cost = min(passes, key=lambda one: one[1]["self_time_ms"].sum())
        tables.append(fastest)
        taken_out_us.append(sum(cost) * 1e6)
    table = mean_of(tables)
    parts_ms = float(table["self_time_ms"].sum())
    if abs(parts_ms / plain_ms - 1) > PARTS_APART:
        warnings.append(
            f"The modules' times add up to {parts_ms:.3g} ms where the forward without hooks takes {plain_ms:.3g} ms: "
            + ("hooks delay the launches." if device.type == "cuda" else "the machine was busy meanwhile, or calls are very short.")
        )
    return table, {
        "hooks": {"forward_ms": plain_ms, "forward_by_layers_ms": parts_ms, "taken_out_us_per_call": max(taken_out_us)},
        "layers_by_kind": roll_up(table, "kind"), "layers_by_index": roll_up(table, "layer_index"),
    }


def mean_of(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of several batches': means by module, shares anew."""
    mean = pd.concat(tables).groupby(["module", "kind", "layer_index"], sort=False, dropna=False).mean().reset_index()
    return mean.assign(share_pct=100 * mean["self_time_ms"] / mean["self_time_ms"].sum())


def roll_up(table: pd.DataFrame, by: str) -> list[dict[str, Any]]:
    """``self_time_ms`` and its share by ``kind``, the longest first, or by ``layer_index`` (None: outside of the layers)."""
    sums = table.groupby(by, dropna=False)[["self_time_ms", "share_pct"]].sum()
    sums = sums.sort_values("self_time_ms", ascending=False) if by == "kind" else sums.sort_index()
    return [{by: None if pd.isna(row[by]) else row[by], "self_time_ms": row["self_time_ms"], "share_pct": row["share_pct"]}
            for row in sums.reset_index().to_dict("records")]


def measure_layers(model: nn.Module, run: Callable[[], object], device: torch.device) -> tuple[pd.DataFrame, HookCost]:
    """Call ``run`` (which calls the model once) with hooks on every module, and add up the calls.

    On the CPU the clock is ``perf_counter`` and what the hooks cost, measured apart, is taken out. On CUDA it is events
    on the stream: hooks lengthen the host's work there and are stated, not taken out.

    Returns:
        ``layers.csv``: milliseconds of each module, ``self_time_ms`` without the modules that it calls.
    """
    # The median round: an interruption would make the hooks look dear.
    rounds = [HookCost(0.0, 0.0)] if device.type == "cuda" else sorted((_hook_cost() for _ in range(CALIBRATION_ROUNDS)), key=sum)
    cost = rounds[len(rounds) // 2]
    calls: list[_Call] = []
    with _timing_hooks(model, calls, device):
        run()
        synchronize(device)
    for call in reversed(calls):  # those that a call makes come after it
        call.hooks_s += cost.inside_s
        if call.caller is not None:
            call.caller.hooks_s += call.hooks_s + cost.outside_s
    spans = pd.DataFrame([(call.name, call.caller and call.caller.name, call.ms) for call in calls],
                         columns=["module", "caller", "ms"])
    table = spans.groupby("module", sort=False)["ms"].agg(calls="count", time_ms="sum").astype(float)
    own = table["time_ms"].sub(spans.groupby("caller")["ms"].sum().reindex(table.index, fill_value=0.0))
    return pd.DataFrame({
        "module": [name or ROOT for name in table.index],
        "kind": [module_kind(model, name, model.get_submodule(name)) for name in table.index],
        "layer_index": pd.array([layer_index(name) for name in table.index], dtype="Int64"),
        **table, "self_time_ms": own, "share_pct": 100 * own / own.sum(),
    }).reset_index(drop=True), cost


def _hook_cost() -> HookCost:
    """What timing hooks cost on the CPU, from a thousand calls of a module that does nothing."""
    child, cpu = nn.Identity(), torch.device("cpu")

    def mean_s(function: Callable[[Any], object]) -> float:
        return timed(partial(function, None), cpu, CALIBRATION_CALLS) / CALIBRATION_CALLS

    plain_s, nothing_s, calls = mean_s(child), mean_s(lambda value: value), list[_Call]()
    with _timing_hooks(child, calls, cpu):
        hooked_s = mean_s(child)
    inside_s = max(0.0, statistics.fmean(call.end - call.begin for call in calls) - nothing_s)
    return HookCost(inside_s, max(0.0, hooked_s - plain_s - inside_s))


@contextmanager
def _timing_hooks(model: nn.Module, calls: list[_Call], device: torch.device) -> Iterator[None]:
    """While open, every call of a module is put into ``calls`` with its begin, its end and its caller."""
    open_calls: list[_Call] = []

    def now() -> Any:
        if device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        return event

    def enter(name: str) -> None:
        call = _Call(name, open_calls[-1] if open_calls else None)
        open_calls.append(call)
        calls.append(call)
        call.begin = now()

    def leave() -> None:
        end = now()
        open_calls.pop().end = end

    with _around_modules(model.named_modules(), enter, leave):
        yield


@contextmanager
def named_in_trace(model: nn.Module) -> Iterator[None]:
    """While open, layers, their attention and MLP, embedding and head stand in a trace under their names."""
    chosen = [(name, module) for name, module in model.named_modules() if module_kind(model, name, module) in NAMED_IN_TRACE]
    ranges: list[record_function] = []

    def enter(name: str) -> None:
        ranges.append(record_function(name))
        ranges[-1].__enter__()

    def leave() -> None:
        ranges.pop().__exit__(None, None, None)

    with _around_modules(chosen, enter, leave):
        yield


@contextmanager
def _around_modules(
    modules: Iterable[tuple[str, nn.Module]], enter: Callable[[str], None], leave: Callable[[], None]
) -> Iterator[None]:
    with ExitStack() as hooks:
        for name, module in modules:
            hooks.enter_context(module.register_forward_pre_hook(lambda *_, name=name: enter(name)))
            # always_call: a forward that raises must not leave its range open.
            hooks.enter_context(module.register_forward_hook(lambda *_: leave(), always_call=True))
        yield
