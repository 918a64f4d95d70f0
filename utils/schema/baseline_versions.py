"""Turns files of earlier versions into the present form; the only place that knows them.

Version 1 had no ``measurement`` and fewer columns. Version 2 added columns over time. Up to version
2 a row's ``gpu_mem_used`` was what a run left behind, the reasons for missing metrics stood in
``warnings``, and early files did not say how sure the label ids are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from utils.core.files import JsonObject
from utils.schema.batch_size import SweepRow
from utils.schema.common import MeasuredRecord, nullable_metrics
from utils.schema.evaluation import EvaluationMetrics

FIRST_VERSION_WITH_REASONS = 3
ADDED_LATER = "not in files of this version"


def convert_baseline_metrics(payload: JsonObject) -> JsonObject:
    """The content of ``baseline_metrics.json`` in the present form; the version stays."""
    version = payload.get("schema_version")
    if not isinstance(version, int) or version >= FIRST_VERSION_WITH_REASONS:
        return payload
    converted = dict(payload)
    converted.setdefault("measurement", {})
    converted["batch_size_profiling"] = [
        _convert_row(row) for row in payload.get("batch_size_profiling", [])
    ]
    evaluation = dict(payload.get("full_dataset_metrics", {}))
    # Of a shortcut that no longer exists.
    evaluation.pop("last_token_only", None)
    converted["full_dataset_metrics"] = _with_reasons(evaluation, EvaluationMetrics)
    if "dataset_info" in payload:
        converted["dataset_info"] = _with_confidence(payload["dataset_info"])
    return converted


def _with_confidence(dataset_info: JsonObject) -> JsonObject:
    """The data set with how sure its label ids are; without that, sorted names were a guess."""
    converted = dict(dataset_info)
    if converted.get("label_mapping_source") == "sorted":
        converted.setdefault("label_mapping_confidence", "guessed")
    return converted


def _convert_row(row: JsonObject) -> JsonObject:
    converted = dict(row)
    converted["gpu_mem_change"] = converted.pop("gpu_mem_used", None)
    return _with_reasons(converted, SweepRow)


def _with_reasons(values: JsonObject, kind: type[MeasuredRecord]) -> JsonObject:
    """The values with ``unavailable``, whose reasons come from the warnings."""
    reasons = {}
    warnings = values.get("warnings", [])
    for name in nullable_metrics(kind):
        if values.get(name) is not None:
            continue
        reason = reason_in_warnings(name, warnings)
        if reason is not None:
            reasons[name] = reason
        elif name not in values:
            reasons[name] = ADDED_LATER
    return {**values, "unavailable": reasons}


def reason_in_warnings(name: str, warnings: Iterable[str]) -> str | None:
    """What the first warning that names the metric says, or None.

    A warning may name a metric without the end of its name, and all GPU readings as one.
    """
    stem = re.escape(re.sub(r"(_(per_sample|mean|median|pct|w|j))+$", "", name))
    pattern = rf"\b{stem}"
    if "gpu" in name or "energy" in name:
        pattern = rf"\b{stem}|^GPU figures"
    for warning in warnings:
        if re.search(pattern, warning):
            return warning.split(": ", 1)[-1].removeprefix("GPU figures: ")
    return None
