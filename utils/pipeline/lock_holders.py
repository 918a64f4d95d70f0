"""Which processes of this machine have a file open, to name who keeps a lock on it."""

from __future__ import annotations

import os
from pathlib import Path

PROCESSES = Path("/proc")


def processes_with_open_file(file: Path) -> list[int]:
    """The pids of the other processes that have a file open, in ascending order.

    Source: proc(5). Empty on other systems than Linux; processes of other users are not seen.
    """
    target = str(file.resolve())
    pids = []
    for folder in PROCESSES.glob("[0-9]*"):
        pid = int(folder.name)
        if pid != os.getpid() and _has_open(folder / "fd", target):
            pids.append(pid)
    return sorted(pids)


def _has_open(descriptors: Path, target: str) -> bool:
    """Whether one of a process's descriptors is of the file at ``target``."""
    try:
        return any(os.readlink(one) == target for one in descriptors.iterdir())
    except OSError:
        # The process or a descriptor has gone, or it is another user's.
        return False
