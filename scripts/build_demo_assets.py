#!/usr/bin/env python
"""Build the embedded corpus, tokenizer and model, if they are not there yet."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.config_loader import Config  # noqa: E402
from utils.core import cli, console  # noqa: E402
from utils.data.demo_assets import ensure_demo_assets  # noqa: E402


def body(config: Config, args: argparse.Namespace) -> None:
    console.say(f"The embedded corpus and model are in {ensure_demo_assets(config)}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.make_parser(
        "Build the embedded corpus, tokenizer and model, if they are not there yet.",
        "python scripts/build_demo_assets.py --config configs/demo.yaml",
    )
    return cli.run_script(parser, body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
