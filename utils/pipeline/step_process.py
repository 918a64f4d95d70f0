"""Steps as processes: start one, wait for it, report how it ended."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Sequence

from utils.core.errors import Interrupted, UserError
from utils.pipeline import hints
from utils.pipeline.lock import inherited_lock_fds
from utils.pipeline.steps import Step

logger = logging.getLogger(__name__)

TERMINATED_CODE = 143
"""Of a step that SIGTERM has interrupted and that has said so."""
TERMINATE_TIMEOUT_S = 60.0
"""How long an interrupted step may take to save what it has finished."""


class StepFailed(UserError):
    """A step ended with an exit code other than 0; the step itself has reported why."""

    def __init__(self, step: Step, exit_code: int) -> None:
        super().__init__(
            f"Step {step.number} ({step.script}) ended with exit code {exit_code}; "
            "the run stops here."
        )
        self.exit_code = exit_code


def run_step(step: Step, arguments: Sequence[str], *, shows_output: bool = True) -> float:
    """Run one step in a process of its own and wait, asleep, until it ends.

    The step gets a process group of its own, so that Ctrl-C reaches it once, through this process.
    It works in the user's directory, from which paths on the command line start.

    Args:
        shows_output: False leaves out what it prints; warnings, errors and progress bars appear all
            the same, and its log has everything.

    Returns:
        Wall-clock seconds.

    Raises:
        StepFailed: the step ended with an exit code other than 0.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(step.path), *arguments],
        env=hints.environment_of_step(),
        stdout=None if shows_output else subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=inherited_lock_fds(),
    )
    try:
        code = process.wait()
    except (Interrupted, KeyboardInterrupt) as error:
        code = _terminate(process)
        if isinstance(error, Interrupted):
            # A step that was still importing ends without a message.
            error.is_reported = code == TERMINATED_CODE
        raise
    seconds = time.perf_counter() - started
    logger.info("step %s took %.2f s, exit code %d", step.number, seconds, code)
    if code < 0:
        # Ended by a signal: the code that a shell would give.
        code = 128 - code
    if code:
        raise StepFailed(step, code)
    return seconds


def _terminate(process: subprocess.Popen[bytes]) -> int:
    """End a step, with time to save its results; its exit code.

    Always by SIGTERM: a step that is still importing would answer SIGINT with a traceback.
    """
    process.terminate()
    try:
        return process.wait(timeout=TERMINATE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
