"""Files of earlier versions of ``bottlenecks.json``, in the form of the present one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DIAGNOSIS_VERSION = 3

Renames = Mapping[str, str]

DIAGNOSIS: Renames = {
    "verdict_changes": "saturation",
    "wins": "suggestions",
    "further_wins": "further_suggestions",
    "not_measured": "unavailable",
}
BATCH_SIZE: Renames = {"number": "value", "floor_ms": "roofline_ms"}
SATURATION: Renames = {
    "from_verdict": "verdict_at_smallest",
    "to_verdict": "verdict_at_largest",
    "because": "limited_by",
}
SUGGESTION: Renames = {
    "win_ms": "saving_ms",
    "win_pct": "saving_pct",
    "try": "advice",
    "verified": "verification",
}
VERIFICATION: Renames = {"rounds": "num_rounds"}
KERNELS: Renames = {"steps": "num_steps", "kernels": "num_kernels", "launches": "num_launches"}
IDLE_CAUSES: Renames = {"host_late": "host_wait"}
PEAK_MEMORY: Renames = {"held_before_mb": "other_mb"}
ALLOCATION: Renames = {"mb": "size_mb", "workspace": "is_workspace"}
VERDICTS: Renames = {"none-near": "no-dominant-limit"}
PREDICTIONS: Renames = {"at most": "upper-bound"}
UNAVAILABLE: Renames = {"memory.peak": "peak_memory"}


def convert_diagnosis(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a ``bottlenecks.json`` of any version, with the present names.

    Values stay as they are. Keys that the present version does not have stay too.
    """
    diagnosis = dict(payload)
    if diagnosis.get("schema_version", 1) >= DIAGNOSIS_VERSION:
        return diagnosis
    diagnosis = _rename(diagnosis, DIAGNOSIS)
    memory = diagnosis.pop("memory", None) or {}
    diagnosis["schema_version"] = DIAGNOSIS_VERSION
    diagnosis["batch_sizes"] = [_batch_size(one) for one in diagnosis.get("batch_sizes", ())]
    for name in ("suggestions", "further_suggestions"):
        diagnosis[name] = [_suggestion(one) for one in diagnosis.get(name, ())]
    diagnosis["saturation"] = _saturation(diagnosis.get("saturation"))
    diagnosis["kernels"] = _kernels(diagnosis.get("kernels"))
    diagnosis["peak_memory"] = _peak_memory(memory.get("peak"))
    diagnosis["unavailable"] = _rename(diagnosis.get("unavailable", {}), UNAVAILABLE)
    return diagnosis


def _rename(values: Mapping[str, Any], names: Renames) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


def _rename_value(value: Any, names: Renames) -> Any:
    """The present name of a value that is one of a few words; None stays."""
    return names.get(value, value)


def _batch_size(values: Mapping[str, Any]) -> dict[str, Any]:
    renamed = _rename(values, BATCH_SIZE)
    renamed["verdict"] = _rename_value(renamed.get("verdict"), VERDICTS)
    return renamed


def _saturation(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not values:
        return None
    renamed = _rename(values, SATURATION)
    for name in SATURATION.values():
        renamed[name] = _rename_value(renamed.get(name), VERDICTS)
    return renamed


def _suggestion(values: Mapping[str, Any]) -> dict[str, Any]:
    renamed = _rename(values, SUGGESTION)
    renamed["prediction"] = _rename_value(renamed.get("prediction"), PREDICTIONS)
    verification = renamed.get("verification")
    if verification is not None:
        renamed["verification"] = _rename(verification, VERIFICATION)
    return renamed


def _kernels(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if values is None:
        return None
    renamed = _rename(values, KERNELS)
    renamed["idle_by_cause_ms"] = _rename(renamed.get("idle_by_cause_ms", {}), IDLE_CAUSES)
    return renamed


def _peak_memory(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if values is None:
        return None
    renamed = _rename(values, PEAK_MEMORY)
    renamed["largest"] = [_rename(one, ALLOCATION) for one in renamed.get("largest", ())]
    return renamed
