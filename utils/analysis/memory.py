"""Memory, as PyTorch's allocator hands it out: who holds the peak, what each layer adds, and the largest batch that fits."""

from __future__ import annotations

import time
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

Shape = tuple[int, int]  # batch and length
Point = tuple[int, int, int]  # batch, length, peak bytes
Range = tuple[str, float, float]  # what a trace has a name for, its begin and its end in microseconds
Forward = Callable[[dict[str, torch.Tensor]], object]

BATCHES = (2, 4, 8)
"""Batches that the model of memory is fitted to; one text alone has no padding, and so no mask, which takes memory."""
FEWEST_POINTS = 4  # one more than the model has coefficients
MOST_SECONDS = 10.0  # further points are not measured after that long
MOST_ERROR = 0.1  # a model that misses one of its own points by more is no model of this workload
LARGEST_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMemory:
    """What the allocator gave out and took back within one step.

    Args:
        before: bytes allocated before it: nothing on the CPU, where earlier memory is not seen.
        changes: ``at_us``, ``change`` (bytes, negative where taken back), ``allocated`` (all bytes then, without ``before``) and
            ``address``, in order.
    """

    span: Interval
    before: int
    changes: pd.DataFrame

    @property
    def peak_bytes(self) -> int:
        """The most that was allocated on top of what was there before."""
        return max(0, int(self.changes["allocated"].max()))

    def allocated_at(self, at_us: float) -> int:
        """Bytes allocated on top of what was there before."""
        place = self.changes["at_us"].searchsorted(at_us, side="right")
        return int(self.changes["allocated"].iloc[place - 1]) if place else 0


def analyse(
    events: Sequence[Event], shapes: Sequence[Shape | None], forward: Forward, model: nn.Module, device: torch.device,
    max_length: int, sweep: Sequence[Mapping[str, Any]], longest: int | None,
) -> tuple[dict[str, Any], StepMemory | None]:
    """The ``memory`` object of ``bottlenecks.json``, and the traced step with the highest peak.

    Args:
        events: of a trace of one step for each of ``shapes``: batch and length, None where nothing of it was padding.
        sweep, longest: as for :func:`predict`.
    """
    on_cuda, not_measured = device.type == "cuda", {}
    steps = find_steps(events, on_cuda=on_cuda)
    largest = max(steps, key=lambda step: step.peak_bytes, default=None)
    if largest is None:
        not_measured["peak"] = "the trace was cut, or holds no allocations"
    fitted, misses, prediction = fit(measure_points(forward, max_length, device)), [], None
    if fitted is None:
        not_measured["prediction"] = f"fewer than {FEWEST_POINTS} batches could be measured"
    else:
        if len(steps) == len(shapes):
            misses = [abs(fitted.peak_bytes(*shape) / step.peak_bytes - 1)
                      for shape, step in zip(shapes, steps, strict=True) if shape]
        missed = max([*misses, fitted.relative_error])
        if missed > MOST_ERROR:
            not_measured["prediction"] = f"the fitted model misses measured peaks by up to {missed:.0%}"
        else:
            prediction = predict(replace(fitted, relative_error=missed), max_length, free_bytes(device), sweep, longest)
    weights_bytes = sum(tensor.nbytes for tensor in {*model.parameters(), *model.buffers()})
    return {
        "peak": largest and peak_owners(largest, events, weights_bytes, on_cuda=on_cuda),
        "model": fitted and {**asdict(fitted), "traced_batches_error": max(misses, default=None)},
        "prediction": prediction, "not_measured": not_measured,
    }, largest


def find_steps(events: Iterable[Event], *, on_cuda: bool) -> tuple[StepMemory, ...]:
    """The steps in which memory was allocated; without named steps the whole trace counts as one."""
    events = tuple(events)
    changes = pd.DataFrame(
        [(event["ts"], args["Bytes"], args["Total Allocated"], args["Addr"]) for event in events
         if event.get("name") == "[memory]" and (args := event["args"])["Device Type"] == int(on_cuda)],
        columns=["at_us", "change", "allocated", "address"],
    ).sort_values("at_us", kind="stable")
    spans = [(begin, end) for name, begin, end in _ranges(events, "user_annotation") if name.startswith(STEP)]
    steps = []
    for span in spans or [(float("-inf"), float("inf"))]:
        inside = changes[changes["at_us"].between(*span)].reset_index(drop=True)
        if len(inside):
            before = int(inside["allocated"][0] - inside["change"][0])
            inside["allocated"] -= before
            steps.append(StepMemory(span=span, before=before, changes=inside))
    return tuple(steps)


def timeline(step: StepMemory) -> pd.DataFrame:
    """``memory.csv``: allocated on top of what was there before, after each change of one traced step."""
    at_us = step.changes["at_us"]
    return pd.DataFrame({"time_ms": (at_us - at_us[0]) / 1e3, "allocated_mb": step.changes["allocated"] / 1e6})


def peak_owners(step: StepMemory, events: Sequence[Event], weights_bytes: int, *, on_cuda: bool) -> dict[str, Any]:
    """What is there when most is allocated: weights, activations, and workspace.

    Workspace is what an operator both asks for and gives back before it returns. ``held_before_mb`` is neither weights nor the
    step's: what CUDA's libraries keep; on the CPU it is not seen, nor are the weights.
    """
    operators, modules = list(_ranges(events, "cpu_op", step.span)), list(_named(events, step))
    peak = int(step.changes["allocated"].to_numpy().argmax())
    until, after = step.changes[: peak + 1], step.changes[peak + 1 :]
    alive = until.drop_duplicates("address", keep="last").query("change > 0")
    freed_us = after.query("change < 0").drop_duplicates("address").set_index("address")["at_us"].to_dict()
    owned = []
    for at, change, _, address in alive.itertuples(index=False):
        (operator, _, returned_us), (module, *_) = (
            choose((one for one in ranges if one[1] <= at <= one[2]), key=lambda one: one[2] - one[1], default=("", at, at))
            for choose, ranges in ((max, operators), (min, modules))
        )
        owned.append({"operator": operator, "module": module, "mb": change / 1e6,
                      "workspace": freed_us.get(address, float("inf")) <= returned_us})
    owned.sort(key=itemgetter("mb"), reverse=True)
    workspace_mb = sum(one["mb"] for one in owned if one["workspace"])
    peak_mb, weights_mb = step.peak_bytes / 1e6, weights_bytes / 1e6
    held_mb = max(0.0, step.before / 1e6 - weights_mb) if on_cuda else None
    return {
        "total_mb": weights_mb + peak_mb + (held_mb or 0.0), "weights_mb": weights_mb, "activations_mb": peak_mb - workspace_mb,
        "workspace_mb": workspace_mb, "held_before_mb": held_mb, "largest": owned[:LARGEST_SHOWN],
    }


def by_module(step: StepMemory, events: Iterable[Event]) -> dict[str, tuple[float, float]]:
    """MB that each range with a name adds: kept when it ends, and at its peak."""
    added = {}
    for name, begin, end in _named(events, step):
        before = step.allocated_at(begin)
        inside = step.changes.loc[step.changes["at_us"].between(begin, end), "allocated"]
        added[name] = ((step.allocated_at(end) - before) / 1e6, (max([before, *inside]) - before) / 1e6)
    return added


def _ranges(events: Iterable[Event], kind: str, within: Interval = (float("-inf"), float("inf"))) -> Iterator[Range]:
    for event in events:
        if event.get("ph") == "X" and event.get("cat") == kind:
            begin, end = event["ts"], event["ts"] + event["dur"]
            if within[0] <= begin and end <= within[1]:
                yield event["name"], begin, end


def _named(events: Iterable[Event], step: StepMemory) -> Iterator[Range]:
    """Phases and modules of a step."""
    return (one for one in _ranges(events, "user_annotation", step.span) if not one[0].startswith(STEP))


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
        return self.constant_bytes + batch * (self.per_token_bytes * length + self.per_pair_bytes * length**2)

    def largest_batch(self, length: int, free_bytes: float) -> int:
        per_text = self.peak_bytes(1, length) - self.constant_bytes
        return max(0, int((free_bytes - self.constant_bytes) / max(per_text, 1.0)))


def measure_points(forward: Forward, max_length: int, device: torch.device) -> tuple[Point, ...]:
    """Peaks of batches of made-up tokens (one is padding), half and whole ``max_length`` long; what memory and time allow."""
    shapes = [(batch, length) for length in sorted({max(1, max_length // 2), max_length}) for batch in BATCHES]
    points: list[Point] = []
    begin = time.perf_counter()
    for batch, length in sorted(shapes, key=lambda shape: shape[0] * shape[1]):
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
    coefficients = nnls(terms / scale, np.ones_like(peak))[0] / scale
    constant, per_token, per_pair = coefficients.tolist()
    error = float(np.abs(terms @ coefficients - 1).max())
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
    held = [
        {"batch_size": row["batch_size"], "status": row["status"], "predicted_mb": peak / 1e6, "predicted_fits": peak <= free,
         "measured_mb": row.get("activations_mem")}
        for row in sweep if row["status"] in ("ok", "oom") for peak in [model.peak_bytes(row["batch_size"], longest or 0)]
    ]
    low, high = (model.largest_batch(max_length, free / (1 + miss)) for miss in (model.relative_error, -model.relative_error))
    return {
        "max_length": max_length, "free_mb": free / 1e6, "largest_batch": model.largest_batch(max_length, free),
        "largest_batch_low": low, "largest_batch_high": high, "sweep_longest_tokens": longest, "sweep": held,
        "agrees_with_sweep": all(row["predicted_fits"] == (row["status"] == "ok") for row in held) if held else None,
    }
