"""The report's tables and lists: what each cell says, for the text and the page alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from utils.reporting.formatting import DASH, interval, number, percent, spread, unmeasured, yes_no
from utils.reporting.results import Results, Row, Sweep

TOP = 15
"""Operators, modules or kernels shown."""
STATUSES = {
    "ok": "ok",
    "oom": "out of memory",
    "not_tried": "not tried",
    "wrong_outputs": "wrong answers",
}
PHASES = {
    "tokenize_ms_mean": "tokenise",
    "host_to_device_ms_mean": "host to device",
    "forward_ms_mean": "forward",
    "device_to_host_ms_mean": "device to host",
}
EXTRA_COLUMNS = {
    "latency_per_batch_ms_p90": "p90 (ms/batch)",
    "latency_per_batch_ms_p95": "p95 (ms/batch)",
    "latency_per_batch_ms_p99": "p99 (ms/batch)",
    "latency_per_batch_ms_mad": "MAD (ms/batch)",
    "throughput_tokens_per_sec_mean": "tokens/s",
    "latency_per_token_ms_mean": "ms/token",
    "forward_launch_ms_mean": "forward on the host (ms)",
    "forward_device_ms_mean": "forward on the device (ms)",
    "gpu_mem_used": "GPU memory change (MB)",
    "peak_gpu_mem": "GPU peak (MB)",
    "activations_mem": "activations (MB)",
    "gpu_mem_device": "whole GPU (MB)",
    "gpu_mem_other": "outside PyTorch (MB)",
    "cpu_mem_used": "CPU resident (MB)",
    "cpu_mem_peak": "CPU peak (MB)",
    "gpu_util_pct_mean": "GPU util (%)",
    "gpu_power_w_mean": "GPU power (W)",
    "energy_per_sample_j": "energy (J/sample)",
    "gpu_sm_clock_mhz_mean": "SM clock (MHz)",
    "gpu_temperature_c_max": "hottest (°C)",
    "tokens_per_batch_mean": "tokens/batch",
    "padding_tokens_per_batch_mean": "padding/batch",
    "num_truncated": "texts cut",
    "achieved_tflops": "TFLOP/s",
    "mfu": "MFU",
    "cpu_wait_fraction": "CPU wait",
    "cv": "CV",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Cells ready to show. The first ``words`` columns are words, the others figures."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1
    note: str = ""


def batch_table(sweep: Sweep, *, full: bool = False) -> Table:
    """One row a batch size; ``full`` adds every further column that any row has, and says which have none."""
    extra = [name for name in EXTRA_COLUMNS if full and sweep.having(name)]
    empty = {
        label: unmeasured(name, sweep.warnings)
        for name, label in EXTRA_COLUMNS.items()
        if full and name not in extra
    }
    notes = [
        f"{', '.join(name for name in empty if empty[name] == why)}: {why}"
        for why in dict.fromkeys(empty.values())
    ]
    notes += [sweep.mfu_source] if sweep.mfu_source and "mfu" in extra else []
    header = (
        "Batch",
        "Status",
        "ms/sample",
        "p50 (ms/batch)",
        "samples/s",
        "95% interval",
        "Padding",
        "Stable",
    )
    return Table(
        caption=f"Batch sizes over a sample of {number(sweep.sample_size)} texts; mean ± standard deviation of the runs",
        header=(*header, *(EXTRA_COLUMNS[name] for name in extra)),
        rows=tuple(
            (*_batch_cells(row), *(number(row[name]) for name in extra)) for row in sweep.rows
        ),
        words=2,
        note="; ".join(notes),
    )


def _batch_cells(row: Row) -> tuple[str, ...]:
    speed = "throughput_samples_per_sec"
    return (
        str(row["batch_size"]),
        STATUSES[row["status"]],
        spread(row["latency_per_sample_ms_mean"], row["latency_per_sample_ms_std"]),
        number(row["latency_per_batch_ms_median"]),
        number(row[f"{speed}_mean"]),
        interval(row[f"{speed}_ci95_low"], row[f"{speed}_ci95_high"]),
        percent(row["padding_fraction"]),
        yes_no(row["stable"]) if row["status"] == "ok" else DASH,
    )


def sample_table(results: Results) -> Table | None:
    """Whether figures depend on the sample; None for a single sample."""
    rows = results.metrics["measurement"]["sample_dependence"]
    return rows and Table(
        caption="Time per real token of the larger sample over the smaller's: what is left depends on how texts fall into batches",
        header=("Batch", "Samples", "Ratio", "95% interval", "Depends on the sample"),
        words=2,
        rows=tuple(
            (
                str(row["batch_size"]),
                " and ".join(map(str, row["sample_sizes"])),
                number(row["time_per_token_ratio"]),
                interval(row["ci95_low"], row["ci95_high"]),
                yes_no(row["depends_on_sample"]),
            )
            for row in rows
        ),
    )


def suggestion_lines(diagnosis: Mapping[str, Any]) -> list[str]:
    """The suggestions that save most, each with its cause and what to try. Savings overlap: they do not add up."""
    return [_suggestion_line(suggestion) for suggestion in diagnosis["suggestions"]]


def _suggestion_line(suggestion: Mapping[str, Any]) -> str:
    speedup = ""
    if suggestion.get("predicted_speedup") is not None:
        speedup = f", {_speedup(suggestion, suggestion['predicted_speedup'])}"
    setting = "no matching setting"
    if suggestion.get("setting"):
        setting = f"--set {suggestion['setting']}"
    return (
        f"{suggestion['title']}: up to {number(suggestion['saving_ms'], 'ms')}"
        f" ({number(suggestion['saving_pct'])}%) of a batch{speedup};"
        f" {suggestion.get('cause') or DASH}: {suggestion.get('evidence') or DASH}."
        f" Try: {suggestion.get('advice') or DASH} ({setting})"
    )


def _speedup(suggestion: Mapping[str, Any], predicted: float) -> str:
    bound = "at most " if suggestion.get("prediction") == "upper-bound" else ""
    return f"{bound}{predicted:.2f} times as fast"


def verified_lines(diagnosis: Mapping[str, Any]) -> list[str]:
    """What trying the suggestions showed, each alone; none where they were not tried."""
    lines = []
    for suggestion in (*diagnosis["suggestions"], *diagnosis.get("further_suggestions", ())):
        if suggestion.get("verification"):
            setting = suggestion["setting"] or "no setting"
            lines.append(f"{suggestion['title']} ({setting}): {_verification_line(suggestion)}")
    return lines


def _verification_line(suggestion: Mapping[str, Any]) -> str:
    verified = suggestion["verification"]
    if verified["reason"]:
        return f"not tried: {verified['reason']}"
    low, high = verified["ci95"]
    return (
        f"predicted {_speedup(suggestion, verified['predicted_speedup'])},"
        f" measured {verified['measured_speedup']:.2f}"
        f" (95% interval {low:.2f} to {high:.2f}, {verified['num_rounds']} rounds of"
        f" {number(verified['num_texts'])} texts); {verified['label_agreement']:.2%} of the labels equal"
    )


def verdict_table(diagnosis: Mapping[str, Any]) -> Table:
    """The verdict for each batch size."""
    return Table(
        caption="Verdict by batch size, with its reason",
        header=(
            "Batch",
            "Verdict",
            "Confidence",
            "Why",
            "Measured (ms)",
            "Roofline (ms)",
            "Padding",
        ),
        words=4,
        rows=tuple(
            (
                str(item["batch_size"]),
                item["verdict"],
                item.get("confidence", DASH),
                item.get("sentence", ""),
                number(item.get("measured_ms")),
                number(item.get("roofline_ms")),
                percent(item.get("padding_fraction")),
            )
            for item in diagnosis["batch_sizes"]
        ),
        note=f"Confidence is {rule}; else low."
        if (rule := diagnosis.get("confidence_rule"))
        else "",
    )


def per_class_table(results: Results) -> Table:
    """Quality by label."""
    quality = {"precision": "Precision", "recall": "Recall", "f1": "F1"}
    return Table(
        caption="Quality by label",
        header=("Label", *quality.values(), "Rows"),
        rows=tuple(
            (
                row["label"],
                *(DASH if row[key] is None else f"{row[key]:.4f}" for key in quality),
                number(row["support"]),
            )
            for row in results.evaluation["per_class"]
        ),
    )


def time_column(frame: pd.DataFrame) -> str:
    """The operators' own time where it was spent: on the device, or on the host where nothing ran on a device."""
    return "self_device_ms" if frame["self_device_ms"].fillna(0).gt(0).any() else "self_host_ms"


def top_tables(results: Results) -> list[Table]:
    """The modules, operators and kernels with the most time of their own, of those that were measured."""
    own = "self_host_ms" if results.operators is None else time_column(results.operators)
    place = own.split("_")[1]
    tables: list[tuple[pd.DataFrame | None, str, str, dict[str, str]]] = [
        (
            results.layers,
            "self_time_ms",
            "modules with the most time of their own, per forward",
            {
                "module": "Module",
                "kind": "Kind",
                "calls": "Calls",
                "self_time_ms": "Own time (ms)",
                "time_ms": "With children (ms)",
                "share_pct": "Share (%)",
            },
        ),
        (
            results.operators,
            own,
            f"operators with the most {place} time of their own, per batch of the traced run",
            {
                "operator": "Operator",
                "input_shapes": "Input shapes",
                "calls": "Calls",
                own: "Own time (ms)",
                "attainable_ms": "At the ceilings (ms)",
                "share_pct": "Share (%)",
            },
        ),
        (
            results.kernels,
            "time_ms",
            "kernels with the most time, all traced steps together",
            {
                "kernel": "Kernel",
                "category": "Category",
                "calls": "Calls",
                "time_ms": "Time (ms)",
                "mean_us": "Mean (us)",
                "share_pct": "Share (%)",
            },
        ),
    ]
    return [
        Table(
            caption=f"The {TOP} {caption}",
            header=tuple(columns.values()),
            words=2,
            rows=tuple(
                tuple(cell if isinstance(cell, str) else number(cell) for cell in row)
                for row in frame.nlargest(TOP, by)[list(columns)].itertuples(index=False)
            ),
        )
        for frame, by, caption, columns in tables
        if frame is not None and not frame.empty
    ]
