#!/usr/bin/env python
"""Step 02: measure every batch size, then predict the complete data set.

With --set evaluation.enabled=false it measures the batch sizes alone. An interrupted run continues
where it stopped.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.data.dataset_settings import DatasetSettings
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.pipeline import cli, startup

if __name__ == "__main__":
    # Before the imports below, which take seconds and read environment variables.
    startup.prepare_process()
    cli.check_flags(cli.make_simple_parser(__doc__))

from utils.baseline.assemble import build_metrics, check_labels
from utils.baseline.checkpoint import delete_checkpoint
from utils.baseline.output import write_results
from utils.baseline.sweep import measure_sweep
from utils.config_loader import Config
from utils.data.prepared import check_prepared_data
from utils.evaluation.runner import check_workers, evaluate_dataset
from utils.model_utils import check_max_length, load_model, model_labels, model_summary_lines
from utils.pipeline import console, steps
from utils.reporting.evaluation_facts import evaluation_lines
from utils.reporting.latency_facts import latency_target_text
from utils.schema.baseline import SWEEP_ROAD
from utils.schema.warning_codes import sentence_of


def run(config: Config) -> None:
    """Check everything first; earlier results stay until the new ones are complete."""
    started = time.time()
    if config.evaluation.enabled:
        check_workers(config.evaluation)
    prepared = check_prepared_data(DatasetSettings.of(config), model_labels(config))
    data_sha256 = prepared.info.sha256
    loaded = load_model(config)
    check_labels(loaded, prepared.mapping)
    check_max_length(config.profiling.max_length, loaded.model)
    console.block("MODEL SUMMARY", model_summary_lines(loaded.info))
    console.section("PROFILING MULTIPLE BATCH SIZES")
    console.print_line(f"Method: {SWEEP_ROAD}, fixed batches in file order")
    sweep = measure_sweep(loaded, config, data_sha256)
    if sweep.latency_target is not None:
        console.print_line(f"\nLatency target: {latency_target_text(sweep.latency_target)}")
    evaluation = None
    if config.evaluation.enabled:
        startup.prepare_evaluation(on_cuda=loaded.device.type == "cuda")
        settings = EvaluationSettings.of(config)
        evaluation = evaluate_dataset(loaded, settings, data_sha256=data_sha256)
    metrics = build_metrics(config, loaded, prepared, sweep, evaluation, started=started)
    console.block("FULL DATASET EVALUATION", evaluation_lines(metrics))
    for warning in metrics.run.warnings:
        console.warn(sentence_of(warning))
    write_results(config.files, metrics)
    delete_checkpoint(config.files)
    steps.record_finished(steps.get_step("02"), config)


if __name__ == "__main__":
    raise SystemExit(cli.run_simple_script(run, __doc__, exclusive=True))
