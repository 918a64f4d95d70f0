"""The one place that writes to the terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

RULE = "=" * 70
# Libraries that report every connection or file; they speak only when something is wrong.
QUIET_LOGGERS = ("httpx", "httpcore", "urllib3", "filelock", "matplotlib", "PIL", "fsspec", "datasets", "asyncio")


def say(text: str = "") -> None:
    """Write one line, at once, so that a piped run can be followed."""
    print(text, flush=True)
    logging.getLogger("console").debug("%s", text)


def title(text: str) -> None:
    """The run's title between two rules."""
    say(f"{RULE}\n{text}\n{RULE}")


def section(name: str) -> None:
    """The head of a block whose lines follow one by one."""
    say(f"\n{name}\n{RULE}")


def block(name: str, lines: Iterable[str]) -> None:
    """A named block: empty line, name, rule, lines, rule."""
    section(name)
    say("\n".join([*lines, RULE]))


def complain(text: str, level: int = logging.ERROR) -> None:
    """Write what went wrong to standard error."""
    print(text, file=sys.stderr, flush=True)
    logging.getLogger("console").log(level, "%s", text)


def warn(text: str) -> None:
    """A warning that the user should see beside the figures."""
    complain(f"Warning: {text}", logging.WARNING)


def progress(items: Iterable[Any] | None = None, *, total: float | None = None, what: str, unit: str = "it") -> Any:
    """A progress bar on standard error; none where that is no terminal, or under two seconds."""
    return tqdm(items, total=total, desc=what, unit=unit, delay=2, leave=False, disable=None, dynamic_ncols=True)


def start_logging(level: str, log_file: Path | None) -> None:
    """Send log records of ``level`` and above to the terminal's standard error, and all to ``log_file``."""
    logging.raiseExceptions = False  # a full disk is told once, by whoever cannot write a result
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(level)
    terminal.addFilter(lambda record: record.name != "console")  # what this module says is there already
    terminal.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    files = [logging.FileHandler(log_file, encoding="utf-8")] if log_file else []
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.DEBUG, format=form, handlers=[terminal, *files], force=True)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
