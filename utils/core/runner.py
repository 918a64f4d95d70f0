"""Steps as processes: start one, wait for it, say how it ended."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Sequence

from utils.core import hints
from utils.core.errors import Interrupted, UserError
from utils.core.lock import inherited_lock_fds
from utils.core.steps import Step

logger = logging.getLogger(__name__)

SECONDS_TO_FINISH = 60.0  # how long an interrupted step may take to put away what it has finished


class StepFailed(UserError):
    """A step ended with another code than 0; the step itself has said why."""

    def __init__(self, item: Step, exit_code: int) -> None:
        super().__init__(f"Step {item.number} ({item.script}) ended with exit code {exit_code}; the run stops here.")
        self.exit_code = exit_code


def run_step(item: Step, arguments: Sequence[str]) -> float:
    """Run one step in a process of its own and wait, asleep, until it ends; wall-clock seconds, or StepFailed.

    The step gets a process group of its own, so that Ctrl-C reaches it once, through us. It works in the user's
    directory, where paths of the command line start.
    """
    started, words = time.perf_counter(), [sys.executable, str(item.path), *arguments]
    environment = hints.environment_of_step()
    process = subprocess.Popen(words, env=environment, start_new_session=True, pass_fds=inherited_lock_fds())
    try:
        code = process.wait()
    except (Interrupted, KeyboardInterrupt):
        # Whatever reached us: a step that is still importing answers SIGINT with a traceback, SIGTERM with silence.
        process.terminate()
        try:
            process.wait(timeout=SECONDS_TO_FINISH)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    seconds = time.perf_counter() - started
    logger.info("step %s took %.2f s, exit code %d", item.number, seconds, code)
    if code:
        raise StepFailed(item, 128 - code if code < 0 else code)
    return seconds
