#!/usr/bin/env python
"""Check the data set that step 01 wrote: columns, texts, labels, encoding, lengths in tokens."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.config_loader import Config
from utils.core import cli, console
from utils.data.labels import read_mapping_file
from utils.data.reader import count_rows
from utils.data.validation import validate_dataset
from utils.model_utils import load_tokenizer_only


def body(config: Config) -> None:
    count_rows(config.data_file)  # a missing or damaged file is said before a tokenizer is fetched
    mapping = read_mapping_file(config.label_mappings_file)
    tokenizer = load_tokenizer_only(config)

    def count_tokens(texts: list[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]]

    findings, warnings = validate_dataset(config.data_file, mapping, count_tokens, config.profiling.max_length)
    console.block("DATASET VALIDATION", [f"{name}: {found}" for name, found in findings.items()])
    for warning in warnings:
        console.warn(warning)


if __name__ == "__main__":
    raise SystemExit(cli.run_file(body, __doc__))
