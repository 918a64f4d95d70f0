"""The report's words on the GPU's kernels and on memory, from ``bottlenecks.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from utils.reporting.figures import NOT_MEASURED, number
from utils.reporting.results import Results
from utils.reporting.tables import TOP, Table, top_table

AGREES = {True: "the sweep agrees", False: "the sweep says otherwise", None: "there is no sweep to hold it against"}

Facts = list[tuple[str, str]]


def kernels_table(frame: pd.DataFrame) -> Table:
    """The kernels that take the most time."""
    return top_table(frame, "time_ms", f"The {TOP} kernels with the most time, all traced steps together", {
        "kernel": "Kernel", "category": "Category", "calls": "Calls", "time_ms": "Time (ms)", "mean_us": "Mean (us)",
        "share_pct": "Share (%)",
    })


def kernel_facts(diagnosis: Mapping[str, Any]) -> Facts:
    """What the GPU did in the traced steps, and why it waited."""
    found = diagnosis.get("kernels")
    if not found:
        return [("Kernels", _why_not(diagnosis, "kernels"))]
    causes = _listed_ms({cause.replace("_", " "): ms for cause, ms in found["idle_by_cause_ms"].items() if ms})
    busy, span, idle, host, device = (number(found[f"{name}_ms"], "ms") for name in ("busy", "span", "idle", "launch", "kernel"))
    launches = f"{number(found['launches'])} launches, {number(found['launches_per_s'])} per second"
    return [
        ("Device busy", f"{busy} of {span} from the first kernel to the last"),
        ("Device idle, whole steps", f"{idle}: {causes}; median gap {number(found['median_gap_us'], 'us')}"),
        ("Kernels by category", _listed_ms(found["by_category_ms"])),
        ("Launching", f"{launches}: {host} of the host, where the kernels take {device}"),
    ]


def flame_time(results: Results) -> str:
    """Whose time the flame graph shows: on CUDA the device's, unless no kernel was seen; then the operators' times are empty."""
    on_cuda = str((results.diagnosis or {}).get("device")).startswith("cuda")
    seen = results.operators is not None and results.operators["self_device_ms"].notna().any()
    return "time on the device (CUDA)" if on_cuda and seen else "time of the host (CPU)"


def memory_facts(diagnosis: Mapping[str, Any]) -> Facts:
    """Who holds the memory's peak, and the largest batch that fits."""
    found = diagnosis.get("memory") or {}
    peak, fits = found.get("peak"), found.get("prediction")
    return [
        ("Peak", _peak(peak) if peak else _why_not(diagnosis, "memory.peak")),
        ("Largest batch that fits", _largest_batch(fits) if fits else _why_not(diagnosis, "memory.prediction")),
    ]


def _peak(peak: Mapping[str, Any]) -> str:
    owners = {name: peak[f"{name}_mb"] for name in ("weights", "activations", "workspace")} | {"libraries": peak["held_before_mb"]}
    shares = ", ".join(f"{name} {number(mb, 'MB')}" for name, mb in owners.items() if mb is not None)
    largest = "; ".join(
        f"{one['operator'] or 'outside operators'}{' in ' if one['module'] else ''}{one['module']} {number(one['mb'], 'MB')}"
        for one in peak["largest"][:3]
    )
    return f"{number(peak['total_mb'], 'MB')}: {shares}. The largest: {largest}"


def _largest_batch(fits: Mapping[str, Any]) -> str:
    least, predicted, most = (number(fits[f"largest_batch{end}"]) for end in ("_low", "", "_high"))
    return (
        f"{predicted} texts of {fits['max_length']} tokens ({least} to {most}), predicted for {number(fits['free_mb'], 'MB')} "
        f"of free memory; {AGREES[fits['agrees_with_sweep']]}"
    )


def _listed_ms(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {number(ms, 'ms')}" for name, ms in sorted(parts.items(), key=lambda item: -item[1])) or "none"


def _why_not(diagnosis: Mapping[str, Any], name: str) -> str:
    why = diagnosis.get("not_measured", {}).get(name)
    return f"{NOT_MEASURED}: {why}" if why else NOT_MEASURED
