#!/usr/bin/env python
"""Check the data set that step 01 wrote: columns, texts, labels, encoding, lengths in tokens."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.config_loader import Config  # noqa: E402
from utils.core import cli, console  # noqa: E402
from utils.data.reader import count_rows, read_label_mapping  # noqa: E402
from utils.data.validation import validate_dataset, validation_lines  # noqa: E402


def body(config: Config, args: argparse.Namespace) -> None:
    count_rows(config.data_file)  # a missing or damaged file is said before a tokenizer is fetched
    mapping = read_label_mapping(config.label_mappings_file)
    # The tokenizer alone: its public door also loads the weights, which may be gigabytes.
    from utils.model_source import locate
    from utils.model_utils import _load_tokenizer

    tokenizer = _load_tokenizer(config, locate(config))

    def count_tokens(texts: list[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]]

    result = validate_dataset(config.data_file, mapping, count_tokens, config.profiling.max_length)
    console.block("DATASET VALIDATION", validation_lines(result, mapping))
    for warning in result.warnings:
        console.warn(warning)


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.make_parser(
        "Check the data set that step 01 wrote: columns, texts, labels, encoding, lengths in tokens.",
        "python scripts/validate_dataset.py --config configs/demo.yaml",
    )
    return cli.run_script(parser, body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
