#!/usr/bin/env python
"""Step 02: measure every batch size, then predict the whole data set. A run that was cut goes on where it stopped."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.core.early_exit import exit_quietly_on_interrupt

if __name__ == "__main__":
    exit_quietly_on_interrupt()  # the imports below take seconds

from utils import baseline
from utils.config_loader import Config
from utils.core import cli, console, steps
from utils.data.prepared import check_prepared_data
from utils.evaluation.runner import check_workers, evaluate_dataset
from utils.model_utils import check_max_length, load_model, model_labels, model_summary_lines


def body(config: Config) -> None:
    """What can be refused early is; what earlier runs wrote stays until the new figures are complete."""
    started = time.time()
    check_workers(config)
    prepared = check_prepared_data(config, model_labels(config))
    data_sha256 = prepared.info.sha256
    loaded = load_model(config)
    baseline.check_labels(loaded, prepared.mapping)
    check_max_length(config.profiling.max_length, loaded.model)
    console.block("MODEL SUMMARY", model_summary_lines(loaded.info))
    console.section("PROFILING MULTIPLE BATCH SIZES")
    sweep = baseline.measure_sweep(loaded, config, data_sha256)
    evaluation = evaluate_dataset(loaded, config, data_sha256=data_sha256)
    payload = baseline.assemble(config, loaded, prepared, sweep, evaluation, started=started, data_sha256=data_sha256)
    lines = baseline.evaluation_lines(evaluation, payload["model_info"], payload["dataset_info"])
    console.block("FULL DATASET EVALUATION", lines)
    for warning in payload["run"]["warnings"]:
        console.warn(warning)
    baseline.write_results(config, payload)
    baseline.forget_sweep(config)
    steps.record_finished(steps.step("02"), config)


if __name__ == "__main__":
    raise SystemExit(cli.run_file(body, __doc__, alone=True))
