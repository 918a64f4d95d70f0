"""Which processes of this machine have a file open, to name who keeps a lock on it."""

from __future__ import annotations

import os
from pathlib import Path

import psutil


def processes_with_open_file(file: Path) -> list[int]:
    """The pids of the other processes that have a file open, in ascending order.

    Processes of other users are not seen.
    """
    target = str(file.resolve())
    pids = []
    for process in psutil.process_iter():
        if process.pid != os.getpid() and _has_open(process, target):
            pids.append(process.pid)
    return sorted(pids)


def _has_open(process: psutil.Process, target: str) -> bool:
    try:
        return any(opened.path == target for opened in process.open_files())
    except (psutil.Error, OSError):
        # The process has ended, or it is another user's.
        return False
