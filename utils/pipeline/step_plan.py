"""Which steps of a run are due, and why; what ``--resume`` takes over."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.config_loader import Config
from utils.pipeline.steps import NEVER_FINISHED, STEPS, Step, stale_reason
from utils.schema.diagnosis import load_diagnosis

RUNNER = "run_week1.py"
VERIFIER = "03"
"""The step that tries suggestions."""
MAY_CHANGE = "if an earlier step changes what it reads"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a step is to run, and why or why not.

    Args:
        is_skipped_by_flag: the user left it out; nothing is known of its results.
    """

    step: Step
    is_due: bool
    reason: str
    is_skipped_by_flag: bool = False


def skip_flag(step: Step) -> str:
    """The flag that leaves a step out, as it is typed."""
    return "--" + step.skip_flag.replace("_", "-")


def steps_left(number: str, words: Sequence[str]) -> list[Step]:
    """The steps that a run of these words starts after the step of that number.

    Args:
        words: of the command that started that step; none follows unless it is the runner's.
    """
    if not words or Path(words[0]).name != RUNNER:
        return []
    return [step for step in STEPS if step.number > number and skip_flag(step) not in words]


def decide(
    step: Step, config: Config, args: argparse.Namespace, *, earlier_is_due: bool = False
) -> Decision:
    """Whether a step is to run.

    Args:
        earlier_is_due: an earlier step has still to run and may change what this one reads.
    """
    if getattr(args, step.skip_flag):
        return Decision(step=step, is_due=False, reason=skip_flag(step), is_skipped_by_flag=True)
    if not args.resume:
        return Decision(step=step, is_due=True, reason="asked for")
    reason = stale_reason(step, config)
    if reason is not None:
        return Decision(step=step, is_due=True, reason=reason)
    is_verified = step.number != VERIFIER or args.verify is None
    if not is_verified and not suggestions_tried(config, args.verify):
        return Decision(step=step, is_due=True, reason="--verify")
    if earlier_is_due:
        return Decision(step=step, is_due=True, reason=MAY_CHANGE)
    return Decision(step=step, is_due=False, reason="unchanged since it last finished")


def plan_steps(config: Config, args: argparse.Namespace) -> list[Decision]:
    """What is decided of each step before any has run."""
    plan: list[Decision] = []
    earlier_is_due = False
    for step in STEPS:
        decision = decide(step, config, args, earlier_is_due=earlier_is_due)
        plan.append(decision)
        earlier_is_due = earlier_is_due or decision.is_due
    return plan


def suggestions_tried(config: Config, settings: Sequence[str]) -> bool:
    """Whether step 03 has tried these settings, or what it suggests where there are none."""
    diagnosis = load_diagnosis(config.files.bottlenecks)
    if not settings:
        return diagnosis.verified_at is not None
    tried = {one.setting for one in diagnosis.tried_settings}
    return tried.issuperset(settings)


def resume_text(plan: Sequence[Decision]) -> str:
    """How many steps are taken over, which run again, and which may."""
    kept = []
    first = []
    due = []
    undecided = []
    for decision in plan:
        number = decision.step.number
        if decision.is_due and decision.reason == MAY_CHANGE:
            undecided.append(number)
        elif decision.is_due and decision.reason == NEVER_FINISHED:
            first.append(number)
        elif decision.is_due:
            due.append(number)
        elif not decision.is_skipped_by_flag:
            kept.append(number)
    sentences = [f"Resume: taking over {len(kept)} of {len(plan)} steps"]
    if kept:
        sentences[0] += f" ({', '.join(kept)})"
    if first:
        sentences.append(f"To run: {', '.join(first)}")
    if due:
        sentences.append(f"To run again, in place of earlier results: {', '.join(due)}")
    if undecided:
        sentences.append(f"To run only if their input changes then: {', '.join(undecided)}")
    return ". ".join(sentences) + "."
