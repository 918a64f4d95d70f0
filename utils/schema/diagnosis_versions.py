"""Turns a ``bottlenecks.json`` of an earlier version into the present form.

Version 1 had verdicts, evidence and ``wins``. Version 2 got confidence, ``verdict_changes``,
kernels and memory over time, and for a while ``hooks`` and a fitted memory model, which no longer
exist.
Version 3 has plain names, and what follows from the evidence stands beside it, not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from utils.core.files import JsonObject
from utils.schema.ceilings import convert_ceilings

FIRST_VERSION_WITH_PLAIN_NAMES = 3

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
UNAVAILABLE: Renames = {"memory.peak": "peak_memory", "layers": "layers_by_kind"}
SHARES: Renames = {
    "input_share": "input",
    "compute_share": "compute",
    "memory_share": "memory",
    "overhead_share": "overhead",
}
"""From keys of ``evidence`` to keys of ``shares``."""
DERIVED = ("overhead_ms", "padding_ms")
"""What stood in ``evidence`` and stands beside it now."""


def convert_diagnosis(payload: JsonObject) -> JsonObject:
    """The content of a ``bottlenecks.json`` in the present form; the version stays.

    Keys that the present version does not know stay too.
    """
    version = payload.get("schema_version", 1)
    if not isinstance(version, int) or version >= FIRST_VERSION_WITH_PLAIN_NAMES:
        return payload
    diagnosis = _rename(payload, DIAGNOSIS)
    memory = diagnosis.pop("memory", None) or {}
    if "ceilings" in diagnosis:
        diagnosis["ceilings"] = convert_ceilings(diagnosis["ceilings"])
    for name, convert in (
        ("batch_sizes", _batch_size),
        ("suggestions", _suggestion),
        ("further_suggestions", _suggestion),
    ):
        if name in diagnosis:
            diagnosis[name] = [convert(one) for one in diagnosis[name]]
    diagnosis["saturation"] = _saturation(diagnosis.get("saturation"))
    diagnosis["kernels"] = _kernels(diagnosis.get("kernels"))
    diagnosis["peak_memory"] = _peak_memory(memory.get("peak"))
    diagnosis["unavailable"] = _rename(diagnosis.get("unavailable", {}), UNAVAILABLE)
    return diagnosis


def _rename(values: JsonObject, names: Renames) -> JsonObject:
    return {names.get(name, name): value for name, value in values.items()}


def _rename_value(value: Any, names: Renames) -> Any:
    """The present name of a value that is one of a few words; None stays."""
    return names.get(value, value)


def _batch_size(values: JsonObject) -> JsonObject:
    renamed = _rename(values, BATCH_SIZE)
    renamed["verdict"] = _rename_value(renamed.get("verdict"), VERDICTS)
    evidence = dict(renamed.get("evidence", {}))
    shares = {}
    for name, share in SHARES.items():
        if name in evidence:
            shares[share] = evidence.pop(name)
    for name in DERIVED:
        if name in evidence:
            renamed[name] = evidence.pop(name)
    evidence["timed_forwards"] = _timed_forwards(evidence.pop("timed", ()))
    return {**renamed, "evidence": evidence, "shares": shares}


def _timed_forwards(rows: Iterable[tuple[int, int, float]]) -> list[JsonObject]:
    forwards = []
    for num_rows, length, ms in rows:
        forwards.append({"num_rows": num_rows, "length": length, "forward_ms": ms})
    return forwards


def _saturation(values: JsonObject | None) -> JsonObject | None:
    if not values:
        return None
    renamed = _rename(values, SATURATION)
    for name in SATURATION.values():
        renamed[name] = _rename_value(renamed.get(name), VERDICTS)
    return renamed


def _suggestion(values: JsonObject) -> JsonObject:
    renamed = _rename(values, SUGGESTION)
    renamed["prediction"] = _rename_value(renamed.get("prediction"), PREDICTIONS)
    verification = renamed.get("verification")
    if verification is not None:
        renamed["verification"] = _rename(verification, VERIFICATION)
    return renamed


def _kernels(values: JsonObject | None) -> JsonObject | None:
    if values is None:
        return None
    renamed = _rename(values, KERNELS)
    renamed["idle_by_cause_ms"] = _rename(renamed.get("idle_by_cause_ms", {}), IDLE_CAUSES)
    return renamed


def _peak_memory(values: JsonObject | None) -> JsonObject | None:
    if values is None:
        return None
    renamed = _rename(values, PEAK_MEMORY)
    renamed["largest"] = [_rename(one, ALLOCATION) for one in renamed.get("largest", ())]
    return renamed
