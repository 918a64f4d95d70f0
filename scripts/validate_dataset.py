#!/usr/bin/env python
"""Check the data set that step 01 wrote: columns, texts, labels, encoding, lengths in tokens,
unknown tokens."""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.data.dataset_settings import DatasetSettings
from utils.pipeline import cli, startup

if __name__ == "__main__":
    # Before the imports below, which take seconds and read environment variables.
    startup.prepare_process()
    cli.check_flags(cli.make_simple_parser(__doc__))

from utils.config_loader import Config
from utils.data.prepared import check_prepared_data
from utils.data.validation import count_tokens, validate_dataset
from utils.model_utils import load_tokenizer_only, model_labels
from utils.pipeline import console
from utils.schema.warning_codes import sentence_of


def run(config: Config) -> None:
    prepared = check_prepared_data(DatasetSettings.of(config), model_labels(config))
    tokenizer = load_tokenizer_only(config)
    count = partial(count_tokens, tokenizer)
    findings, warnings = validate_dataset(
        config.data_file, prepared.mapping, count, config.profiling.max_length
    )
    console.block(
        "DATASET VALIDATION", [f"{name}: {finding}" for name, finding in findings.items()]
    )
    for warning in warnings:
        console.warn(sentence_of(warning))


if __name__ == "__main__":
    raise SystemExit(cli.run_simple_script(run, __doc__))
