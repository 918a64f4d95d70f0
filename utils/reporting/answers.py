"""The six questions that week 1 must answer, each with its answer and where to look."""

from __future__ import annotations

from typing import NamedTuple

from utils.core.rounding import round_value
from utils.reporting import roads
from utils.reporting.commands import STEP_03_MISSING
from utils.reporting.evaluation_facts import accuracy_text, majority_text, not_evaluated_text
from utils.reporting.formatting import (
    format_interval,
    format_metric,
    format_number,
    not_measured,
)
from utils.reporting.measure_again import noise_lines
from utils.reporting.results import Results
from utils.reporting.sweeps import NO_BATCH_SIZE_FINISHED
from utils.reporting.text_layout import PAGE
from utils.schema.evaluation import EvaluationMetrics
from utils.schema.run import ModelInfo

QUESTION_COLUMNS = 22


class Answer(NamedTuple):
    """A question of the success criteria, its answer, and the file that has it."""

    question: str
    answer: str
    source: str


def six_answers(results: Results) -> list[Answer]:
    """The answers to the questions of the project's success criteria, in their order."""
    files = results.files
    report = files.summary_report.name
    metrics = files.metrics.name
    table = files.detailed_metrics.name
    timeline = f"{files.traces_dir.name}/{files.trace.name}"
    return [
        Answer("Baseline latency?", _latency(results), f"{report}: Full Dataset Performance"),
        Answer(
            "Optimal batch size?",
            optimal_batch_size_text(results),
            f"{report}: Batch Size Analysis",
        ),
        Answer(
            "Maximum throughput?",
            _max_throughput(results),
            f"{table}: max(throughput_samples_per_sec_mean); "
            f"{metrics}: full_dataset_metrics.throughput_samples_per_sec",
        ),
        _memory_answer(results),
        Answer(
            "Main bottleneck?",
            _main_bottleneck(results),
            f"{files.bottlenecks.name}; the timeline: {timeline}",
        ),
        Answer(
            "Model accuracy?",
            accuracy_with_context(results),
            f"{metrics}: full_dataset_metrics.accuracy",
        ),
    ]


def answer_lines(results: Results) -> list[str]:
    """The six answers for a terminal, at most 80 columns wide; what makes them rough first."""
    lines = noise_lines(results)
    if lines:
        lines.append("")
    for item in six_answers(results):
        lines += _wrap_beside(item.question, item.answer)
        lines += _wrap_beside("", f"see {item.source}")
    return lines


def _wrap_beside(start: str, text: str) -> list[str]:
    return PAGE.wrap(text, f"{start:<{QUESTION_COLUMNS}}", " " * QUESTION_COLUMNS)


def _latency(results: Results) -> str:
    """Of one text alone, and of a text among many, each with its road."""
    parts = []
    if results.batch1_p50_ms is not None:
        one_text_ms = round_value(results.batch1_p50_ms).value
        parts.append(
            f"one text alone takes {one_text_ms} ms (median, {roads.SWEEP} at batch size 1)"
        )
    evaluation = results.evaluation
    if evaluation is None:
        parts.append(not_evaluated_text(results.metrics).rstrip("."))
    else:
        latency_ms = round_value(evaluation.latency_per_sample_ms).value
        parts.append(
            f"{latency_ms} ms per sample on average in the {roads.EVALUATION} "
            f"of {format_number(evaluation.num_samples)} texts"
        )
    return "; ".join(parts)


def optimal_batch_size_text(results: Results) -> str:
    """The fastest batch size, by which criterion, and which others are as fast."""
    best = results.metrics.optimal_batch_size
    if best is None:
        return not_measured(NO_BATCH_SIZE_FINISHED)
    text = f"{best.batch_size} ({best.criterion}, {roads.SWEEP})"
    tied = [str(size) for size in best.tied_with if size != best.batch_size]
    if tied:
        text += f"; statistically tied with {', '.join(tied)}"
    return text


def _max_throughput(results: Results) -> str:
    """The larger throughput of the two roads, with the other one behind it."""
    fastest = roads.fastest_speed(results)
    if fastest is None:
        return not_measured(NO_BATCH_SIZE_FINISHED)
    text = roads.speed_text(results, fastest)
    sweep = roads.sweep_speed(results)
    evaluation = roads.evaluation_speed(results)
    other = sweep if fastest.row is None else evaluation
    if other is not None:
        return f"{text}; {roads.speed_text(results, other)}"
    if fastest.row is None:
        return f"{text}; {roads.SWEEP}: {NO_BATCH_SIZE_FINISHED}"
    return f"{text}; {not_evaluated_text(results.metrics).rstrip('.')}"


def _memory_answer(results: Results) -> Answer:
    source = f"{results.files.metrics.name}: full_dataset_metrics"
    evaluation = results.evaluation
    if evaluation is None:
        return Answer("Memory usage?", not_measured(results.metrics.not_evaluated), source)
    if results.on_gpu:
        used = format_metric(evaluation, "gpu_mem_used", "MB")
        peak = format_metric(evaluation, "peak_gpu_mem", "MB")
        return Answer("GPU memory usage?", f"{used}; peak {peak}", f"{source}.gpu_mem_used")
    resident = format_metric(evaluation, "cpu_mem_used", "MB")
    text = f"{resident} resident on the CPU; no GPU was used"
    return Answer("Memory usage?", text, f"{source}.cpu_mem_used")


def _main_bottleneck(results: Results) -> str:
    if results.diagnosis is None:
        return not_measured(STEP_03_MISSING)
    return results.diagnosis.main_bottleneck


def accuracy_with_context(results: Results) -> str:
    """The accuracy with its interval and that of the most frequent label, or why there is none."""
    metrics = results.evaluation
    if metrics is None:
        return not_measured(results.metrics.not_evaluated)
    text = accuracy_text(metrics, results.metrics.dataset_info)
    if text is None:
        return not_measured(why_no_accuracy(metrics, results.metrics.model_info))
    low = metrics.accuracy_ci95_low
    if low is not None:
        text += f" (95% interval {format_interval(low, metrics.accuracy_ci95_high)})"
    text += f" on {metrics.num_labelled:,} labelled rows"
    majority = majority_text(metrics)
    if majority is not None:
        text += f"; {majority}"
    return text


def why_no_accuracy(metrics: EvaluationMetrics, model_info: ModelInfo) -> str:
    """The reason why neither accuracy nor F1 was measured."""
    reason = metrics.reason("accuracy")
    if reason is not None:
        return reason
    if model_info.weights == "dummy":
        return "the weights are random (dummy)"
    return "no row has a label"
