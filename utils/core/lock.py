"""One run at a time in a results folder."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from utils.core.artifacts import cannot_write
from utils.core.errors import UserError

_held: set[int] = set()


def held() -> tuple[int, ...]:
    """File descriptors of the locks held: a step inherits them, so that they outlive a runner that is killed."""
    return tuple(_held)


@contextmanager
def hold(file: Path) -> Iterator[None]:
    """Hold the lock while the block runs. The kernel drops it with the last process that has it open, however that ends.

    A step whose parent has the lock runs under it. Some network file systems have no such lock: there it is a file that is
    made once and removed at the end; one left behind by a dead process of this machine is taken over.
    Raises UserError: another run has it; names its pid and host.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = file.open("a+", encoding="utf-8")
    except OSError as error:
        raise cannot_write(file, error) from error
    made, myself = None, json.dumps({"pid": os.getpid(), "host": platform.node(), "command": sys.argv})
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            _refuse_strangers(file, error, "wait for it, stop it")
        except OSError:
            made = _make(file.with_name(f"{file.name}.owner"), myself)
        else:
            handle.truncate(0)
            handle.write(myself)
            handle.flush()
            _held.add(handle.fileno())
        try:
            yield
        finally:
            _held.discard(handle.fileno())
            if made:
                made.unlink(missing_ok=True)


def _owner(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, FileNotFoundError):  # it is just writing it, or gone
        return {}


def _make(file: Path, myself: str) -> Path | None:
    """The file that says who runs, made by this process; None where the parent's is there."""
    if (owner := _owner(file)).get("host") == platform.node() and not psutil.pid_exists(owner["pid"]):
        file.unlink(missing_ok=True)
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(myself)
    except FileExistsError as error:
        _refuse_strangers(file, error, f"wait for it, stop it, remove {file.name} if it is gone")
        return None
    return file


def _refuse_strangers(file: Path, error: OSError, what_to_do: str) -> None:
    pid, host = (owner := _owner(file)).get("pid", "unknown"), owner.get("host", "an unknown host")
    if (pid, host) != (os.getppid(), platform.node()):
        fix = f"{what_to_do}, or choose another folder with --set output.results_dir=PATH"
        raise UserError(f"Another run is at work here: pid {pid} on {host}.", where=file.parent.parent, fix=fix) from error
