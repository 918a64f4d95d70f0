#!/usr/bin/env python
"""Step 01: fetch the data set, map its labels to the model's ids, write it for the later steps."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.data.dataset_settings import DatasetSettings
from utils.pipeline import cli, startup

if __name__ == "__main__":
    # Before the imports below, which take seconds and read environment variables.
    startup.prepare_process()
    cli.check_flags(cli.make_simple_parser(__doc__))

from utils.config_loader import Config
from utils.data.sources import read_source
from utils.data.writer import check_target, prepare, write_dataset
from utils.demo.assets import ensure_demo_assets
from utils.pipeline import console, steps
from utils.schema.warning_codes import sentence_of
from utils.settings import EMBEDDED


def run(config: Config) -> None:
    settings = DatasetSettings.of(config)
    check_target(settings)
    if EMBEDDED in (config.dataset.hf_name, config.model.name, config.model.tokenizer):
        ensure_demo_assets(config.embedded)
    step = steps.get_step("01")
    if config.dataset.hf_name == EMBEDDED and steps.stale_reason(step, config) is None:
        console.print_line("The embedded data set is there already and unchanged.")
        return
    # PyTorch and transformers take seconds to import, and unchanged demo data does not need them.
    from utils.model_utils import model_labels

    labels = model_labels(config)
    source = read_source(config.dataset, config.embedded_dir)
    preparation = prepare(settings, source, labels)
    for warning in (*preparation.stats.warnings, *preparation.decision.warnings):
        console.warn(sentence_of(warning))
    write_dataset(settings, preparation)
    num_labels = len(preparation.decision.mapping.names)
    console.print_line(
        f"Wrote {preparation.stats.num_rows:,} rows with {num_labels} labels to {config.data_file}"
    )
    console.print_line(
        f"Label ids ({preparation.decision.confidence}): {preparation.decision.note}"
    )
    steps.record_finished(step, config)


if __name__ == "__main__":
    raise SystemExit(cli.run_simple_script(run, __doc__, exclusive=True))
