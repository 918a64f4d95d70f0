"""The token budget that runs texts fastest on this device, found by timing a few batches of each.

A *probe* is a set of batches that shows the speed of one budget.
"""

from __future__ import annotations

import logging
import time

import numpy as np
import torch

from utils.evaluation.batching import Batching, Indices
from utils.evaluation.predictor import Predictor
from utils.evaluation.tokens import TokenChunk
from utils.system.device import synchronize

logger = logging.getLogger(__name__)

CPU_BUDGETS = (1024, 2048, 4096, 8192, 16384)
CUDA_BUDGETS = (4096, 8192, 16384, 32768, 65536, 131072)
SEARCH_SECONDS = 6.0
PROBE_QUANTILES = (0.15, 0.5, 0.85)
"""Where the batches of a probe are taken: shares of all tokens, in order of the texts' length."""
CUDA_PROBE_BATCHES = 4
MIN_SPEEDUP = 1.02
"""A larger budget must be so many times as fast as the best smaller one, because it takes more
memory.
"""


def budgets_of(device: torch.device) -> tuple[int, ...]:
    """The token budgets that are tried on a device, ascending."""
    if device.type == "cuda":
        return CUDA_BUDGETS
    return CPU_BUDGETS


def fastest_budget(predictor: Predictor, chunk: TokenChunk) -> int:
    """The token budget that runs this chunk's texts fastest here, by real tokens a second.

    Each budget runs batches of short, medium and long texts twice; the faster time counts. On
    CUDA these are batches that the evaluation would run with that budget. Larger budgets are tried
    until memory runs out, the chunk ends or ``SEARCH_SECONDS`` are spent.
    """
    budgets = budgets_of(predictor.device)
    best, best_speed = budgets[0], 0.0
    # Warm-up, which is not counted.
    _probe_speed(predictor, chunk, budgets[0])
    started_s = time.perf_counter()
    for budget in budgets:
        speeds = [_probe_speed(predictor, chunk, budget) for _ in range(2)]
        speed = max(speeds)
        logger.info("budget of %d tokens: %.0f tokens/s", budget, speed)
        if speed > best_speed * MIN_SPEEDUP:
            best, best_speed = budget, speed
        # The next budget is twice as large: it would cost about as much as all before it.
        expected_s = 2 * (time.perf_counter() - started_s)
        if speed == 0 or budget >= chunk.lengths.sum() or expected_s > SEARCH_SECONDS:
            break
    return best


def _probe_speed(predictor: Predictor, chunk: TokenChunk, budget: int) -> float:
    """Real tokens a second over the batches of a probe; 0 where memory ran out."""
    batches = _probe_batches(predictor, chunk, budget)
    synchronize(predictor.device)
    started_s = time.perf_counter()
    outputs = predictor.run_batches(chunk, batches)
    synchronize(predictor.device)
    seconds = time.perf_counter() - started_s
    if any(output is None for output in outputs):
        return 0.0
    return sum(int(chunk.lengths[rows].sum()) for rows in batches) / seconds


def _probe_batches(predictor: Predictor, chunk: TokenChunk, budget: int) -> list[Indices]:
    """Batches that show the speed of a budget."""
    if predictor.device.type == "cuda":
        return _planned_batches(predictor, chunk, budget)
    return _full_batches(predictor, chunk, budget)


def _planned_batches(predictor: Predictor, chunk: TokenChunk, budget: int) -> list[Indices]:
    """Batches of the evaluation's own plan, at equal distances from the chunk's longest texts to
    its shortest.
    """
    batching = Batching(kind="token_budget", limit=budget)
    plan = predictor.plan_batches(chunk, np.arange(len(chunk.ids)), batching)
    num_batches = min(len(plan), CUDA_PROBE_BATCHES)
    middles = (np.arange(num_batches) + 0.5) * len(plan) / num_batches
    return [plan[int(middle)] for middle in middles]


def _full_batches(predictor: Predictor, chunk: TokenChunk, budget: int) -> list[Indices]:
    """A batch at each of ``PROBE_QUANTILES`` for each of the threads, which run at once."""
    members = predictor.largest_group(chunk)
    lengths = chunk.lengths[members]
    by_length = members[np.argsort(lengths, kind="stable")]
    sorted_lengths = chunk.lengths[by_length]
    tokens_up_to = np.cumsum(sorted_lengths)
    batches = []
    for quantile in PROBE_QUANTILES:
        stop = int(np.searchsorted(tokens_up_to, quantile * tokens_up_to[-1])) + 1
        num_rows = max(1, budget // int(sorted_lengths[stop - 1]))
        batches.append(by_length[max(0, stop - num_rows) : stop])
    return batches * torch.get_num_threads()
