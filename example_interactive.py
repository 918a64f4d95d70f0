#!/usr/bin/env python
"""The whole pipeline on few samples, with the key results explained as they appear."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence

from utils.pipeline import startup

if __name__ == "__main__":
    # Before the imports below, which take seconds and read environment variables.
    startup.prepare_process()

from utils.config_loader import Config, load_config
from utils.core.files import METRICS_SCHEMA, read_json
from utils.core.result_files import ResultFiles
from utils.pipeline import cli, console
from utils.pipeline.step_process import run_step
from utils.pipeline.steps import STEPS
from utils.reporting.evaluation_facts import quality_facts

FEW = (
    "dataset.sample_sizes=[16]",
    "profiling.batch_sizes=[1, 4, 16]",
    "profiling.num_measurement_runs=3",
    "evaluation.max_samples=500",
)


def explain_data(config: Config) -> list[str]:
    mapping = read_json(config.label_mappings_file, made_by="python scripts/01_download_data.py")
    return [
        f"The data set is in {config.data_file} with {mapping['num_labels']} labels.",
        "A label's number is the model's own: with numbers of our own making, accuracy would be nonsense.",
    ]


def explain_baseline(config: Config) -> list[str]:
    metrics = read_json(
        config.files.metrics,
        made_by="python scripts/02_baseline_inference.py",
        schema=METRICS_SCHEMA,
    )
    rows = [row for row in metrics["batch_size_profiling"] if row["status"] == "ok"]
    lines = [
        f"Batch size {row['batch_size']:>3}: {row['latency_per_sample_ms_mean']:8.2f} ms a sample, "
        f"{row['throughput_samples_per_sec_mean']:8.1f} samples/s"
        for row in rows
    ]
    lines.append(
        "Every batch size ran over the same texts, so these rows can be compared with each other."
    )
    best = metrics["optimal_batch_size"]
    if best:
        lines.append(f"The best throughput is at batch size {best['batch_size']}.")
    evaluation = metrics["full_dataset_metrics"]
    lines.append(f"On {evaluation['num_samples']:,} rows:")
    facts = quality_facts(evaluation, metrics["model_info"], metrics["dataset_info"])
    lines += [f"  {name}: {text}" for name, text in facts]
    lines.append(
        f"{evaluation['padding_fraction']:.1%} of the evaluation's tokens were padding, work that no text asked for."
    )
    return lines


def explain_profiling(config: Config) -> list[str]:
    found = read_json(config.files.bottlenecks, made_by="python scripts/03_detailed_profiling.py")
    with config.files.layers.open(encoding="utf-8", newline="") as source:
        measured = [row for row in csv.DictReader(source) if row["self_time_ms"]]
    layers = sorted(measured, key=lambda row: -float(row["self_time_ms"]))
    lines = [str(found["main_bottleneck"]), "The modules that take the most time by themselves:"]
    lines += [f"  {row['module']}: {float(row['self_time_ms']):.3f} ms" for row in layers[:3]]
    for suggestion in found["suggestions"][:1]:
        lines.append(
            f"What would save most: {suggestion['title']} ({suggestion['saving_ms']:.2f} ms a batch)"
        )
    return lines


def explain_report(config: Config) -> list[str]:
    files: ResultFiles = config.files
    return [f"Open {files.html_report} in a browser, or read {files.summary_report}."]


EXPLAIN: dict[str, Callable[[Config], list[str]]] = {
    "01": explain_data,
    "02": explain_baseline,
    "03": explain_profiling,
    "04": explain_report,
}


def run(config: Config, args: argparse.Namespace) -> None:
    # The user's own --set comes last, so that it wins over the small sizes chosen here.
    args.overrides = [
        *FEW,
        f"output.results_dir={config.files.results_dir / 'interactive'}",
        *args.overrides,
    ]
    small = load_config(args.config, args.overrides)
    console.title("WEEK 1 ON FEW SAMPLES: too few to quote, enough to see how it works")
    for item in STEPS:
        console.section(f"STEP {item.number}: {item.title}")
        run_step(item, cli.common_arguments(args))
        console.block(f"WHAT STEP {item.number} FOUND", EXPLAIN[item.number](small))
    console.print_line("\nNow run it whole: python run_week1.py")


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.make_parser(
        __doc__ or "", "python example_interactive.py --config configs/demo.yaml"
    )
    return cli.run_script(parser, run, argv, exclusive=True)


if __name__ == "__main__":
    raise SystemExit(main())
