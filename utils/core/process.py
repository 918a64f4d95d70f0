"""This process as the kernel sees it: time spent waiting for a CPU, peak of its resident memory. Linux; None elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

TASKS = Path("/proc/self/task")
CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")


def cpu_times_ns() -> tuple[int, int] | None:
    """Nanoseconds that all threads of this process have run, and have been ready to run but waited for a CPU.

    Source: proc(5) and the kernel's scheduler statistics, ``/proc/PID/task/TID/schedstat``.
    """
    running = waiting = 0
    try:
        for thread in os.listdir(TASKS):
            ran, waited, _ = (TASKS / thread / "schedstat").read_text().split()
            running, waiting = running + int(ran), waiting + int(waited)
    except (OSError, ValueError):  # no Linux, no such statistics, or a thread that just ended
        return None
    return running, waiting


def waiting_share(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    """Share of the time in which threads could have run that they waited for a CPU instead."""
    if before is None or after is None:
        return None
    ran, waited = after[0] - before[0], after[1] - before[1]
    return waited / (ran + waited) if ran >= 0 and waited >= 0 and ran + waited else None


def usable_cores() -> int | None:
    """CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def reset_peak_memory() -> bool:
    """Set the peak of resident memory back to what is resident now; False where the kernel does not let us."""
    try:
        CLEAR_REFS.write_text("5")  # proc(5): the peak alone
    except OSError:
        return False
    return True


def peak_memory_bytes() -> int | None:
    """Largest resident memory since the last reset."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
