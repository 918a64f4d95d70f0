"""Memory, as PyTorch's allocator hands it out: who holds the peak, what each layer adds, and the largest batch that fits."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from scipy.optimize import nnls
from torch import nn
from torch.profiler import ProfilerActivity, profile

from utils.analysis.kernels import STEP, Event, Interval
from utils.analysis.tracing import events_of
from utils.core.device import is_out_of_memory

Shape = tuple[int, int]
"""Batch and length."""
Forward = Callable[[dict[str, torch.Tensor]], object]

BATCHES = (2, 4, 8)
"""Batches that the model of memory is fitted to; one text alone has no padding, and so no mask, which takes memory."""
FEWEST_POINTS = 4
"""One more than the model has coefficients."""
MOST_SECONDS = 10.0
"""Further points are not measured after that long."""
MOST_ERROR = 0.1
"""A model that misses one of its own points by more is no model of this workload."""
LARGEST_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """The allocator gave out (or took back, ``change`` < 0) memory; ``allocated`` is all that it had given out then."""

    at_us: float
    change: int
    allocated: int
    address: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMemory:
    """The changes within one step, and what was allocated before it: nothing on the CPU, where earlier memory is not seen."""

    span: Interval
    before: int
    changes: tuple[Change, ...]

    @property
    def peak(self) -> Change:
        return max(self.changes, key=lambda change: change.allocated)

    @property
    def peak_bytes(self) -> int:
        """The most that was allocated on top of what was there before."""
        return max(0, self.peak.allocated - self.before)

    def allocated_at(self, at_us: float) -> int:
        """Bytes allocated on top of what was there before."""
        place = bisect_right(self.changes, at_us, key=lambda change: change.at_us)
        return self.changes[place - 1].allocated - self.before if place else 0


def analyse(
    events: Sequence[Event], shapes: Sequence[Shape | None], forward: Forward, model: nn.Module, device: torch.device,
    max_length: int, sweep: Sequence[Mapping[str, Any]], longest: int | None,
) -> tuple[dict[str, Any], StepMemory | None]:
    """The ``memory`` object of ``bottlenecks.json``, and the traced step with the highest peak.

    Args:
        events: of a trace of one step for each of ``shapes``: batch and length, None where nothing of it was padding.
        sweep, longest: as for :func:`predict`.
    """
    on_cuda = device.type == "cuda"
    steps = find_steps(events, on_cuda=on_cuda)
    largest = max(steps, key=lambda step: step.peak_bytes, default=None)
    weights_bytes = sum(tensor.nbytes for tensor in {*model.parameters(), *model.buffers()})
    fitted = fit(measure_points(forward, max_length, device))
    misses = [
        abs(fitted.peak_bytes(*shape) / step.peak_bytes - 1)
        for shape, step in zip(shapes, steps, strict=False) if fitted and shape and len(steps) == len(shapes)
    ]
    missed = max([*misses, fitted.relative_error]) if fitted else None
    reasons = {
        "peak": None if largest else "the trace was cut, or holds no allocations",
        "prediction": f"fewer than {FEWEST_POINTS} batches could be measured" if fitted is None or missed is None else
        f"the fitted model misses measured peaks by up to {missed:.0%}" if missed > MOST_ERROR else None,
    }
    usable = replace(fitted, relative_error=missed) if fitted and missed is not None and not reasons["prediction"] else None
    return {
        "peak": peak_owners(largest, events, weights_bytes, on_cuda=on_cuda) if largest else None,
        "model": fitted and {**asdict(fitted), "traced_batches_error": max(misses, default=None)},
        "prediction": usable and predict(usable, max_length, free_bytes(device), sweep, longest),
        "not_measured": {name: reason for name, reason in reasons.items() if reason},
    }, largest


def find_steps(events: Iterable[Event], *, on_cuda: bool) -> tuple[StepMemory, ...]:
    """The steps in which memory was allocated; without named steps the whole trace counts as one."""
    events = tuple(events)
    changes = sorted(
        (Change(at_us=event["ts"], change=args["Bytes"], allocated=args["Total Allocated"], address=args["Addr"])
         for event in events if event.get("name") == "[memory]" and (args := event["args"])["Device Type"] == int(on_cuda)),
        key=lambda change: change.at_us,
    )
    spans = [span for name, span in _ranges(events, "user_annotation") if name.startswith(STEP)] or [(float("-inf"), float("inf"))]
    within = [(span, tuple(change for change in changes if span[0] <= change.at_us <= span[1])) for span in spans]
    return tuple(
        StepMemory(span=span, before=inside[0].allocated - inside[0].change, changes=inside) for span, inside in within if inside
    )


def timeline(step: StepMemory) -> pd.DataFrame:
    """``memory.csv``: allocated on top of what was there before, after each change of one traced step."""
    begin = step.changes[0].at_us
    rows = [((change.at_us - begin) / 1e3, (change.allocated - step.before) / 1e6) for change in step.changes]
    return pd.DataFrame(rows, columns=["time_ms", "allocated_mb"])


def peak_owners(step: StepMemory, events: Iterable[Event], weights_bytes: int, *, on_cuda: bool) -> dict[str, Any]:
    """What is there when most is allocated: weights, activations, and workspace.

    Workspace is what an operator both asks for and gives back before it returns. ``held_before_mb`` is neither weights nor the
    step's: what CUDA's libraries keep; on the CPU it is not seen, nor are the weights.
    """
    events = tuple(events)
    operators, modules = _outermost(_ranges(events, "cpu_op")), tuple(_named(events, step))
    owned: list[dict[str, Any]] = []
    for change, freed_us in _alive_at_peak(step):
        operator, (_, returned_us) = _holding(operators, change.at_us)
        around = [item for item in modules if item[1][0] <= change.at_us <= item[1][1]]
        owned.append({"operator": operator, "module": min(around, key=_length, default=("", None))[0], "mb": change.change / 1e6,
                      "workspace": freed_us <= returned_us})
    owned.sort(key=itemgetter("mb"), reverse=True)
    workspace_mb = sum(one["mb"] for one in owned if one["workspace"])
    peak_mb, weights_mb = step.peak_bytes / 1e6, weights_bytes / 1e6
    held_mb = max(0.0, step.before / 1e6 - weights_mb) if on_cuda else None
    return {
        "total_mb": weights_mb + peak_mb + (held_mb or 0.0), "weights_mb": weights_mb, "activations_mb": peak_mb - workspace_mb,
        "workspace_mb": workspace_mb, "held_before_mb": held_mb, "largest": owned[:LARGEST_SHOWN],
    }


def _alive_at_peak(step: StepMemory) -> list[tuple[Change, float]]:
    """What was given out in the step and is there at its peak, each with when it is given back: never is infinity."""
    peak = step.changes.index(step.peak)
    alive: dict[int, tuple[Change, float]] = {}
    for change in step.changes[: peak + 1]:
        if change.change > 0:
            alive[change.address] = (change, float("inf"))
        else:
            alive.pop(change.address, None)
    for change in reversed(step.changes[peak + 1 :]):  # backwards: an address may be given out again, and its first return counts
        if change.change < 0 and change.address in alive:
            alive[change.address] = (alive[change.address][0], change.at_us)
    return list(alive.values())


def by_module(step: StepMemory, events: Iterable[Event]) -> dict[str, tuple[float, float]]:
    """MB that each range with a name adds: kept when it ends, and at its peak."""
    added = {}
    for name, (begin, end) in _named(tuple(events), step):
        before = step.allocated_at(begin)
        most = max((change.allocated - step.before for change in step.changes if begin <= change.at_us <= end), default=before)
        added[name] = ((step.allocated_at(end) - before) / 1e6, max(0, most - before) / 1e6)
    return added


def forward_peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """What one call allocates at most, on top of what is there before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before

    def profiled() -> profile:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            run()
        return profiler

    steps = find_steps(events_of(profiled), on_cuda=False)
    return steps[0].peak_bytes if steps else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PeakModel:
    """Peak bytes = constant + per token * batch * length + per pair * batch * length²; ``relative_error`` is the largest miss."""

    constant_bytes: float
    per_token_bytes: float
    per_pair_bytes: float
    relative_error: float

    def peak_bytes(self, batch: int, length: int) -> float:
        return self.constant_bytes + batch * self._per_text(length)

    def largest_batch(self, length: int, free_bytes: float) -> int:
        return max(0, int((free_bytes - self.constant_bytes) / max(self._per_text(length), 1.0)))

    def _per_text(self, length: int) -> float:
        return self.per_token_bytes * length + self.per_pair_bytes * length**2


Point = tuple[int, int, int]
"""Batch, length, peak bytes."""


def measure_points(forward: Forward, max_length: int, device: torch.device) -> tuple[Point, ...]:
    """Peaks of batches of made-up tokens (one is padding), half and whole ``max_length`` long; what memory and time allow."""
    lengths = sorted({max(1, max_length // 2), max_length})
    shapes = sorted(((batch, length) for length in lengths for batch in BATCHES), key=lambda shape: shape[0] * shape[1])
    points: list[Point] = []
    begin = time.perf_counter()
    for batch, length in shapes:
        if len(points) >= FEWEST_POINTS and time.perf_counter() - begin > MOST_SECONDS:
            break
        ids = torch.ones(batch, length, dtype=torch.long, device=device)
        inputs = {"input_ids": ids, "attention_mask": ids.clone()}
        inputs["attention_mask"][0, -1] = 0
        try:
            points.append((batch, length, forward_peak_bytes(partial(forward, inputs), device)))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            torch.cuda.empty_cache()
            break
    return tuple(points)


def fit(points: Sequence[Point]) -> PeakModel | None:
    """Least squares of the relative misses; no coefficient is negative. None with fewer than four points."""
    if len(points) < FEWEST_POINTS or min(peak for *_, peak in points) <= 0:
        return None
    batch, length, peak = np.array(points, dtype=float).T
    terms = np.stack([np.ones_like(batch), batch * length, batch * length**2], axis=1) / peak[:, None]
    scale = terms.max(axis=0)
    coefficients, _ = nnls(terms / scale, np.ones_like(peak))
    constant, per_token, per_pair = (coefficients / scale).tolist()
    error = float(np.abs(terms @ (coefficients / scale) - 1).max())
    return PeakModel(constant_bytes=constant, per_token_bytes=per_token, per_pair_bytes=per_pair, relative_error=error)


def free_bytes(device: torch.device) -> int:
    """What can still be allocated: of the GPU, or of the machine (of the container where that is less)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    host = int(psutil.virtual_memory().available)
    try:
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # no container, or "max": no limit
        return host
    return min(host, limit - used)


def predict(
    model: PeakModel, max_length: int, free: int, sweep: Sequence[Mapping[str, Any]], longest: int | None
) -> dict[str, Any]:
    """The largest batch of texts of ``max_length`` that fits, with what the model's error leaves open; and what the sweep says.

    Args:
        sweep: rows of the batch-size sweep, whose longest text has ``longest`` tokens; without rows None.
    """
    known = [row for row in sweep if longest is not None and row["status"] in ("ok", "oom")]
    held = [
        {"batch_size": row["batch_size"], "status": row["status"], "predicted_mb": peak / 1e6, "predicted_fits": peak <= free,
         "measured_mb": row.get("activations_mem")}
        for row in known for peak in [model.peak_bytes(row["batch_size"], longest or 0)]
    ]
    low, high = (model.largest_batch(max_length, free / (1 + miss)) for miss in (model.relative_error, -model.relative_error))
    return {
        "max_length": max_length, "free_mb": free / 1e6, "largest_batch": model.largest_batch(max_length, free),
        "largest_batch_low": low, "largest_batch_high": high, "sweep_longest_tokens": longest, "sweep": held,
        "agrees_with_sweep": all(row["predicted_fits"] == (row["status"] == "ok") for row in held) if held else None,
    }


def _ranges(events: Iterable[Event], kind: str) -> Iterator[tuple[str, Interval]]:
    for event in events:
        if event.get("ph") == "X" and event.get("cat") == kind:
            yield event["name"], (event["ts"], event["ts"] + event["dur"])


def _named(events: Iterable[Event], step: StepMemory) -> Iterator[tuple[str, Interval]]:
    """Phases and modules of a step."""
    for name, (begin, end) in _ranges(events, "user_annotation"):
        if step.span[0] <= begin and end <= step.span[1] and not name.startswith(STEP):
            yield name, (begin, end)


def _length(item: tuple[str, Interval]) -> float:
    return item[1][1] - item[1][0]


def _outermost(ranges: Iterable[tuple[str, Interval]]) -> list[tuple[str, Interval]]:
    """Those that lie in no other, in order."""
    found: list[tuple[str, Interval]] = []
    for name, (begin, end) in sorted(ranges, key=lambda item: (item[1][0], -item[1][1])):
        if not found or begin >= found[-1][1][1]:
            found.append((name, (begin, end)))
    return found


def _holding(ranges: Sequence[tuple[str, Interval]], at_us: float) -> tuple[str, Interval]:
    place = bisect_right(ranges, at_us, key=lambda item: item[1][0]) - 1
    name, span = ranges[place] if place >= 0 else ("", (0.0, 0.0))
    return (name, span) if span[0] <= at_us <= span[1] else ("", (at_us, at_us))
