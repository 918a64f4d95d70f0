"""One run at a time in a results folder."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.core.artifacts import cannot_write
from utils.core.errors import UserError

logger = logging.getLogger(__name__)

_held: set[int] = set()


def held() -> tuple[int, ...]:
    """File descriptors of the locks held: a step inherits them, so that they outlive a runner that is killed."""
    return tuple(_held)


@contextmanager
def hold(file: Path) -> Iterator[None]:
    """Hold the lock while the block runs. The kernel drops it with the last process that has it open, however that ends.

    A step whose parent has the lock runs under it.

    Raises:
        UserError: another run has it; names its pid and host.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = file.open("a+", encoding="utf-8")
    except OSError as error:
        raise cannot_write(file, error) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            _refuse_strangers(file, error)
        except OSError as error:  # some network file systems have none
            logger.warning("%s cannot be locked (%s): do not start a second run in this folder", file, error.strerror)
        else:
            handle.truncate(0)
            handle.write(json.dumps({"pid": os.getpid(), "host": platform.node(), "command": sys.argv}))
            handle.flush()
            _held.add(handle.fileno())
        try:
            yield
        finally:
            _held.discard(handle.fileno())


def _refuse_strangers(file: Path, error: OSError) -> None:
    try:
        owner = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # it is just writing it
        owner = {}
    if owner.get("pid") == os.getppid() and owner.get("host") == platform.node():
        return
    raise UserError(
        f"Another run is at work here: pid {owner.get('pid', 'unknown')} on {owner.get('host', 'an unknown host')}.",
        where=file.parent.parent, fix="wait for it, stop it, or choose another folder with --set output.results_dir=PATH",
    ) from error
