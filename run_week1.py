#!/usr/bin/env python
"""Run all steps of week 1: data, baseline, profiling, report."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from utils.pipeline import startup

if __name__ == "__main__":
    # Before the imports below, which take seconds and read environment variables.
    startup.prepare_process()

from utils.config_loader import Config
from utils.pipeline import cli, console, run_status
from utils.pipeline.step_process import StepFailed, run_step
from utils.pipeline.steps import STEPS, Step, stale_reason
from utils.reporting.answers import answer_lines
from utils.reporting.results import read_results
from utils.reporting.run_facts import model_title
from utils.schema.diagnosis import load_diagnosis

VERIFIER = "03"
TITLE = "WEEK 1: BASELINE PROFILING AND BOTTLENECK ANALYSIS"


def make_parser() -> argparse.ArgumentParser:
    parser = cli.make_parser(
        __doc__ or "", "python run_week1.py --config configs/demo.yaml --resume"
    )
    for step in STEPS:
        parser.add_argument(
            _skip_flag(step),
            action="store_true",
            help=f"leave out step {step.number}: {step.title.lower()}",
        )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="skip each step whose inputs, settings, code and outputs are unchanged",
    )
    parser.add_argument(
        "--verify", nargs="*", metavar="KEY=VALUE", help=f"in step 03, {cli.VERIFY_HELP}"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would run and why, and run nothing"
    )
    parser.add_argument(
        "--status",
        action="store_true",
        help="say what a run in the results folder is doing, or what the last one did",
    )
    return parser


def _skip_flag(step: Step) -> str:
    return "--" + step.skip_flag.replace("_", "-")


def decide(
    step: Step, config: Config, args: argparse.Namespace, earlier_runs: bool
) -> tuple[bool, str]:
    """Whether a step is to run, and why or why not.

    ``earlier_runs``: a step before it runs in this call.
    """
    if getattr(args, step.skip_flag):
        return False, _skip_flag(step)
    if not args.resume:
        return True, "asked for"
    reason = stale_reason(step, config)
    if reason is not None:
        return True, reason
    is_verified = step.number != VERIFIER or args.verify is None
    if not is_verified and not suggestions_tried(config, args.verify):
        return True, "--verify"
    if args.dry_run and earlier_runs:
        return True, "if an earlier step changes what it reads"
    return False, "unchanged since it last finished"


def suggestions_tried(config: Config, settings: Sequence[str]) -> bool:
    """Whether step 03 has tried these settings, or what it suggests where there are none."""
    diagnosis = load_diagnosis(config.files.bottlenecks)
    if not settings:
        return diagnosis.verified_at is not None
    tried = {one.setting for one in diagnosis.tried_settings}
    return tried.issuperset(settings)


def run(config: Config, args: argparse.Namespace) -> None:
    if args.status:
        runs = config.profiling.num_measurement_runs
        for line in run_status.status_lines(config.files, runs):
            console.print_line(line)
        return
    console.title(TITLE)
    if args.dry_run:
        print_plan(config, args)
        return
    started = time.perf_counter()
    run_steps(config, args)
    console.block("WEEK 1 COMPLETE!", closing_lines(config, time.perf_counter() - started))


def print_plan(config: Config, args: argparse.Namespace) -> None:
    """Say which steps would run, why, and how long each took the last time."""
    last_times = run_status.last_times(config.files)
    earlier_runs = False
    for step in STEPS:
        is_due, reason = decide(step, config, args, earlier_runs)
        print_decision(step, is_due, reason)
        if is_due and step.number in last_times:
            duration = run_status.duration_text(last_times[step.number])
            console.print_line(f"     took {duration} when it last finished here")
        earlier_runs = earlier_runs or is_due
    console.print_line("\nNothing was run (--dry-run).")


def print_decision(step: Step, is_due: bool, reason: str) -> None:
    action = "run" if is_due else "skip"
    console.print_line(f"\n[{step.number}] {step.title}: {action} ({reason})")


def run_steps(config: Config, args: argparse.Namespace) -> None:
    """Run what is due, and record for ``--status`` where the run is."""
    files = config.files
    status = run_status.start_status(files)
    earlier_runs = False
    for step in STEPS:
        is_due, reason = decide(step, config, args, earlier_runs)
        print_decision(step, is_due, reason)
        if not is_due:
            status = run_status.mark_step(files, status, step.number, "skipped")
            continue
        earlier_runs = True
        print_time_left(step, config, args)
        status = run_status.mark_step(
            files, status, step.number, "running", started_unix_s=time.time()
        )
        try:
            seconds = run_step(step, step_arguments(step, args))
        except StepFailed:
            run_status.mark_step(files, status, step.number, "failed")
            raise
        status = run_status.mark_step(files, status, step.number, "done", last_seconds=seconds)
        console.print_line(f"[{step.number}] done in {seconds:,.1f} s")


def print_time_left(step: Step, config: Config, args: argparse.Namespace) -> None:
    """Say how long the rest takes where every step has finished here before.

    A later step counts although ``--resume`` may find it unchanged.
    """
    last_times = run_status.last_times(config.files)
    due: dict[str, float | None] = {}
    for later in STEPS[STEPS.index(step) :]:
        if not getattr(args, later.skip_flag):
            due[later.number] = last_times.get(later.number)
    text = run_status.time_left_text(step.number, due)
    if text is not None:
        console.print_line(f"{text} (by the last times here)")


def step_arguments(step: Step, args: argparse.Namespace) -> list[str]:
    """The flags that the step gets from the runner's own."""
    arguments = cli.common_arguments(args)
    if args.verify is not None and step.number == VERIFIER:
        arguments += ["--verify", *args.verify]
    return arguments


def closing_lines(config: Config, seconds: float) -> list[str]:
    """The six answers, if there are results to read them from."""
    lines = [f"Time: {seconds:,.1f} s", f"Results: {config.files.results_dir}"]
    if config.files.metrics.exists():
        results = read_results(config.files)
        lines.append(f"Model: {model_title(results.metrics.model_info)}")
        lines.append("")
        lines += answer_lines(results)
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run_script(make_parser(), run, argv, exclusive=True)


if __name__ == "__main__":
    raise SystemExit(main())
