#!/usr/bin/env python
"""All steps of the pipeline on few samples, with the key results explained as they appear."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from utils.pipeline import startup

if __name__ == "__main__":
    # Before the imports below, which take seconds and read environment variables.
    startup.prepare_process()

from utils.config_loader import Config, load_config
from utils.core.files import read_json
from utils.core.rounding import round_mean_std, round_value
from utils.pipeline import cli, console
from utils.pipeline.step_process import run_step
from utils.pipeline.steps import STEPS, get_step
from utils.reporting.evaluation_facts import not_evaluated_text, quality_facts
from utils.schema.baseline import load_baseline_metrics
from utils.schema.batch_size import SweepRow
from utils.schema.diagnosis import load_diagnosis
from utils.schema.trace_tables import read_trace_tables

SMALL_SETTINGS = (
    "dataset.sample_sizes=[16]",
    "profiling.batch_sizes=[1, 4, 16]",
    "profiling.num_measurement_runs=3",
    "evaluation.max_samples=500",
)
SLOWEST_MODULES = 3
"""Modules that are named after step 03."""


def explain_data(config: Config) -> list[str]:
    mapping = read_json(config.label_mappings_file, made_by=get_step("01").command)
    return [
        f"The data set is in {config.data_file} with {mapping['num_labels']} labels.",
        "The label ids are those of the model: with other ids the accuracy would mean nothing.",
    ]


def explain_baseline(config: Config) -> list[str]:
    metrics = load_baseline_metrics(config.files.metrics)
    evaluation = metrics.full_dataset_metrics
    lines = [_row_line(row) for row in metrics.batch_size_profiling if row.status == "ok"]
    lines.append(
        "Every batch size ran over the same texts, so these rows can be compared with each other."
    )
    best = metrics.optimal_batch_size
    if best is not None:
        lines.append(f"The best throughput is at batch size {best.batch_size}.")
    if evaluation is None:
        return [*lines, not_evaluated_text(metrics)]
    lines.append(f"On {evaluation.num_samples:,} rows:")
    for fact in quality_facts(evaluation, metrics.model_info, metrics.dataset_info):
        lines.append(f"  {fact.name}: {fact.text}")
    if evaluation.padding_fraction is not None:
        lines.append(
            f"{evaluation.padding_fraction:.1%} of the evaluation's tokens were padding, "
            "work that no text asked for."
        )
    return lines


def _row_line(row: SweepRow) -> str:
    assert row.latency_per_sample_ms_mean is not None, "the row was measured"
    assert row.throughput_samples_per_sec_mean is not None, "the row was measured"
    latency_ms, _ = round_mean_std(
        row.latency_per_sample_ms_mean, row.latency_per_sample_ms_std or 0.0
    )
    samples_per_s = round_value(
        row.throughput_samples_per_sec_mean,
        row.throughput_samples_per_sec_ci95_low,
        row.throughput_samples_per_sec_ci95_high,
    ).value
    return (
        f"Batch size {row.batch_size:>3}: {latency_ms:>8} ms a sample, {samples_per_s:>8} samples/s"
    )


def explain_profiling(config: Config) -> list[str]:
    diagnosis = load_diagnosis(config.files.bottlenecks)
    layers = read_trace_tables(config.files).layers
    slowest = sorted(layers, key=lambda row: -row.self_time_ms)[:SLOWEST_MODULES]
    lines = [diagnosis.main_bottleneck, "The modules that take the most time by themselves:"]
    for row in slowest:
        lines.append(f"  {row.module}: {round_value(row.self_time_ms).value} ms")
    for suggestion in diagnosis.suggestions[:1]:
        saving = f"{round_value(suggestion.saving_ms).value} ms a batch"
        lines.append(f"What would save most: {suggestion.title} ({saving})")
    return lines


def explain_report(config: Config) -> list[str]:
    files = config.files
    return [f"Open {files.html_report} in a browser, or read {files.summary_report}."]


EXPLANATIONS: dict[str, Callable[[Config], list[str]]] = {
    "01": explain_data,
    "02": explain_baseline,
    "03": explain_profiling,
    "04": explain_report,
}


def run(config: Config, args: argparse.Namespace) -> None:
    # The user's own --set comes last, so that it replaces the small sizes chosen here.
    args.overrides = [
        *SMALL_SETTINGS,
        f"output.results_dir={config.files.results_dir / 'interactive'}",
        *args.overrides,
    ]
    small_config = load_config(args.config, args.overrides)
    console.title("WEEK 1 ON FEW SAMPLES: too few to quote, sufficient to see how it works")
    for step in STEPS:
        console.section(f"STEP {step.number}: {step.title}")
        run_step(step, cli.common_arguments(args))
        console.block(f"RESULTS OF STEP {step.number}", EXPLANATIONS[step.number](small_config))
    console.print_line("\nNow run all of it: python run_week1.py")


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.make_parser(
        __doc__ or "", "python example_interactive.py --config configs/demo.yaml"
    )
    return cli.run_script(parser, run, argv, exclusive=True)


if __name__ == "__main__":
    raise SystemExit(main())
