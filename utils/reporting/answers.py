"""The six questions that week 1 must answer, each with its answer and where to look."""

from __future__ import annotations

import textwrap

from utils.core.artifacts import ResultFiles
from utils.reporting.figures import interval, number, unmeasured
from utils.reporting.results import STEP_03_MISSING, Results, read_results

WIDTH = 100
LABEL = 22

Answer = tuple[str, str, str]
"""Question, answer, where to look."""


def six_answers(results: Results) -> list[Answer]:
    """The answers to the questions of the project's success criteria, in their order."""
    files = results.files
    report, metrics = files.summary_report.name, files.metrics.name
    diagnosis = f"{files.bottlenecks.name}; the timeline: {files.traces_dir.name}/{files.trace.name}"
    return [
        ("Baseline latency?", _latency(results), f"{report}: Full Dataset Performance"),
        ("Optimal batch size?", _optimal(results), f"{report}: Batch Size Analysis"),
        ("Maximum throughput?", _throughput(results), f"{files.detailed_metrics.name}: max(throughput_samples_per_sec_mean)"),
        _memory_question(results),
        ("Main bottleneck?", _bottleneck(results), diagnosis),
        ("Model accuracy?", accuracy(results), f"{metrics}: full_dataset_metrics.accuracy"),
    ]


def answer_lines(files: ResultFiles) -> list[str]:
    """The six answers for a terminal, at most 100 columns.

    Raises:
        UserError: there are no metrics, or a file is not what its step writes.
    """
    lines = []
    for question, answer, where in six_answers(read_results(files)):
        lines += textwrap.wrap(f"{question:<{LABEL}}{answer}", WIDTH, subsequent_indent=" " * LABEL)
        lines += textwrap.wrap(f"see {where}", WIDTH, initial_indent=" " * LABEL, subsequent_indent=" " * LABEL)
    return lines


def _latency(results: Results) -> str:
    whole = results.evaluation
    said = f"{number(whole['latency_per_sample_ms'])} ms per sample over {number(whole['num_samples'])} rows"
    single = next((row for row in results.sweep.measured if row["batch_size"] == 1), None)
    if single is None or single["latency_per_batch_ms_median"] is None:
        return said
    return f"{said}; one text alone takes {number(single['latency_per_batch_ms_median'])} ms (p50 at batch size 1)"


def _optimal(results: Results) -> str:
    best = results.metrics["optimal_batch_size"]
    if best is None:
        return "not measured: no batch size of the sweep finished"
    tied = [str(size) for size in best["tied_with"] if size != best["batch_size"]]
    also = f"; not told apart from {', '.join(tied)}" if tied else ""
    return f"{best['batch_size']} ({best['criterion']}){also}"


def _throughput(results: Results) -> str:
    name = "throughput_samples_per_sec"
    best = max(results.sweep.having(f"{name}_mean"), key=lambda row: row[f"{name}_mean"], default=None)
    if best is None:
        return "not measured: no batch size of the sweep finished"
    said = f"{number(best[f'{name}_mean'])} samples/s at batch size {best['batch_size']}"
    low, high = best[f"{name}_ci95_low"], best[f"{name}_ci95_high"]
    return said if low is None else f"{said} (95% interval {interval(low, high)})"


def _memory_question(results: Results) -> Answer:
    whole, file = results.evaluation, results.files.metrics.name
    if not results.on_gpu:
        resident = number(whole["cpu_mem_used"], "MB", missing=unmeasured("cpu_mem_used", whole["warnings"]))
        return "Memory usage?", f"{resident} resident on the CPU; no GPU was used", f"{file}: full_dataset_metrics.cpu_mem_used"
    used = number(whole["gpu_mem_used"], "MB", missing=unmeasured("gpu_mem_used", whole["warnings"]))
    peak = number(whole["peak_gpu_mem"], "MB", missing=unmeasured("peak_gpu_mem", whole["warnings"]))
    return "GPU memory usage?", f"{used}; peak {peak}", f"{file}: full_dataset_metrics.gpu_mem_used"


def _bottleneck(results: Results) -> str:
    return str(results.diagnosis["main_bottleneck"]) if results.diagnosis else f"not measured: {STEP_03_MISSING}"


def accuracy(results: Results) -> str:
    """Accuracy with its interval, or why there is none."""
    whole = results.evaluation
    if whole["accuracy"] is None:
        dummy = results.metrics["model_info"]["weights"] == "dummy"
        return unmeasured("accuracy", whole["warnings"], "the weights are random (dummy)" if dummy else "no row has a label")
    low, high = whole["accuracy_ci95_low"], whole["accuracy_ci95_high"]
    bounds = f" (95% interval {low:.4f} to {high:.4f})" if low is not None and high is not None else ""
    return f"{whole['accuracy']:.4f}{bounds} on {whole['num_labelled']:,} labelled rows"
