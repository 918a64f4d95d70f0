#!/usr/bin/env python
"""Step 06: measure the present and a changed configuration in turn, then compare them.

Each side is measured several times, in fresh processes that take turns (A B B A A B ...), so that a
drifting machine does not look like an effect. Interrupted, it continues at the first process that
has not finished; run again with nothing changed, it only compares again.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.comparison import command_line
from utils.pipeline import cli, hints, startup

EXAMPLES = """python scripts/06_measure_change.py --config configs/demo.yaml \\
      --set profiling.max_length=32
  python scripts/06_measure_change.py --set model.dtype=bfloat16 --evaluate --repeats 5 \\
      --fail-if "throughput<-2%" --fail-if "accuracy<-0.5pp"
  python scripts/06_measure_change.py --both model.matmul_precision=high \\
      --set model.attn_implementation=eager --dry-run

exit codes: 0 compared, and no gate is violated; 3 a gate is violated; 4 the data cannot
decide a gate; 2 something has to be changed; 130 or 143 interrupted"""
DEFAULT_REPEATS = 3


def make_parser() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__ or "", EXAMPLES, settings_flag=hints.BOTH_SIDES_FLAG)
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        required=True,
        metavar="KEY=VALUE",
        help="the change: a setting of the candidate alone; may be given often",
    )
    parser.add_argument(
        "--repeats",
        type=_positive,
        default=DEFAULT_REPEATS,
        metavar="N",
        help="processes of each side (default: %(default)s)",
    )
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="also evaluate the complete data set in each process: accuracy and its speed",
    )
    parser.add_argument(
        "--diagnose",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="profile each side once after the measurements, to see where the time went",
    )
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="folder below results/changes (default: made of the changed settings)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show the order and the folders, run nothing"
    )
    command_line.add_comparison_flags(parser)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


if __name__ == "__main__":
    # Before the imports below, which take seconds and read environment variables.
    startup.prepare_process()
    cli.check_flags(make_parser())

from utils.comparison.compare import compare_sides
from utils.config_loader import Config
from utils.pipeline import console
from utils.pipeline.change_folder import prepare_folder, read_machine_changes
from utils.pipeline.change_plan import Change, ChangeRequest, SideName, plan_change
from utils.pipeline.change_processes import (
    describe_plan,
    diagnose_sides,
    measure_processes,
    prepare_data_sets,
)
from utils.pipeline.change_settings import describe_changes
from utils.reporting.comparison_facts import repeats_text
from utils.reporting.comparison_markdown import render_markdown
from utils.reporting.comparison_report import write_comparison
from utils.reporting.comparison_text import render_text
from utils.reporting.text_layout import PAGE


def run(config: Config, args: argparse.Namespace) -> int:
    """``config`` has the settings of both sides, without the change."""
    options = command_line.read_options(args, config)
    change = plan_change(read_request(args))
    machine_changes = read_machine_changes(change)
    console.note(f"Measuring a change: {describe_changes(change.settings)}")
    console.note(f"Results: {change.folder}")
    if machine_changes:
        changed = ", ".join(machine_changes)
        console.note(f"Everything is measured again, because this changed: {changed}")
    if args.dry_run:
        console.print_line("\n".join(describe_plan(change, diagnoses=args.diagnose)))
        console.print_line("\nNothing was run (--dry-run).")
        return 0
    prepare_data_sets(change, args.log_level)
    prepare_folder(change, delete_processes=bool(machine_changes))
    measure_processes(change, args.log_level)
    if args.diagnose:
        diagnose_sides(change, args.log_level)
    baseline = metrics_files(change, "baseline")
    candidate = metrics_files(change, "candidate")
    comparison = compare_sides(baseline, candidate, options)
    files = write_comparison(comparison, change.folder)
    if args.format == "markdown":
        console.print_line(render_markdown(comparison))
    else:
        console.print_line(f"\n{render_text(comparison)}")
        advice = repeats_text(comparison, args.repeats)
        if advice is not None:
            console.print_line("\n".join(PAGE.wrap(advice)) + "\n")
        console.print_line(f"Details: {', '.join(map(str, files))}")
    return command_line.exit_code(comparison.gates, args.inconclusive)


def read_request(args: argparse.Namespace) -> ChangeRequest:
    return ChangeRequest(
        config_file=args.config,
        shared=tuple(args.overrides),
        changed=tuple(args.changes),
        repeats=args.repeats,
        evaluates=args.evaluate,
        name=args.name,
    )


def metrics_files(change: Change, side: SideName) -> list[Path]:
    return [process.config.files.metrics for process in change.of_side(side)]


if __name__ == "__main__":
    raise SystemExit(cli.run_script(make_parser(), run, exclusive=True))
