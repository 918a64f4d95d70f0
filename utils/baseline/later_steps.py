"""How long the steps after step 02 take, estimated before they have ever run here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from utils.pipeline import hints
from utils.pipeline.step_plan import VERIFIER, steps_left
from utils.sweep.remaining_time import pass_cost
from utils.sweep.schedule import SweepState

PROFILER = "03"
REPORTER = "04"

PASSES_OF_PROFILING = 5.3
"""Passes over the batches of a batch size that step 03 makes: timed, counted, traced, in parts."""
LONGEST_PASS_S = 4.0 / 3
"""Step 03 takes fewer batches where a pass is longer: three repeats take four seconds at most.
``SECONDS_PER_SIZE`` and ``TIMED_REPEATS`` of ``utils.diagnosis.measurement``."""
STARTS_PER_SIZE = 0.5
STARTS_OF_PROFILING = 0.6
STARTS_OF_DRAWING = 2.0
"""What is not proportional to the passes, as a multiple of the time in which the model's libraries
and checks start, which shows how fast the machine's cores are: for each batch size of step 03, for
the rest of it, and for step 04.

These and ``PASSES_OF_PROFILING`` were fitted to runs of the demo's model on two cores. There step
03 took 0.9 to 1.15 times its estimate on idle cores, 0.7 to 2.1 times on busy ones; of a 494M
model on an H100 0.8 times in bfloat16 and 1.4 times in float32.
"""
SLOWEST_READ_MB_PER_S = 200.0
"""Weights that load more slowly were downloaded, which step 03 does not repeat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StartTimes:
    """How long the start of step 02 took.

    Args:
        process_s: from the start of the process to the loaded model.
        load_s: of the load, everything included.
        weights_s: of the weights alone.
        weights_mb: their size.
    """

    process_s: float
    load_s: float
    weights_s: float
    weights_mb: float

    @property
    def libraries_s(self) -> float:
        """The part of the load that depends on the machine's cores alone."""
        return self.load_s - self.weights_s

    @property
    def repeated_s(self) -> float:
        """What another step that loads the model takes to start: without the download."""
        read_s = min(self.weights_s, self.weights_mb / SLOWEST_READ_MB_PER_S)
        return self.process_s - self.weights_s + read_s


@dataclass(frozen=True, kw_only=True, slots=True)
class LaterSteps:
    """The steps that follow in this run, and what their estimate rests on.

    Args:
        numbers: of the steps; empty where step 02 runs alone.
        tries_suggestions: whether step 03 is to try suggestions, which is not estimated.
    """

    numbers: tuple[str, ...]
    start: StartTimes
    tries_suggestions: bool = False


def later_steps(start: StartTimes) -> LaterSteps:
    """The steps that the runner will start after this one."""
    words = hints.runner_words()
    numbers = tuple(step.number for step in steps_left("02", words))
    tries_suggestions = VERIFIER in numbers and "--verify" in words
    return LaterSteps(numbers=numbers, start=start, tries_suggestions=tries_suggestions)


def later_seconds(steps: LaterSteps, states: Sequence[SweepState]) -> float:
    """How long the later steps take, roughly; 0 without any."""
    start = steps.start
    seconds = 0.0
    if PROFILER in steps.numbers:
        passes_s = _pass_seconds(states)
        starts = STARTS_OF_PROFILING + STARTS_PER_SIZE * len(passes_s)
        seconds += start.repeated_s + starts * start.libraries_s
        seconds += PASSES_OF_PROFILING * sum(min(one, LONGEST_PASS_S) for one in passes_s)
    if REPORTER in steps.numbers:
        # Its libraries load about as fast as those of this step without the model.
        seconds += start.process_s - start.load_s + STARTS_OF_DRAWING * start.libraries_s
    return seconds


def _pass_seconds(states: Sequence[SweepState]) -> list[float]:
    """Seconds of a pass at each batch size of the first sample, which step 03 measures."""
    seconds = []
    for trial in states[0].trials:
        cost = pass_cost(trial)
        if cost is not None:
            seconds.append(cost.seconds)
    return seconds
