"""An evaluation in words, for the terminal and the reports alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from utils.reporting.formatting import Fact

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


def quality_facts(
    metrics: Mapping[str, Any], model_info: Mapping[str, Any], dataset_info: Mapping[str, Any]
) -> list[Fact]:
    """Accuracy with what it has to be compared with, how sure the label ids are, and F1.

    Args:
        metrics: ``full_dataset_metrics``.
        model_info, dataset_info: the sections of ``baseline_metrics.json``; keys that older files
            lack are left out.
    """
    if metrics["num_labelled"] is None:
        missing = "not measured (dummy weights)"
    else:
        missing = "not measured (no labels)"
    facts = [Fact("Accuracy", accuracy_text(metrics, dataset_info) or missing)]
    majority = majority_text(metrics)
    if majority is not None:
        facts.append(Fact("Majority class", majority))
    facts += label_facts(model_info, dataset_info)
    for name, key in (("F1-Score (Macro)", "f1_macro"), ("F1-Score (Weighted)", "f1_weighted")):
        score = metrics[key]
        facts.append(Fact(name, missing if score is None else f"{score:.4f}"))
    return facts


def label_facts(model_info: Mapping[str, Any], dataset_info: Mapping[str, Any]) -> list[Fact]:
    """How the label ids and the predictions came about; what older files lack is left out."""
    facts = []
    label_ids = label_mapping_text(dataset_info)
    if label_ids is not None:
        facts.append(Fact("Label ids", label_ids))
    if model_info.get("problem_type") == "multi_label":
        facts.append(Fact("Prediction", MULTI_LABEL))
    return facts


def accuracy_text(metrics: Mapping[str, Any], dataset_info: Mapping[str, Any]) -> str | None:
    """The accuracy; None where it is not measured. A guess of the label ids is named with it."""
    if metrics["accuracy"] is None:
        return None
    value = f"{metrics['accuracy']:.4f}"
    if label_mapping_confidence(dataset_info) == GUESSED:
        value += " ONLY IF THE LABEL IDS ARE RIGHT: THEY WERE GUESSED"
    return value


def majority_text(metrics: Mapping[str, Any]) -> str | None:
    """What always answering the most frequent label would reach; None where it is not known."""
    share = metrics.get("majority_class_accuracy")
    if share is None:
        return None
    return f"always answering {metrics['majority_class']!r} would reach {share:.4f}"


def label_mapping_confidence(dataset_info: Mapping[str, Any]) -> str | None:
    """How sure the label ids are.

    Files of earlier versions do not have it, but their sorted names were a guess.
    """
    confidence = dataset_info.get("label_mapping_confidence")
    if confidence is None and dataset_info.get("label_mapping_source") == "sorted":
        return GUESSED
    return None if confidence is None else str(confidence)


def label_mapping_text(dataset_info: Mapping[str, Any]) -> str | None:
    """How the label ids were decided and how sure that is; None where the file has no source."""
    source = dataset_info.get("label_mapping_source")
    if source is None:
        return None
    text = LABEL_MAPPING_SOURCES.get(source, str(source))
    confidence = label_mapping_confidence(dataset_info)
    if source != "none":
        text = f"from {text}"
        if confidence:
            text += f" ({confidence})"
    note = dataset_info.get("label_mapping_note")
    return f"{text}: {note}" if note else text


def comparison_facts(metrics: Mapping[str, Any]) -> list[Fact]:
    """How much faster grouping by length is than file order, and compiled than not.

    Each pair was measured on the same rows.

    Args:
        metrics: ``full_dataset_metrics``.
    """
    facts = []
    batching = metrics["batching_comparison"]
    if batching is not None:
        facts.append(Fact("Speed-up by grouping", _grouping_text(batching)))
    compiling = metrics["compile_comparison"]
    if compiling is not None:
        speeds = _speeds(compiling, "compiled", "plain")
        text = f"{speeds}; compiling took {compiling['compile_s']:,.1f} s"
        facts.append(Fact("Speed-up by compiling", text))
    return facts


def _grouping_text(comparison: Mapping[str, Any]) -> str:
    speeds = _speeds(comparison, "token_budget", "dataset_order")
    grouped_padding = f"{comparison['token_budget_padding_fraction']:.2%}"
    padding = f"{comparison['dataset_order_padding_fraction']:.2%}"
    return (
        f"{speeds} in file order; padding {grouped_padding} against {padding}; "
        f"{comparison['label_agreement']:.2%} of the labels equal "
        f"({comparison['num_rows']:,} rows)"
    )


def _speeds(comparison: Mapping[str, Any], first: str, second: str) -> str:
    first_speed = f"{comparison[f'{first}_samples_per_sec']:,.1f}"
    second_speed = f"{comparison[f'{second}_samples_per_sec']:,.1f}"
    return f"{comparison['speedup']:.2f} times: {first_speed} against {second_speed} samples/s"


def evaluation_lines(
    metrics: Mapping[str, Any],
    model_info: Mapping[str, Any] | None = None,
    dataset_info: Mapping[str, Any] | None = None,
) -> list[str]:
    """The lines of the FULL DATASET EVALUATION block.

    How label ids were decided is shown only with ``dataset_info``.
    """
    lines = [f"Samples: {metrics['num_samples']:,}"]
    for name, text in quality_facts(metrics, model_info or {}, dataset_info or {}):
        lines.append(f"{name}: {text}")
    lines.append(f"Inference time: {metrics['inference_time_s']:,.2f} seconds")
    lines.append(f"Throughput: {metrics['throughput_samples_per_sec']:,.2f} samples/sec")
    for name, text in comparison_facts(metrics):
        lines.append(f"{name}: {text}")
    return lines
