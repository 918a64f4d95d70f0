"""The one place that writes to the terminal."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from tqdm.auto import tqdm

from utils.core.errors import UserError
from utils.pipeline import hints
from utils.pipeline.startup import CONSOLE_LOGGER

RULE = "=" * 70


def print_line(text: str = "") -> None:
    """Write one line, at once, so that a piped run can be followed.

    Commands in it carry the user's flags.
    """
    text = hints.with_flags(text)
    _write(text, "stdout")
    logging.getLogger(CONSOLE_LOGGER).debug("%s", text)


def _write(text: str, name: str) -> None:
    """Print to ``sys.stdout`` or ``sys.stderr``.

    A closed stream does not end the run, because the results are in files.
    """
    stream = getattr(sys, name)
    if stream is None:
        return
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:
        # A notebook's or test's stream that cannot be reconfigured.
        print(text.encode("ascii", "backslashreplace").decode("ascii"), file=stream, flush=True)
    except (OSError, ValueError):
        _discard_output(stream, name)


def _discard_output(stream: Any, name: str) -> None:
    """Discard what is still written to a closed stream, also what Python flushes when it ends."""
    # Stays open as long as the process.
    null = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    with suppress(OSError, ValueError):
        os.dup2(null.fileno(), stream.fileno())
    setattr(sys, name, null)


def title(text: str) -> None:
    """The run's title between two rules."""
    print_line(f"{RULE}\n{text}\n{RULE}")


def section(name: str) -> None:
    """The head of a block whose lines follow one by one."""
    print_line(f"\n{name}\n{RULE}")


def block(name: str, lines: Iterable[str]) -> None:
    """A named block: empty line, name, rule, lines, rule."""
    section(name)
    print_line("\n".join([*lines, RULE]))


def print_error(text: str, level: int = logging.ERROR) -> None:
    """Write a message to standard error, as it is."""
    _write(text, "stderr")
    logging.getLogger(CONSOLE_LOGGER).log(level, "%s", text)


def note(text: str) -> None:
    """What is being done, on standard error: standard output has the result alone."""
    print_error(hints.with_flags(text), logging.INFO)


def error(problem: UserError) -> None:
    """What the user must change, with commands to paste."""
    print_error(f"Error: {hints.complete_error(problem)}")


def warn(text: str) -> None:
    """A warning that the user should see beside the results, with commands to paste."""
    print_error(f"Warning: {hints.complete_text(text)}", logging.WARNING)


def progress(
    items: Iterable[Any] | None = None,
    *,
    total: float | None = None,
    what: str,
    unit: str = "it",
) -> Any:
    """A progress bar on standard error; none under two seconds or if that is not a terminal."""
    return tqdm(
        items,
        total=total,
        desc=what,
        unit=unit,
        delay=2,
        leave=False,
        disable=None,
        dynamic_ncols=True,
    )
