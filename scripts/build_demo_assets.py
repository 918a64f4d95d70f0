#!/usr/bin/env python
"""Build the embedded corpus, tokenizer and model, if they are not there yet."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.pipeline import cli, startup

if __name__ == "__main__":
    # Before the imports below, which take seconds and read environment variables.
    startup.prepare_process()
    cli.check_flags(cli.make_simple_parser(__doc__))

from utils.config_loader import Config
from utils.demo.assets import ensure_demo_assets
from utils.pipeline import console


def run(config: Config) -> None:
    folder = ensure_demo_assets(config.embedded)
    console.print_line(f"The embedded corpus and model are in {folder}")


if __name__ == "__main__":
    raise SystemExit(cli.run_simple_script(run, __doc__))
