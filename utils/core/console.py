"""The one place that writes to the terminal."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from utils.core import hints
from utils.core.errors import UserError

RULE = "=" * 70
# Libraries that report every connection or file; they speak only when something is wrong.
QUIET_LOGGERS = ("httpx", "httpcore", "urllib3", "filelock", "matplotlib", "PIL", "fsspec", "datasets", "asyncio")


def start_terminal() -> None:
    """Let the terminal show what it cannot print as escapes (``\\u4e2d``), instead of ending the run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError, ValueError):  # a closed stream
                stream.reconfigure(errors="backslashreplace")


def say(text: str = "") -> None:
    """Write one line, at once, so that a piped run can be followed. Commands in it carry the user's flags."""
    text = hints.with_flags(text)
    _write(text, "stdout")
    logging.getLogger("console").debug("%s", text)


def _write(text: str, name: str) -> None:
    """Print to ``sys.stdout`` or ``sys.stderr``. One that is closed is given up: the results are in files."""
    stream = getattr(sys, name)
    if stream is None:
        return
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:
        # A notebook's or test's stream that cannot be reconfigured.
        print(text.encode("ascii", "backslashreplace").decode("ascii"), file=stream, flush=True)
    except (OSError, ValueError):
        _give_up(stream, name)


def _give_up(stream: Any, name: str) -> None:
    """Send what is still written to a closed stream nowhere, also what Python flushes when it ends."""
    nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - stays open as long as the process
    with suppress(OSError, ValueError):
        os.dup2(nowhere.fileno(), stream.fileno())
    setattr(sys, name, nowhere)


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
    """Write what went wrong to standard error, as it is."""
    _write(text, "stderr")
    logging.getLogger("console").log(level, "%s", text)


def error(problem: UserError) -> None:
    """What the user must change, with commands to paste."""
    complain(f"Error: {hints.complete_error(problem)}")


def warn(text: str) -> None:
    """A warning that the user should see beside the figures, with commands to paste."""
    complain(f"Warning: {hints.complete_text(text)}", logging.WARNING)


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
    files = [logging.FileHandler(log_file, encoding="utf-8", errors="backslashreplace")] if log_file else []
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.DEBUG, format=form, handlers=[terminal, *files], force=True)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
