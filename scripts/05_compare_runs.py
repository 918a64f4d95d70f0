#!/usr/bin/env python
"""Step 05: compare two sides of results: what differs, speed, memory, quality, diagnosis, cost.

Each side is one or more results folders or baseline_metrics.json files: repeats of the same
measurement, each in a process of its own.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.comparison import command_line
from utils.pipeline import cli, startup

EXAMPLES = """python scripts/05_compare_runs.py results --with results-bf16
  python scripts/05_compare_runs.py week1/a week1/b week1/c --with week2/a week2/b week2/c
  python scripts/05_compare_runs.py results --with results-bf16 --price 2.49 --format markdown
  python scripts/05_compare_runs.py results --with results-bf16 \\
      --fail-if "throughput<-5%" --fail-if "accuracy<-0.5pp" --fail-if "peak_gpu_mem>+10%"

exit codes: 0 compared, and no gate is violated; 3 a gate is violated; 4 the data cannot
decide a gate; 2 the results cannot be used"""


def make_parser() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__ or "", EXAMPLES)
    parser.add_argument(
        "baseline", nargs="+", metavar="BASELINE", help="results folder or metrics file"
    )
    parser.add_argument(
        "--with",
        dest="candidate",
        nargs="+",
        required=True,
        metavar="CANDIDATE",
        help="the same of the other side",
    )
    command_line.add_comparison_flags(parser)
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help="where comparison.json and comparison.html go (default: output.results_dir)",
    )
    return parser


if __name__ == "__main__":
    # Before the imports below, which take seconds and read environment variables.
    startup.prepare_process()
    cli.check_flags(make_parser())

from utils.comparison.compare import compare_sides
from utils.comparison.loading import find_results
from utils.config_loader import Config
from utils.core.paths import working_directory
from utils.pipeline import console
from utils.reporting.comparison_markdown import render_markdown
from utils.reporting.comparison_report import write_comparison
from utils.reporting.comparison_text import render_text


def run(config: Config, args: argparse.Namespace) -> int:
    options = command_line.read_options(args, config)
    comparison = compare_sides(
        [find_results(name) for name in args.baseline],
        [find_results(name) for name in args.candidate],
        options,
    )
    folder = config.files.results_dir
    if args.output is not None:
        folder = working_directory() / Path(args.output).expanduser()
    files = write_comparison(comparison, folder)
    if args.format == "markdown":
        console.print_line(render_markdown(comparison))
    else:
        console.print_line(render_text(comparison))
        console.print_line(f"Details: {', '.join(map(str, files))}")
    return command_line.exit_code(comparison.gates, args.inconclusive)


if __name__ == "__main__":
    raise SystemExit(cli.run_script(make_parser(), run))
