"""Facts of the report about the complete data set: quality, speed, memory, padding, files."""

from __future__ import annotations

from utils.reporting.answers import accuracy_with_context, why_no_accuracy
from utils.reporting.evaluation_facts import (
    comparison_facts,
    evaluation_meaning,
    has_guessed_labels,
    label_facts,
    label_ids_text,
)
from utils.reporting.formatting import (
    Fact,
    format_metric,
    format_number,
    format_percent,
    format_score,
    not_measured,
)
from utils.reporting.results import Results
from utils.schema.baseline import EVALUATION_ROAD
from utils.schema.evaluation import EvaluationMetrics

FILES = {
    "metrics": "everything that a later week compares against",
    "detailed_metrics": "one row a batch size",
    "html_report": "this report with pictures, for a browser",
    "plots_dir": "the pictures",
    "predictions_dir": "a prediction for every row",
    "bottlenecks": "the verdict with its evidence",
    "ceilings": "what the machine reaches at best, and which machine it is",
    "operators": "time by operator",
    "layers": "time and memory by module",
    "kernels": "time by kernel of the GPU",
    "memory": "memory over time",
    "gpu_timeline": "every reading of the GPU, with its time",
    "trace": "the timeline: open it in ui.perfetto.dev",
    "stacks": "call stacks",
    "flame_graph": "the flame graph of the call stacks",
}
"""What each file of ``ResultFiles`` holds."""


def full_dataset_facts(results: Results) -> list[Fact]:
    """Quality and speed on the complete data set."""
    evaluation = results.evaluation
    if evaluation is None:
        return [Fact("Evaluation", not_measured(results.metrics.not_evaluated))]
    samples_per_s = format_number(evaluation.throughput_samples_per_sec, "samples/s")
    tokens_per_s = format_number(evaluation.throughput_tokens_per_sec, "tokens/s")
    tokens = format_number(evaluation.num_tokens)
    truncated = format_number(evaluation.num_truncated)
    facts = [
        Fact("Method", f"{EVALUATION_ROAD}: {evaluation_meaning(evaluation)}"),
        Fact("Samples", format_number(evaluation.num_samples)),
        Fact("Batching", _batching_text(evaluation)),
        Fact("Accuracy", accuracy_with_context(results)),
        *label_facts(results.metrics.model_info, results.metrics.dataset_info),
        Fact("F1 (macro)", _score_text(results, "f1_macro")),
        Fact("F1 (weighted)", _score_text(results, "f1_weighted")),
        Fact("Inference time", format_number(evaluation.inference_time_s, "s")),
        Fact(
            "Latency",
            f"{format_number(evaluation.latency_per_sample_ms, 'ms/sample')}: "
            "the inference time divided by the samples",
        ),
        Fact("Throughput", f"{samples_per_s}, {tokens_per_s} ({EVALUATION_ROAD})"),
        Fact("Tokens", f"{tokens}; texts truncated to max_length: {truncated}"),
    ]
    if evaluation.resumed_rows:
        resumed = format_number(evaluation.resumed_rows)
        facts.append(Fact("Rows taken over", f"{resumed} from an earlier, interrupted run"))
    return facts


def _batching_text(evaluation: EvaluationMetrics) -> str:
    batching: str = evaluation.batching
    limit = evaluation.max_tokens_per_batch
    if limit:
        batching += f", at most {format_number(limit)} tokens a batch"
    return batching


def _score_text(results: Results, name: str) -> str:
    """A score of the evaluation, or why it was not measured."""
    evaluation = results.evaluation
    assert evaluation is not None, "its facts are shown"
    score: float | None = getattr(evaluation, name)
    if score is not None:
        return format_score(score)
    reason = evaluation.reason(name)
    return not_measured(reason or why_no_accuracy(evaluation, results.metrics.model_info))


def guessed_label_ids(results: Results) -> str | None:
    """A warning for the top of the page where the accuracy rests on guessed label ids."""
    dataset_info = results.metrics.dataset_info
    evaluation = results.evaluation
    if evaluation is None or evaluation.accuracy is None or not has_guessed_labels(dataset_info):
        return None
    details = str(label_ids_text(dataset_info)).rstrip(".")
    return (
        "The accuracy may be wrong, because the model's label ids are not known. "
        f"They were taken {details}."
    )


def memory_facts(results: Results) -> list[Fact]:
    """Memory and utilisation on the complete data set, and the model's own size."""
    model_size_mb = results.metrics.model_info.total_size_mb
    weights = Fact("Model weights", format_number(model_size_mb, "MB"))
    evaluation = results.evaluation
    if evaluation is None:
        return [weights, Fact("Evaluation", not_measured(results.metrics.not_evaluated))]
    reason = None if results.on_gpu else "the model ran on the CPU"

    def metric(name: str, unit: str) -> str:
        return format_metric(evaluation, name, unit, default_reason=reason)

    return [
        weights,
        Fact("GPU memory used", metric("gpu_mem_used", "MB")),
        Fact("GPU memory peak", metric("peak_gpu_mem", "MB")),
        Fact("GPU utilisation", metric("gpu_util", "%")),
        Fact("CPU resident", metric("cpu_mem_used", "MB")),
    ]


def padding_facts(results: Results) -> list[Fact]:
    """Tokens computed that no text asked for."""
    evaluation = results.evaluation
    facts = []
    if evaluation is not None:
        padding = format_percent(evaluation.padding_fraction)
        facts.append(Fact("Whole data set", f"{padding} of the tokens computed"))
        facts += comparison_facts(evaluation)
    padding_by_size = results.sweep.values("padding_fraction")
    if padding_by_size:
        by_padding = sorted((share, size) for size, share in padding_by_size.items())
        least = _padding_text(*by_padding[0])
        most = _padding_text(*by_padding[-1])
        facts.append(Fact("Batch-size sweep", f"{least} to {most}"))
    return facts


def _padding_text(share: float, batch_size: int) -> str:
    return f"{format_percent(share)} (batch size {batch_size})"


def files_facts(results: Results) -> list[Fact]:
    """The files that are there and the page being written, relative to the report's folder."""
    files = results.files
    facts = []
    for name, description in FILES.items():
        path = getattr(files, name)
        if path == files.html_report or path.exists():
            facts.append(Fact(path.relative_to(files.results_dir).as_posix(), description))
    return facts
