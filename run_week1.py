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
from utils.pipeline.durations import cost_text, duration_text, num_paid_gpus
from utils.pipeline.step_plan import (
    VERIFIER,
    Decision,
    decide,
    plan_steps,
    resume_text,
    skip_flag,
)
from utils.pipeline.step_process import StepFailed, run_step
from utils.pipeline.steps import STEPS, Step, get_step, stale_reason
from utils.reporting.answers import answer_lines
from utils.reporting.results import read_results, with_report_settings
from utils.reporting.run_facts import model_title

TITLE = "WEEK 1: BASELINE PROFILING AND BOTTLENECK ANALYSIS"
MEASURING_STEPS = ("02", "03")
"""The steps whose results the answers at the end are read from."""


def make_parser() -> argparse.ArgumentParser:
    parser = cli.make_parser(
        __doc__ or "", "python run_week1.py --config configs/demo.yaml --resume"
    )
    for step in STEPS:
        parser.add_argument(
            skip_flag(step),
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
    plan = plan_steps(config, args)
    if args.resume:
        console.print_line(resume_text(plan))
    last_times = run_status.last_times(config.files)
    for decision in plan:
        print_decision(decision)
        number = decision.step.number
        if decision.is_due and number in last_times:
            duration = duration_text(last_times[number])
            console.print_line(f"     took {duration} when it last finished here")
    console.print_line("\nNothing was run (--dry-run).")


def print_decision(decision: Decision) -> None:
    step = decision.step
    action = "run" if decision.is_due else "skip"
    console.print_line(f"\n[{step.number}] {step.title}: {action} ({decision.reason})")


def run_steps(config: Config, args: argparse.Namespace) -> None:
    """Run what is due, and record for ``--status`` where the run is."""
    files = config.files
    status = run_status.start_status(files)
    if args.resume:
        console.print_line(resume_text(plan_steps(config, args)))
    for step in STEPS:
        decision = decide(step, config, args)
        print_decision(decision)
        if not decision.is_due:
            status = run_status.mark_step(files, status, step.number, "skipped")
            continue
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
    """Say how long the rest takes where the next step has finished here before.

    A later step counts although ``--resume`` may find it unchanged.
    """
    last_times = run_status.last_times(config.files)
    due: dict[str, float | None] = {}
    for later in STEPS[STEPS.index(step) :]:
        if not getattr(args, later.skip_flag):
            due[later.number] = last_times.get(later.number)
    left_s = run_status.time_left(due)
    if left_s is None:
        return
    text = run_status.time_left_text(due, left_s)
    price = config.cost.gpu_price_per_hour_usd
    if price is not None:
        num_gpus = num_paid_gpus(config.model.device, config.evaluation.num_workers)
        text += f", {cost_text(left_s, price, num_gpus)}"
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
        results = with_report_settings(read_results(config.files), config.to_dict())
        lines.append(f"Model: {model_title(results.metrics.model_info)}")
        lines += outdated_lines(config)
        lines.append("")
        lines += answer_lines(results)
    return lines


def outdated_lines(config: Config) -> list[str]:
    """Which of the answers are not of the present settings, code and data."""
    lines = []
    for number in MEASURING_STEPS:
        step = get_step(number)
        reason = stale_reason(step, config)
        has_results = any(path.exists() for path in step.outputs(config))
        if has_results and reason is not None:
            lines.append(f"Not of this run's settings: the results of step {number} ({reason})")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run_script(make_parser(), run, argv, exclusive=True)


if __name__ == "__main__":
    raise SystemExit(main())
