"""An evaluation in words, for the terminal and the reports alike."""

from __future__ import annotations

from utils.reporting.formatting import (
    Fact,
    format_number,
    format_percent,
    format_score,
    speedup_text,
)
from utils.schema.baseline import EVALUATION_ROAD, BaselineMetrics
from utils.schema.evaluation import BatchingComparison, CompileComparison, EvaluationMetrics
from utils.schema.run import DatasetInfo, ModelInfo

LABEL_MAPPING_SOURCES = {
    "model": "the model's own label names",
    "ids": "the numbers in the data set, taken for the model's label ids",
    "class_label": "the order of the ClassLabel names in the data set",
    "sorted": "the sorted label names of the data set",
    "label_map": "the setting dataset.label_map",
    "none": "the data set has no labels",
}
GUESSED = "guessed"
MULTI_LABEL = (
    "multi-label model: its probabilities are sigmoids, each label by itself, and the label with "
    "the highest one counts as the prediction"
)


def evaluation_meaning(evaluation: EvaluationMetrics) -> str:
    """How the optimised evaluation made its batches."""
    if evaluation.batching == "token_budget":
        text = "texts of similar length share a batch"
    else:
        text = "batches in file order"
    if evaluation.num_workers > 1:
        text += f", on {evaluation.num_workers} workers"
    return text


def evaluation_lines(metrics: BaselineMetrics) -> list[str]:
    """The lines of the FULL DATASET EVALUATION block."""
    evaluation = metrics.full_dataset_metrics
    if evaluation is None:
        return [not_evaluated_text(metrics)]
    facts = [
        Fact("Samples", f"{evaluation.num_samples:,}"),
        *quality_facts(evaluation, metrics.model_info, metrics.dataset_info),
        Fact("Inference time", format_number(evaluation.inference_time_s, "seconds")),
        Fact(
            "Throughput",
            f"{format_number(evaluation.throughput_samples_per_sec, 'samples/sec')} "
            f"({EVALUATION_ROAD}: {evaluation_meaning(evaluation)})",
        ),
        *comparison_facts(evaluation),
    ]
    return [f"{fact.name}: {fact.text}" for fact in facts]


def not_evaluated_text(metrics: BaselineMetrics) -> str:
    """That the complete data set was not evaluated, and why."""
    return f"The complete data set was not evaluated: {metrics.not_evaluated}."


def quality_facts(
    metrics: EvaluationMetrics, model_info: ModelInfo, dataset_info: DatasetInfo
) -> list[Fact]:
    """Accuracy with what it has to be compared with, how sure the label ids are, and F1."""
    missing = "not measured (no labels)"
    if metrics.num_labelled is None:
        missing = "not measured (dummy weights)"
    facts = [Fact("Accuracy", accuracy_text(metrics, dataset_info) or missing)]
    majority = majority_text(metrics)
    if majority is not None:
        facts.append(Fact("Majority class", majority))
    facts += label_facts(model_info, dataset_info)
    scores = {"F1-Score (Macro)": metrics.f1_macro, "F1-Score (Weighted)": metrics.f1_weighted}
    for name, score in scores.items():
        facts.append(Fact(name, missing if score is None else format_score(score)))
    return facts


def label_facts(model_info: ModelInfo, dataset_info: DatasetInfo) -> list[Fact]:
    """How the label ids and the predictions came about."""
    facts = []
    label_ids = label_ids_text(dataset_info)
    if label_ids is not None:
        facts.append(Fact("Label ids", label_ids))
    if model_info.problem_type == "multi_label":
        facts.append(Fact("Prediction", MULTI_LABEL))
    return facts


def accuracy_text(metrics: EvaluationMetrics, dataset_info: DatasetInfo) -> str | None:
    """The accuracy; None where it is not measured. A guess of the label ids is named with it."""
    if metrics.accuracy is None:
        return None
    value = format_score(metrics.accuracy, metrics.accuracy_ci95_low, metrics.accuracy_ci95_high)
    if has_guessed_labels(dataset_info):
        value += " ONLY IF THE LABEL IDS ARE RIGHT: THEY WERE GUESSED"
    return value


def majority_text(metrics: EvaluationMetrics, *, in_percent: bool = False) -> str | None:
    """What always answering the most frequent label would reach; None where it is not known."""
    if metrics.majority_class_accuracy is None:
        return None
    share = format_score(metrics.majority_class_accuracy)
    if in_percent:
        share = f"{metrics.majority_class_accuracy:.1%}"
    return f"always answering {metrics.majority_class!r} would reach {share}"


def has_guessed_labels(dataset_info: DatasetInfo) -> bool:
    """Whether nothing but a guess connects the data set's labels with the model's ids."""
    return dataset_info.label_mapping_confidence == GUESSED


def label_ids_text(dataset_info: DatasetInfo) -> str | None:
    """How the label ids were decided and how sure that is; None where the file has no source."""
    return label_mapping_text(
        dataset_info.label_mapping_source,
        dataset_info.label_mapping_confidence,
        dataset_info.label_mapping_note,
    )


def label_mapping_text(source: str | None, confidence: str | None, note: str | None) -> str | None:
    """A decision about label ids in words; None without a source."""
    if source is None:
        return None
    text = LABEL_MAPPING_SOURCES.get(source, source)
    if source != "none":
        text = f"from {text}"
        if confidence is not None:
            text += f" ({confidence})"
    return f"{text}: {note}" if note else text


def comparison_facts(metrics: EvaluationMetrics) -> list[Fact]:
    """How much faster grouping by length is than file order, and compiled than not.

    Each pair was measured on the same rows.
    """
    facts = []
    if metrics.batching_comparison is not None:
        text = _batching_comparison_text(metrics.batching_comparison)
        facts.append(Fact("Speed-up by grouping", text))
    if metrics.compile_comparison is not None:
        text = _compile_comparison_text(metrics.compile_comparison)
        facts.append(Fact("Speed-up by compiling", text))
    return facts


def _batching_comparison_text(comparison: BatchingComparison) -> str:
    return (
        f"{speedup_text(comparison.speedup)}: "
        f"{format_number(comparison.token_budget_samples_per_sec)} instead of "
        f"{format_number(comparison.dataset_order_samples_per_sec, 'samples/s')} in file order; "
        f"padding {format_percent(comparison.token_budget_padding_fraction)} "
        f"instead of {format_percent(comparison.dataset_order_padding_fraction)}; "
        f"{format_percent(comparison.label_agreement)} of the labels of "
        f"{comparison.num_rows:,} rows equal"
    )


def _compile_comparison_text(comparison: CompileComparison) -> str:
    return (
        f"{speedup_text(comparison.speedup)}: "
        f"{format_number(comparison.compiled_samples_per_sec)} instead of "
        f"{format_number(comparison.plain_samples_per_sec, 'samples/s')}; "
        f"compiling took {format_number(comparison.compile_s, 's')}"
    )
