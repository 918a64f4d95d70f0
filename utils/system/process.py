"""This process: its wait for a CPU, its resident memory, its collector, the tokenizer's threads.

Times and memory are from Linux's /proc; on other systems the functions return None or False.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

TASKS = Path("/proc/self/task")
CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
TOKENIZER_THREADS = "TOKENIZERS_PARALLELISM"
"""Environment variable that the library tokenizers reads at each call: whether it uses threads."""


def process_age_s() -> float:
    """Seconds since this process started."""
    return time.time() - psutil.Process().create_time()


def cpu_times_ns() -> tuple[int, int] | None:
    """Nanoseconds that all threads of this process have run, and have waited for a CPU.

    Source: proc(5) and the kernel's scheduler statistics, ``/proc/PID/task/TID/schedstat``.
    """
    running_ns = 0
    waiting_ns = 0
    try:
        for thread in os.listdir(TASKS):
            ran_ns, waited_ns, _ = (TASKS / thread / "schedstat").read_text().split()
            running_ns += int(ran_ns)
            waiting_ns += int(waited_ns)
    except (OSError, ValueError):
        # Not Linux, no such statistics, or a thread that has just ended.
        return None
    return running_ns, waiting_ns


def cpu_wait_fraction(
    before: tuple[int, int] | None, after: tuple[int, int] | None
) -> float | None:
    """Share of the time in which threads could have run that they waited for a CPU instead."""
    if before is None or after is None:
        return None
    ran_ns = after[0] - before[0]
    waited_ns = after[1] - before[1]
    # Times shrink if a thread has ended in between.
    if ran_ns < 0 or waited_ns < 0 or ran_ns + waited_ns == 0:
        return None
    return waited_ns / (ran_ns + waited_ns)


def usable_cores() -> int | None:
    """CPU cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def reset_peak_memory() -> bool:
    """Reset the peak of resident memory to the present value; False if the kernel refuses."""
    try:
        # proc(5): "5" resets the peak alone.
        CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def peak_memory_bytes() -> int | None:
    """Largest resident memory since the last reset."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return None


@contextmanager
def frozen_objects() -> Iterator[None]:
    """Leave out of garbage collections what exists when the block begins.

    With all libraries loaded, a collection would otherwise take 0.2 s.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def tokenizer_threads_of_sweep(device_type: str) -> str | None:
    """The value of ``TOKENIZERS_PARALLELISM`` in effect for batches of the sweep; None: not set.

    What the user has set stays. Otherwise it is ``false`` where the model runs on the CPU: there
    PyTorch's threads spin for a while after each operator, and threads of the tokenizer wait for
    them (docs/MEASURING.md has the measurements).

    Args:
        device_type: the model's, ``cpu`` or ``cuda``.
    """
    value = os.environ.get(TOKENIZER_THREADS)
    if value is None and device_type == "cpu":
        return "false"
    return value


@contextmanager
def use_tokenizer_threads_of_sweep(device_type: str) -> Iterator[None]:
    """Run the block with the value of ``tokenizer_threads_of_sweep``, and restore it afterwards."""
    before = os.environ.get(TOKENIZER_THREADS)
    value = tokenizer_threads_of_sweep(device_type)
    if value == before:
        yield
        return
    assert value is not None, "a value that is set stays"
    os.environ[TOKENIZER_THREADS] = value
    try:
        yield
    finally:
        del os.environ[TOKENIZER_THREADS]
