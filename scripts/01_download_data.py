#!/usr/bin/env python
"""Step 01: fetch the data set, map its labels to the model's ids, write it for the later steps."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.config_loader import EMBEDDED, Config
from utils.core import cli, console, steps
from utils.data.demo_assets import ensure_demo_assets
from utils.data.labels import decide_mapping
from utils.data.sources import read_source, scan, write_dataset
from utils.model_utils import model_labels


def body(config: Config) -> None:
    if EMBEDDED in (config.dataset.hf_name, config.model.name, config.model.tokenizer):
        ensure_demo_assets(config)
    step = steps.step("01")
    if config.dataset.hf_name == EMBEDDED and steps.reason_to_run(step, config) is None:
        console.say("The embedded data set is there already and unchanged.")
        return
    source = read_source(config)
    contents = scan(source, config.dataset.hf_name)
    skip = config.evaluation.unknown_labels == "skip"
    mapping, origin, warnings = decide_mapping(contents.label_rows, model_labels(config), skip_unknown=skip)
    for warning in (*contents.warnings, *warnings):
        console.warn(warning)
    write_dataset(config, source, contents, mapping, origin, warnings)
    console.say(f"Wrote {contents.num_rows:,} rows with {len(mapping.names)} labels to {config.data_file}")
    console.say(f"Label ids are {'sorted names' if origin == 'sorted' else 'those of the model'}: {config.label_mappings_file}")
    steps.record_finished(step, config)


if __name__ == "__main__":
    raise SystemExit(cli.run_file(body, __doc__, alone=True))
