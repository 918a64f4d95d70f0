#!/usr/bin/env python
"""Load the model, describe it, and check that batches give the labels of single texts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.pipeline import cli, startup

if __name__ == "__main__":
    # Before the imports below, which take seconds and read environment variables.
    startup.prepare_process()
    cli.check_flags(cli.make_simple_parser(__doc__))

from utils.config_loader import Config
from utils.model_utils import (
    LoadedModelInfo,
    check_batching,
    check_max_length,
    load_model,
    model_summary_lines,
)
from utils.pipeline import console

# Of very different lengths, so that a batch of them has padding.
TEXTS = [
    "wireless headphones",
    "a book about the history of bread",
    "where is the parcel that I ordered last week, it was to be here on Monday",
    "return",
    "red running shoes for children, size 32, that are light, washable and good on wet ground " * 3,
]


def run(config: Config) -> None:
    console.title("MODEL LOADING CHECK")
    loaded = load_model(config)
    check_max_length(config.profiling.max_length, loaded.model)
    print_model(loaded.info)
    labels, difference = check_batching(loaded, TEXTS, config.profiling.max_length)
    lines = [f"{label}: {text[:50]}" for label, text in zip(labels, TEXTS, strict=True)]
    console.block("CLASSIFICATION", lines)
    if loaded.info.padding_side:
        console.print_line(f"Batches: padding on the {loaded.info.padding_side}")
    else:
        console.print_line("Batches: no padding, because it changes this model's results")
    console.print_line(
        f"One text at a time and a batch agree (largest difference of a logit: {difference:.2g})."
    )


def print_model(info: LoadedModelInfo) -> None:
    times = info.load_times
    checks_s = times["total_s"] - times["tokenizer_s"] - times["weights_s"] - times["to_device_s"]
    console.block("MODEL SUMMARY", model_summary_lines(info))
    console.print_line(
        f"Weights: {info.weights}, {info.dtype} on {info.device}, {info.num_labels} labels"
    )
    console.print_line(f"Revision: {info.revision or 'none, a local folder'}")
    console.print_line(
        f"Load time: {times['total_s']:.2f} s (tokenizer {times['tokenizer_s']:.2f} s, "
        f"weights {times['weights_s']:.2f} s, to the device {times['to_device_s']:.2f} s, "
        f"checks {checks_s:.2f} s)"
    )


if __name__ == "__main__":
    raise SystemExit(cli.run_simple_script(run, __doc__))
