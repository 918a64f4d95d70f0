"""What Ctrl-C does while a script still imports its libraries, which takes seconds."""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED = 130
"""Exit code of a process that SIGINT has ended."""


def exit_quietly_on_interrupt() -> None:
    """End with one line and exit code 130 instead of a traceback, until ``cli.run_script`` takes over.

    Called by the scripts before they import anything heavy; nothing has been measured yet, so nothing can be lost.
    """

    def leave(number: int, frame: object) -> None:
        sys.stderr.write("Interrupted before anything was done.\n")
        sys.stderr.flush()
        os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, leave)
