"""Where the evaluator's time goes: by phase, and inside the forward pass by kind of operator."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.peers.contestants import Evaluator
from utils.evaluation.attention import evaluation_attention
from utils.evaluation.batching import Batching
from utils.evaluation.chunks import ChunkStore
from utils.evaluation.predictions import PendingPredictions
from utils.evaluation.predictor import Predictor
from utils.evaluation.tokens import tokenize
from utils.model.costs import base_op_name, operator_category


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


def operator_shares(
    evaluator: Evaluator, texts: list[str]
) -> tuple[dict[str, float], float | None]:
    """Percent of the forward pass by kind of operator, the largest first.

    Returns:
        The shares, and on CUDA the fraction of the time with a kernel running.
    """
    is_cuda = evaluator.loaded.device.type == "cuda"
    activities = [ProfilerActivity.CPU]
    if is_cuda:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as trace:
        if is_cuda:
            evaluator(texts)
        else:
            _predict_in_this_thread(evaluator, texts)
    times: dict[str, float] = defaultdict(float)
    for event in trace.key_averages():
        if event.key.startswith("aten::"):
            own_us = event.self_device_time_total if is_cuda else event.self_cpu_time_total
            times[operator_category(base_op_name(event.key))] += own_us
    total = sum(times.values())
    largest_first = sorted(times.items(), key=lambda item: -item[1])
    shares = {kind: 100 * own_us / total for kind, own_us in largest_first}
    return shares, _busy_fraction(trace) if is_cuda else None


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


def _busy_fraction(trace: Any) -> float:
    """The part of the time between first and last kernel in which a kernel or a copy ran."""
    spans = []
    for event in trace.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            spans.append((event.time_range.start, event.time_range.end))
    spans.sort()
    first = spans[0][0]
    covered = 0.0
    reached = first
    for start, end in spans:
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered / (reached - first)
