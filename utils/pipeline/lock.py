"""One run at a time in a results folder."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TextIO

from filelock import SoftFileLock, Timeout, lock_descriptor

from utils.core.errors import UserError
from utils.core.files import JsonObject, write_error
from utils.pipeline.lock_holders import processes_with_open_file

LOCK_TRIES = 3
LOCK_PAUSE_S = 0.05
_lock_fds: set[int] = set()


def inherited_lock_fds() -> tuple[int, ...]:
    """File descriptors of the locks that this process holds.

    A runner passes them on to its steps. The kernel keeps the lock as long as any process has such
    a descriptor open, so a step keeps it if its runner is killed.
    """
    return tuple(_lock_fds)


@contextmanager
def run_lock(file: Path) -> Iterator[None]:
    """Hold the lock of a results folder while the block runs.

    The kernel releases the lock when the last process that has it open exits, even if that process
    is killed. A step runs under the lock of the runner that started it.

    Some network file systems have no such lock. There a marker file stands for it, and a marker
    that a dead process of this machine left behind is removed.

    Raises:
        UserError: another run holds the lock (the message names its pid and host), or the folder
            cannot be written.
    """
    with _open_lock_file(file) as handle, _acquire(file, handle):
        yield


def lock_owner(file: Path) -> str | None:
    """Who holds the lock of a results folder, in words; None where nobody does.

    Writes nothing, so that results in a folder that cannot be written can be read.
    """
    if not file.exists():
        return None
    marker = _marker_of(file)
    try:
        is_held = _is_held(file)
    except OSError:
        # No kernel lock there: a run in progress has a marker.
        is_held = marker.exists()
    if not is_held:
        return None
    return _owner_text(file, _read_owner_record(file))


def lock_command(file: Path) -> list[str]:
    """The words of the command that holds the lock, or held it last; empty if they are unknown."""
    words = _read_owner_record(file).get("command", [])
    return [str(word) for word in words]


def _is_held(file: Path) -> bool:
    """Whether a process keeps the kernel's lock; one that only asks has it for an instant."""
    for _ in range(LOCK_TRIES):
        with file.open("rb") as handle:
            if lock_descriptor(handle.fileno(), blocking=False):
                return False
        time.sleep(LOCK_PAUSE_S)
    return True


def _open_lock_file(file: Path) -> TextIO:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Appending, because a run that is refused must not erase the owner's record.
        return file.open("a+", encoding="utf-8")
    except OSError as error:
        raise write_error(file, error) from error


def _acquire(file: Path, handle: TextIO) -> AbstractContextManager[None]:
    """The context that holds the lock, by the means that the file system has."""
    try:
        acquired = lock_descriptor(handle.fileno(), blocking=False)
    except OSError:
        return _marker_lock(file, handle)
    if acquired:
        return _kernel_lock(handle)
    _raise_unless_parent(file, fix="wait for it or stop it")
    return nullcontext()


@contextmanager
def _kernel_lock(handle: TextIO) -> Iterator[None]:
    """Record the owner and offer the descriptor to steps; closing the file releases the lock."""
    _write_owner_record(handle)
    descriptor = handle.fileno()
    _lock_fds.add(descriptor)
    try:
        yield
    finally:
        _lock_fds.discard(descriptor)


@contextmanager
def _marker_lock(file: Path, handle: TextIO) -> Iterator[None]:
    """Hold a marker file beside the lock file, for file systems without a kernel lock."""
    marker = _marker_of(file)
    # One version of filelock removes the marker of a dead process and then fails; the next try of
    # the same call succeeds.
    soft_lock = SoftFileLock(marker, timeout=LOCK_TRIES * LOCK_PAUSE_S)
    try:
        soft_lock.acquire(poll_interval=LOCK_PAUSE_S)
    except Timeout:
        fix = f"wait for it, stop it, or remove {marker} if that process no longer exists"
        _raise_unless_parent(file, fix=fix)
        yield
        return
    except OSError as error:
        raise write_error(marker, error) from error
    try:
        _write_owner_record(handle)
        yield
    finally:
        soft_lock.release()


def _marker_of(file: Path) -> Path:
    """The file that stands for a lock where the file system has none."""
    return file.with_name(f"{file.name}.marker")


def _write_owner_record(handle: TextIO) -> None:
    owner = {"pid": os.getpid(), "host": platform.node(), "command": sys.argv}
    handle.truncate(0)
    handle.write(json.dumps(owner))
    handle.flush()


def _read_owner_record(file: Path) -> JsonObject:
    """Who holds the lock; empty while the owner is writing its record."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, FileNotFoundError):
        return {}


def _owner_text(file: Path, owner: JsonObject) -> str:
    """Who keeps the lock: its owner, or a step that goes on after its runner was killed."""
    pid = owner.get("pid", "unknown")
    host = owner.get("host", "an unknown host")
    if host == platform.node() and pid != os.getpid():
        holders = processes_with_open_file(file)
        if holders and pid not in holders:
            return f"pid {holders[0]} on {host}, started by pid {pid}, which has ended"
    return f"pid {pid} on {host}"


def _raise_unless_parent(file: Path, *, fix: str) -> None:
    """Refuse a second run; let a step pass whose runner holds the lock."""
    owner = _read_owner_record(file)
    if owner.get("pid") == os.getppid() and owner.get("host") == platform.node():
        return
    raise UserError(
        f"Another run is using this results folder: {_owner_text(file, owner)}.",
        where=file.parent.parent,
        fix=f"{fix}, or choose another folder with --set output.results_dir=PATH",
    )
