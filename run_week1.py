#!/usr/bin/env python
"""Run the whole of week 1: data, baseline, profiling, report."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from utils.core.early_exit import exit_quietly_on_interrupt

if __name__ == "__main__":
    exit_quietly_on_interrupt()  # the imports below take seconds

from utils.config_loader import Config
from utils.core import cli, console
from utils.core.artifacts import read_json
from utils.core.runner import run_step
from utils.core.steps import STEPS, Step, reason_to_run, step
from utils.reporting.answers import answer_lines
from utils.reporting.facts import model_title
from utils.reporting.results import read_results

VERIFIER = "03"
TITLE = "WEEK 1: BASELINE PROFILING AND BOTTLENECK ANALYSIS"


def make_parser() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__ or "", "python run_week1.py --config configs/demo.yaml --resume")
    for item in STEPS:
        flag = "--" + item.skip_flag.replace("_", "-")
        parser.add_argument(flag, action="store_true", help=f"leave out step {item.number}: {item.title.lower()}")
    parser.add_argument("--resume", action="store_true", help="skip each step whose inputs, settings and outputs are unchanged")
    parser.add_argument("--verify", action="store_true", help=f"in step 03, {cli.VERIFY_HELP}")
    parser.add_argument("--dry-run", action="store_true", help="say what would run and why, and run nothing")
    return parser


def decide(item: Step, config: Config, args: argparse.Namespace, earlier_runs: bool) -> tuple[bool, str]:
    """Whether a step is to run, and why or why not."""
    if getattr(args, item.skip_flag):
        return False, f"--{item.skip_flag.replace('_', '-')}"
    if not args.resume:
        return True, "asked for"
    reason = reason_to_run(item, config)
    if reason is None and args.verify and item.number == VERIFIER and not suggestions_tried(config):
        reason = "--verify"
    if reason is None and args.dry_run and earlier_runs:
        return True, "if an earlier step changes what it reads"
    return (True, reason) if reason else (False, "unchanged since it last finished")


def suggestions_tried(config: Config) -> bool:
    """Whether step 03 has tried what it suggests."""
    return bool(read_json(config.files.bottlenecks, made_by=f"python scripts/{step(VERIFIER).script}").get("verified_at"))


def body(config: Config, args: argparse.Namespace) -> None:
    console.title(TITLE)
    started = time.perf_counter()
    ran: list[str] = []
    for item in STEPS:
        wanted, why = decide(item, config, args, bool(ran))
        console.say(f"\n[{item.number}] {item.title}: {'run' if wanted else 'skip'} ({why})")
        if wanted and not args.dry_run:
            verify = ["--verify"] if args.verify and item.number == VERIFIER else []
            seconds = run_step(item, [*cli.common_arguments(args), *verify])
            console.say(f"[{item.number}] done in {seconds:,.1f} s")
        if wanted:
            ran.append(item.number)
    if args.dry_run:
        console.say("\nNothing was run (--dry-run).")
        return
    console.block("WEEK 1 COMPLETE!", closing_lines(config, time.perf_counter() - started))


def closing_lines(config: Config, seconds: float) -> list[str]:
    """The six answers, where there are results to read them from."""
    lines = [f"Time: {seconds:,.1f} s", f"Results: {config.files.results_dir}"]
    if config.files.metrics.exists():
        results = read_results(config.files)
        lines += [f"Model: {model_title(results.metrics['model_info'])}", "", *answer_lines(results)]
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run_script(make_parser(), body, argv, alone=True)


if __name__ == "__main__":
    raise SystemExit(main())
