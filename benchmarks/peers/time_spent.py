"""Where the evaluator's time goes: by phase, and inside the forward pass by kind of operator."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.peers.contestants import Evaluator
from utils.diagnosis.kernels import merge_intervals, merged_length
from utils.diagnosis.trace_events import own_device_us
from utils.evaluation.attention import evaluation_attention
from utils.evaluation.batching import Batching
from utils.evaluation.chunks import ChunkStore
from utils.evaluation.predictions import PendingPredictions
from utils.evaluation.predictor import Predictor
from utils.evaluation.tokens import tokenize
from utils.model.costs import base_op_name, operator_category

# Some 10,000 kernels of the 0.5B architecture; their host's events take seconds to read.
MAX_TRACED_TEXTS = 1024


@contextmanager
def clocked(functions: dict[str, tuple[Any, str]]) -> Iterator[dict[str, float]]:
    """Seconds inside each function, over all threads, while the block runs.

    Args:
        functions: by the name of a phase, the owner of a function and its attribute there.
    """
    spent: dict[str, float] = dict.fromkeys(functions, 0.0)
    originals = {name: getattr(*place) for name, place in functions.items()}
    lock = threading.Lock()

    def timing(name: str) -> Callable[..., Any]:
        def run(*args: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return originals[name](*args, **named)
            finally:
                with lock:
                    spent[name] += time.perf_counter() - started

        return run

    for name, place in functions.items():
        setattr(*place, timing(name))
    try:
        yield spent
    finally:
        for name, place in functions.items():
            setattr(*place, originals[name])


def phase_shares(evaluator: Evaluator, texts: list[str]) -> dict[str, float]:
    """Percent of the cores' time by phase; ``waiting and the rest`` is what no clock saw."""
    import utils.evaluation.worker as worker

    functions = {
        "tokenise": (worker, "tokenize"),
        "plan batches": (Batching, "plan"),
        "pad and copy": (Predictor, "_make_batch"),
        "batches": (Predictor, "_predict_batch"),
        "copy back": (PendingPredictions, "result"),
        "write": (ChunkStore, "save"),
    }
    with clocked(functions) as spent:
        started = time.perf_counter()
        evaluator(texts)
        wall_s = time.perf_counter() - started
    spent["forward"] = spent.pop("batches") - spent["pad and copy"]
    # On the CPU the tokenizer uses all cores there are, and its clock is one thread's wait.
    cores = torch.get_num_threads() if evaluator.loaded.device.type == "cpu" else 1
    shares = {name: 100 * seconds / (wall_s * cores) for name, seconds in spent.items()}
    return {**shares, "waiting and the rest": 100 - sum(shares.values())}


def operator_shares(evaluator: Evaluator, texts: list[str]) -> dict[str, float]:
    """Percent of the forward pass by kind of operator, the largest first.

    On CUDA that is the time of the kernels, of the first ``MAX_TRACED_TEXTS``.
    """
    if evaluator.loaded.device.type == "cuda":
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
            evaluator(texts[:MAX_TRACED_TEXTS])
    else:
        with profile(activities=[ProfilerActivity.CPU]) as trace:
            _predict_in_this_thread(evaluator, texts)
    return shares_by_category(trace.events() or (), evaluator.loaded.device.type)


def shares_by_category(events: Iterable[Any], device_type: str) -> dict[str, float]:
    """Percent of the operators' own time by kind of operator, the largest first."""
    times: dict[str, float] = defaultdict(float)
    for event in events:
        if event.device_type != DeviceType.CPU or not event.name.startswith("aten::"):
            continue
        own_us = event.self_cpu_time_total
        if device_type == "cuda":
            own_us = own_device_us(event)
        times[operator_category(base_op_name(event.name))] += own_us
    # Without permission to read the device's counters the profiler sees no kernel.
    total = sum(times.values()) or 1.0
    largest_first = sorted(times.items(), key=lambda item: -item[1])
    return {kind: 100 * own_us / total for kind, own_us in largest_first}


def device_busy_fraction(evaluator: Evaluator, texts: list[str]) -> float | None:
    """The part of the evaluation's time in which a kernel ran; None where none was seen.

    Recording the host's operators too would slow the host, and the device would wait for it.
    """
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        evaluator(texts)
    spans = []
    for event in trace.events() or ():
        if event.device_type == DeviceType.CUDA:
            spans.append((event.time_range.start, event.time_range.end))
    return busy_fraction(spans)


def _predict_in_this_thread(evaluator: Evaluator, texts: list[str]) -> None:
    """Batch by batch, on one core as the evaluator runs them: the profiler sees one thread."""
    loaded = evaluator.loaded
    chunk = tokenize(loaded.tokenizer, texts, evaluator.config.profiling.max_length, loaded.inputs)
    batching = Batching(kind="token_budget", limit=evaluator.limit)
    predictor = Predictor(loaded.model, loaded.inputs, loaded.device, batching)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plan = predictor.batching.plan(chunk.lengths, min_fill=predictor.min_fill)
    with evaluation_attention(predictor.model, predictor.device):
        for rows in plan:
            predictor._predict_batch(chunk, rows)
    torch.set_num_threads(threads)


def busy_fraction(spans: Sequence[tuple[float, float]]) -> float | None:
    """The part of the time from the first begin to the last end that the spans cover.

    Args:
        spans: begin and end of each kernel and copy, in microseconds.
    """
    merged = merge_intervals(spans)
    if not merged:
        return None
    return merged_length(merged) / (merged[-1][1] - merged[0][0])
