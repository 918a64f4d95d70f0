"""Step 04: draw the plots and write the reports, from the results files alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.config_loader import Config  # noqa: E402
from utils.core import cli, console, steps  # noqa: E402
from utils.reporting.html import write_report  # noqa: E402
from utils.reporting.results import read_results  # noqa: E402


def body(config: Config, args: argparse.Namespace) -> None:
    results = read_results(config.files)
    for note in results.notes:
        console.warn(note)
    console.block("REPORT", [str(path) for path in write_report(results)])
    steps.record_finished(steps.step("04"), config)


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.make_parser(
        "Draw the plots, write baseline_summary_report.txt and report.html. Reads files only: no model is loaded.",
        "python scripts/04_visualize_results.py --config configs/demo.yaml",
    )
    return cli.run_script(parser, body, argv, alone=True)


if __name__ == "__main__":
    raise SystemExit(main())
