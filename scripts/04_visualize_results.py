#!/usr/bin/env python
"""Step 04: draw the plots and write the reports, from the result files alone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.pipeline import cli, startup

if __name__ == "__main__":
    # Before the imports below, which take seconds and read environment variables.
    startup.prepare_process()
    startup.draw_without_display()
    cli.check_flags(cli.make_simple_parser(__doc__))

from utils.config_loader import Config
from utils.pipeline import console, steps
from utils.reporting.report import write_report
from utils.reporting.results import read_results, with_report_settings


def run(config: Config) -> None:
    results = with_report_settings(read_results(config.files), config.to_dict())
    for note in results.notes:
        console.warn(note)
    paths = [str(path) for path in write_report(results)]
    console.block("REPORT", paths)
    steps.record_finished(steps.get_step("04"), config)


if __name__ == "__main__":
    raise SystemExit(cli.run_simple_script(run, __doc__, exclusive=True))
