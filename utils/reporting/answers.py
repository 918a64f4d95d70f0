"""The six questions that week 1 must answer, each with its answer and where to look."""

from __future__ import annotations

import textwrap

from utils.reporting.evaluation_facts import accuracy_text, majority_text
from utils.reporting.formatting import interval, not_measured, number, unmeasured
from utils.reporting.results import STEP_03_MISSING, Results

WIDTH, LABEL = 100, 22
"""Columns of the page, and of a question."""
NONE_FINISHED = not_measured("no batch size of the sweep finished")

Answer = tuple[str, str, str]
"""Question, answer, where to look."""


def six_answers(results: Results) -> list[Answer]:
    """The answers to the questions of the project's success criteria, in their order."""
    files = results.files
    report, metrics, table = (
        files.summary_report.name,
        files.metrics.name,
        files.detailed_metrics.name,
    )
    memory = "GPU memory usage?" if results.on_gpu else "Memory usage?"
    main = (
        str(results.diagnosis["main_bottleneck"])
        if results.diagnosis
        else not_measured(STEP_03_MISSING)
    )
    return [
        ("Baseline latency?", _latency(results), f"{report}: Full Dataset Performance"),
        ("Optimal batch size?", _optimal(results), f"{report}: Batch Size Analysis"),
        (
            "Maximum throughput?",
            _throughput(results),
            f"{table}: max(throughput_samples_per_sec_mean)",
        ),
        (
            memory,
            _memory(results),
            f"{metrics}: full_dataset_metrics.{'gpu' if results.on_gpu else 'cpu'}_mem_used",
        ),
        (
            "Main bottleneck?",
            main,
            f"{files.bottlenecks.name}; the timeline: {files.traces_dir.name}/{files.trace.name}",
        ),
        ("Model accuracy?", accuracy(results), f"{metrics}: full_dataset_metrics.accuracy"),
    ]


def answer_lines(results: Results) -> list[str]:
    """The six answers for a terminal, at most 100 columns."""
    lines = []
    for question, answer, where in six_answers(results):
        for start, said in ((question, answer), ("", f"see {where}")):
            lines += textwrap.wrap(
                said, WIDTH, initial_indent=f"{start:<{LABEL}}", subsequent_indent=" " * LABEL
            )
    return lines


def _latency(results: Results) -> str:
    whole, alone = results.evaluation, results.steady_ms
    said = f"{number(whole['latency_per_sample_ms'])} ms per sample over {number(whole['num_samples'])} rows"
    return (
        said
        if alone is None
        else f"{said}; one text alone takes {number(alone)} ms (p50 at batch size 1)"
    )


def _optimal(results: Results) -> str:
    best = results.metrics["optimal_batch_size"]
    if best is None:
        return NONE_FINISHED
    tied = ", ".join(str(size) for size in best["tied_with"] if size != best["batch_size"])
    return f"{best['batch_size']} ({best['criterion']})" + (
        f"; not told apart from {tied}" if tied else ""
    )


def _throughput(results: Results) -> str:
    name = "throughput_samples_per_sec"
    best = max(
        results.sweep.having(f"{name}_mean"), key=lambda row: row[f"{name}_mean"], default=None
    )
    if best is None:
        return NONE_FINISHED
    low, high = best[f"{name}_ci95_low"], best[f"{name}_ci95_high"]
    said = f"{number(best[f'{name}_mean'])} samples/s at batch size {best['batch_size']}"
    return said if low is None else f"{said} (95% interval {interval(low, high)})"


def _memory(results: Results) -> str:
    whole = results.evaluation
    resident, used, peak = (
        number(whole[name], "MB", missing=unmeasured(name, whole["warnings"]))
        for name in ("cpu_mem_used", "gpu_mem_used", "peak_gpu_mem")
    )
    return (
        f"{used}; peak {peak}"
        if results.on_gpu
        else f"{resident} resident on the CPU; no GPU was used"
    )


def accuracy(results: Results) -> str:
    """Accuracy with its interval and what the most frequent label alone would reach, or why there is none."""
    metrics = results.evaluation
    if metrics["accuracy"] is None:
        dummy = results.metrics["model_info"]["weights"] == "dummy"
        why = "the weights are random (dummy)" if dummy else "no row has a label"
        return unmeasured("accuracy", metrics["warnings"], why)
    low, high = metrics["accuracy_ci95_low"], metrics["accuracy_ci95_high"]
    details = f" (95% interval {low:.4f} to {high:.4f})" if low is not None else ""
    details += f" on {metrics['num_labelled']:,} labelled rows"
    majority = majority_text(metrics)
    if majority is not None:
        details += f"; {majority}"
    return str(accuracy_text(metrics, results.metrics["dataset_info"], details))
