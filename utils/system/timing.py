"""Timing a callable, from an idle device to an idle device.

The clock is ``time.perf_counter``. A stretch of time is never read as a single number: see
``CallTimes`` for the statistics.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

from utils.system.device import synchronize

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class CallTimes:
    """Seconds of one call, in each repeat."""

    seconds: tuple[float, ...]

    @property
    def fastest_s(self) -> float:
        """The fastest repeat: other work on the machine makes a repeat longer, never shorter."""
        return min(self.seconds)

    @property
    def median_s(self) -> float:
        """The middle repeat: what a user sees."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """The middle repeat over the fastest, less 1."""
        return self.median_s / self.fastest_s - 1


def time_calls(run: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Wall-clock seconds of ``calls`` calls in a row, from an idle device to an idle device."""
    synchronize(device)
    started_s = time.perf_counter()
    for _ in range(calls):
        run()
    synchronize(device)
    return time.perf_counter() - started_s


def time_callable(
    run: Callable[[], object],
    device: torch.device,
    *,
    repeats: int,
    warmups: int = 1,
    calls: int = 1,
) -> CallTimes:
    """Time a callable ``repeats`` times, after ``warmups`` calls that are not counted.

    Args:
        calls: calls in a row in each repeat, for work that is short beside the clock's grain.
    """
    for _ in range(warmups):
        time_calls(run, device)
    seconds = [time_calls(run, device, calls) / calls for _ in range(repeats)]
    return CallTimes(seconds=tuple(seconds))


def time_interleaved(
    variants: Mapping[str, Callable[[], T]],
    rounds: int,
    after_each: Callable[[], object] = lambda: None,
) -> tuple[dict[str, list[float]], dict[str, T]]:
    """Time several variants in turn; every other round runs in the opposite order.

    A variant has to wait for its own results: nothing else waits for the device. ``after_each`` is
    called, untimed, after each round of each variant.

    Returns:
        Seconds of each round of each variant, and its last result.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    last_results: dict[str, T] = {}
    for number in range(rounds):
        names = list(variants)
        if number % 2 == 1:
            names.reverse()
        for name in names:
            started_s = time.perf_counter()
            last_results[name] = variants[name]()
            seconds[name].append(time.perf_counter() - started_s)
            after_each()
    return seconds, last_results
