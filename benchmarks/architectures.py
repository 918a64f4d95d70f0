#!/usr/bin/env python
"""Every sequence classifier class of the installed transformers, in batches and one text at a time.

Each class is built small from its configuration, with random weights and a tokenizer of the kind
that it is used with. The expected results come from transformers alone, one text at a time, with
everything that the tokenizer returns. The program's results come from the batches of the sweep and
from those of the evaluation. The exit code is 1 where they differ.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import connection, context, get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import transformers
from transformers.utils import logging as transformers_logging

from benchmarks.small_models.classifiers import model_types
from benchmarks.small_models.comparison import (
    LENGTHS,
    RESULTS,
    TOLERANCE,
    WRONG,
    Outcome,
    compare,
    load,
    outcome,
)

QUICK = (
    "bart", "bert", "deberta-v2", "distilbert", "gpt2", "llama", "modernbert", "roberta", "t5",
    "xlnet",
)  # fmt: skip
PAGE = """\
# Architectures

Made by `python benchmarks/architectures.py --write docs/MODELS.md` with transformers {transformers}
and torch {torch}: every sequence classifier class that this version of transformers has.

Each class is built small from its configuration, with random weights and a tokenizer of the kind
that it is used with, and saved. The expected results for {texts} texts of 1 to {words} words, and
for some that hold the end token, come from transformers alone, one text at a time, with everything
that the tokenizer returns. The program loads the same folder and runs the texts in the batches of
the sweep and in those of the evaluation, by token budget and in file order.

- **right**: all labels are equal, and no probability differs by more than {tolerance:g}.
- **refused**: the program refuses the model with a message, before it measures anything. Where the
  message advises to measure single texts, the advice was followed and the results compared. The
  remark says whether transformers' own padded batches give what each text gets alone.
- **not buildable**: the class cannot be built from its configuration alone, or does not classify
  plain texts.
- **WRONG**: anything else. There must be none: the command then ends with exit code 1.

A word after a colon is a variant that computes long texts in another way than short ones: `long`
with block-sparse attention, `longrope` with other rotary frequencies.

{tally}.

| class | model type | result | remarks |
|---|---|---|---|
{rows}
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the classes are run. ``disturb`` spoils the batches on purpose."""

    workers: int
    timeout_s: float
    disturb: bool


@dataclass(frozen=True, kw_only=True)
class Case:
    """A class whose process is running."""

    model_type: str
    process: context.ForkProcess
    report: Path
    deadline_s: float


def run_all(types: Sequence[str], options: Options) -> list[Outcome]:
    """Compare every class in a process of its own, some at a time, in the order of their names."""
    outcomes: list[Outcome] = []
    waiting = list(types)
    running: list[Case] = []
    with tempfile.TemporaryDirectory(prefix="architectures-") as folder:
        while waiting or running:
            while waiting and len(running) < options.workers:
                running.append(_start(waiting.pop(0), Path(folder), options))
            connection.wait([case.process.sentinel for case in running], timeout=1.0)
            ended = [case for case in running if _has_ended(case)]
            running = [case for case in running if case not in ended]
            for case in ended:
                outcomes.append(_collect(case, options))
    return sorted(outcomes, key=lambda result: (result.class_name, result.model_type))


def _start(model_type: str, folder: Path, options: Options) -> Case:
    model_folder = folder / model_type.replace(":", "-")
    model_folder.mkdir()
    report = model_folder.with_suffix(".json")
    arguments = (model_type, model_folder, report, options.disturb)
    # A fork, so that the libraries are imported only once. This process has a single thread.
    process = get_context("fork").Process(target=_child, args=arguments)
    process.start()
    deadline_s = time.monotonic() + options.timeout_s
    return Case(model_type=model_type, process=process, report=report, deadline_s=deadline_s)


def _child(model_type: str, folder: Path, report: Path, disturb: bool) -> None:
    torch.set_num_threads(1)
    log: Any = transformers_logging  # its functions have no types
    log.set_verbosity_error()
    log.disable_progress_bar()
    # What libraries print would stand between the lines of the table.
    output = os.open(report.with_suffix(".log"), os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    compare(model_type, folder, report, disturb=disturb)


def _has_ended(case: Case) -> bool:
    return not case.process.is_alive() or time.monotonic() > case.deadline_s


def _collect(case: Case, options: Options) -> Outcome:
    """The outcome that the process has left, with how it ended where that was no ordinary end."""
    timed_out = case.process.is_alive()
    if timed_out:
        case.process.kill()
    case.process.join()
    result = load(case.report)
    code = case.process.exitcode
    if timed_out:
        how = f"stopped after {options.timeout_s:g} s"
    elif code:
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    else:
        return result
    return outcome(case.model_type, result.result, f"{result.remark} ({how})")


def tally(outcomes: Sequence[Outcome]) -> str:
    """How many classes had which result."""
    counts = []
    for name in RESULTS:
        counts.append(f"{sum(result.result == name for result in outcomes)} {name}")
    return f"{len(outcomes)} rows: {', '.join(counts)}"


def page(outcomes: Sequence[Outcome]) -> str:
    """The table as a page for docs/."""
    rows = []
    for result in outcomes:
        remark = result.remark.replace("|", "\\|").replace("<", "\\<")
        rows.append(f"| {result.class_name} | {result.model_type} | {result.result} | {remark} |")
    return PAGE.format(
        transformers=transformers.__version__,
        torch=torch.__version__.split("+")[0],
        texts=len(LENGTHS),
        words=max(LENGTHS),
        tolerance=TOLERANCE,
        tally=tally(outcomes),
        rows="\n".join(rows),
    )


def make_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(
        prog="architectures.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python benchmarks/architectures.py --only bert,t5",
    )
    add = parser.add_argument
    add("--only", metavar="TYPES", help="model types, separated by commas; default: all")
    add("--quick", action="store_true", help=f"common model types alone: {', '.join(QUICK)}")
    add("--write", type=Path, metavar="PATH", help="write the table there as Markdown")
    add("--workers", type=int, default=os.cpu_count(), help="processes; default: one a core")
    add("--timeout-s", type=float, default=120.0, help="seconds for one class; default: 120")
    add(
        "--disturb",
        action="store_true",
        help="spoil every batch of several texts, to see that it is noticed (exit code 1)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Compare the classes, print the table, and return 1 where one is wrong."""
    parser = make_parser()
    args = parser.parse_args(argv)
    types = list(QUICK) if args.quick else model_types()
    if args.only:
        types = args.only.split(",")
    unknown = sorted(set(types) - set(model_types()))
    if unknown:
        version = transformers.__version__
        parser.error(f"transformers {version} has no classifier of the type {', '.join(unknown)}")
    options = Options(workers=args.workers, timeout_s=args.timeout_s, disturb=args.disturb)
    started = time.perf_counter()
    outcomes = run_all(types, options)
    width = max(len(result.class_name) for result in outcomes)
    for result in outcomes:
        name = result.class_name.ljust(width)
        print(f"{name}  {result.model_type:21}  {result.result}: {result.remark}")
    print(f"\n{tally(outcomes)}; {time.perf_counter() - started:.0f} s")
    if args.write:
        args.write.write_text(page(outcomes), encoding="utf-8")
    return int(any(result.result == WRONG for result in outcomes))


if __name__ == "__main__":
    sys.exit(main())
