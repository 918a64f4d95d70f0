#!/usr/bin/env python
"""Load the model, show what it is, and check that texts alone and in a batch get the same labels."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.core.early_exit import exit_quietly_on_interrupt

if __name__ == "__main__":
    exit_quietly_on_interrupt()  # the imports below take seconds

from utils.config_loader import Config
from utils.core import cli, console
from utils.model_utils import check_batching, check_max_length, load_model, model_summary_lines

# Of very different lengths, so that a batch of them holds padding.
TEXTS = [
    "wireless headphones",
    "a book about the history of bread",
    "where is the parcel that I ordered last week, it was to be here on Monday",
    "return",
    "red running shoes for children, size 32, that are light, washable and good on wet ground " * 3,
]


def body(config: Config) -> None:
    console.title("MODEL LOADING CHECK")
    loaded = load_model(config)
    check_max_length(config.profiling.max_length, loaded.model)
    info, times = loaded.info, loaded.info.load_times
    console.block("MODEL SUMMARY", model_summary_lines(info))
    console.say(f"Weights: {info.weights}, {info.dtype} on {info.device}, {info.num_labels} labels")
    console.say(f"Revision: {info.revision or 'none, a local folder'}")
    console.say(f"Load time: {times['total_s']:.2f} s (tokenizer {times['tokenizer_s']:.2f} s, "
                f"weights {times['weights_s']:.2f} s, to the device {times['to_device_s']:.2f} s)")
    labels, difference = check_batching(loaded, TEXTS, config.profiling.max_length)
    console.block("CLASSIFICATION", [f"{label}: {text[:50]}" for label, text in zip(labels, TEXTS, strict=True)])
    texts = "padding on the " + info.padding_side if info.padding_side else "no padding: it changes this model's results"
    console.say(f"Batches: {texts}")
    console.say(f"One by one and as a batch agree (largest difference of a logit: {difference:.2g}).")


if __name__ == "__main__":
    raise SystemExit(cli.run_file(body, __doc__))
