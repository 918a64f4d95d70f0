"""Made-up results of step 03. Nothing in them was measured on any machine."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.reporting.metrics_builders import MADE_UP
from utils.core.files import write_text
from utils.core.result_files import ResultFiles
from utils.schema.diagnosis import DIAGNOSIS_VERSION, Diagnosis

HOSTILE = "<script>alert('x')</script>"
OPERATORS = (
    "aten::addmm",
    "aten::mm",
    "aten::scaled_dot_product_attention",
    "aten::mul",
    "aten::silu",
    "aten::copy_",
)
MODULE_KINDS = ("Linear", "Qwen2RMSNorm", "SiLUActivation", "Qwen2Attention")
NUM_LAYERS = 6
OPERATOR_COLUMNS = (
    "operator",
    "calls",
    "input_shapes",
    "self_device_ms",
    "total_device_ms",
    "self_host_ms",
    "total_host_ms",
    "flops",
    "bytes_moved",
    "arithmetic_intensity",
    "memory_allocated_mb",
    "achieved_gflops_per_s",
    "achieved_gbytes_per_s",
    "share_pct",
    "attainable_ms",
)
LAYER_COLUMNS = (
    "module",
    "kind",
    "layer_index",
    "calls",
    "time_ms",
    "self_time_ms",
    "share_pct",
)
KERNEL_COLUMNS = ("kernel", "category", "calls", "time_ms", "mean_us", "share_pct")


def build_diagnosis(rows: list[dict[str, Any]], device: str) -> Diagnosis:
    """The diagnosis of the measured rows."""
    on_gpu = device != "cpu"
    payload = {
        "schema_version": DIAGNOSIS_VERSION,
        "device": device,
        "dtype": "float32",
        "matmul_precision": "highest",
        "ceilings": _ceilings(),
        "detail_batch_size": 1,
        "tracing_overhead_ratio": 1.2,
        "batch_sizes": [_verdict(row) for row in rows if row["status"] == "ok"],
        "suggestions": _suggestions(),
        "main_bottleneck": "compute-bound: 62% of the time is at the matrix ceiling.",
        "warnings": [f"ceilings: {MADE_UP}"],
        "attention": _attention(on_gpu=on_gpu),
        "kernels": _kernels() if on_gpu else None,
        "peak_memory": _memory_peak(on_gpu=on_gpu),
        "unavailable": {} if on_gpu else {"kernels": "no GPU was used"},
    }
    # As JSON, whose lists fit the strict tuples of the records.
    return Diagnosis.model_validate_json(json.dumps(payload))


def _ceilings() -> dict[str, Any]:
    return {
        "dtype": "float32",
        "matmul_flops_per_s": 1e11,
        "matmul_size": 1024,
        "matmul_spread_pct": 1.0,
        "copy_bytes_per_s": 1e10,
        "copy_rates": [],
        "copy_spread_pct": 1.0,
        "dispatch_s": 2e-6,
        "method": MADE_UP,
    }


def _verdict(row: dict[str, Any]) -> dict[str, Any]:
    batch_ms = row["latency_per_batch_ms_mean"]
    return {
        "batch_size": row["batch_size"],
        "verdict": "overhead-bound" if row["batch_size"] < 8 else "compute-bound",
        "sentence": f"At batch size {row['batch_size']} the invented values are the reason.",
        "evidence": _evidence(row),
        "shares": {"input": 0.1, "compute": 0.6, "memory": 0.2, "overhead": 0.1},
        "rule": "test",
        "padding_fraction": row["padding_fraction"],
        "measured_ms": batch_ms,
        "roofline_ms": batch_ms * 0.4,
    }


def _evidence(row: dict[str, Any]) -> dict[str, Any]:
    batch_ms = row["latency_per_batch_ms_mean"]
    return {
        "device": "cpu",
        "batch_size": row["batch_size"],
        "tokenize_ms": batch_ms * 0.1,
        "host_to_device_ms": 0.0,
        "forward_ms": batch_ms * 0.9,
        "device_to_host_ms": 0.0,
        "matmul_limited_ms": batch_ms * 0.3,
        "copy_limited_ms": batch_ms * 0.1,
        "op_calls": 300.0,
        "dispatch_us": 2.0,
        "flops": 6.1e10,
        "bytes_moved": 2e9,
    }


def _suggestions() -> list[dict[str, Any]]:
    """One that was tried, an upper bound that could not be tried, one that was not tried."""
    tried = {
        "predicted_speedup": 2.0,
        "measured_speedup": 1.93,
        "ci95": [1.9, 1.96],
        "label_agreement": 0.9988,
        "num_rounds": 7,
        "num_texts": 100,
        "reason": None,
    }
    not_possible = {
        **dict.fromkeys(tried),
        "predicted_speedup": 1.5,
        "reason": "invented, it does not fit",
    }
    return [
        _suggestion(1, setting="evaluation.batching", verification=tried),
        _suggestion(2, prediction="upper-bound", verification=not_possible),
        _suggestion(3),
    ]


def _suggestion(place: int, **changes: Any) -> dict[str, Any]:
    suggestion = {
        "title": f"Invented suggestion {place}",
        "cause": f"Cause {place}.",
        "saving_ms": 41.7 / place,
        "saving_pct": 23.5 / place,
        "advice": f"remedy {place}",
        "predicted_speedup": 1 + 1 / place,
        "prediction": "estimate",
        "evidence": f"Evidence {place}",
        "setting": None,
        "verification": None,
    }
    return suggestion | changes


def _attention(*, on_gpu: bool) -> list[dict[str, Any]]:
    """On the GPU the math kernel, which stores scores."""
    return [
        {
            "batch_size": 1,
            "kernel": "math" if on_gpu else "flash",
            "calls": 24,
            "measured_ms": 7.25,
            "attainable_ms": 0.5 if on_gpu else None,
            "stored_score_bytes": 352.5e6 if on_gpu else 0,
            "unavailable": {} if on_gpu else {"attainable_ms": "the kernel stores no scores"},
        }
    ]


def _kernels() -> dict[str, Any]:
    return {
        "num_steps": 3,
        "num_kernels": 900,
        "span_ms": 61.5,
        "busy_ms": 41.25,
        "idle_ms": 20.25,
        "median_gap_us": 1.75,
        "num_launches": 880,
        "idle_by_cause_ms": {
            "host_wait": 12.0,
            "synchronisation": 0.0,
            "between_steps": 8.25,
            "other": 0.0,
        },
        "launches_per_s": 14309.0,
        "launch_ms": 9.5,
        "kernel_ms": 42.5,
        "by_category_ms": {"attention": 10.5, "matrix product": 32.0},
    }


def _memory_peak(*, on_gpu: bool) -> dict[str, Any]:
    largest = {
        "operator": "aten::invented",
        "module": "model.layers.3",
        "size_mb": 119.5,
        "is_workspace": True,
    }
    return {
        "total_mb": 2310.5,
        "weights_mb": 1976.5,
        "activations_mb": 301.5,
        "workspace_mb": 23.25,
        "other_mb": 9.25 if on_gpu else None,
        "largest": [largest],
    }


def write_traces(files: ResultFiles, *, gpu: bool) -> None:
    """The tables beside the trace, the stacks and, on the GPU, the kernels."""
    write_operators(files.operators)
    write_layers(files.layers)
    hostile_name = HOSTILE.replace(" ", "_")
    stacks = [
        "ProfilerStep*;forward;aten::mm 3000",
        f"ProfilerStep*;f.py(1):_{hostile_name} 1000",
    ]
    write_text(files.stacks, "".join(f"{line}\n" for line in stacks))
    write_csv(files.memory, ["time_ms", "allocated_mb"], [[0, 10.5], [1, 301.5], [2, 0]])
    if gpu:
        kernel = ["sm90_xmma_gemm_invented", "matrix product", 3, 32.0, 10666.7, 75.3]
        write_csv(files.kernels, KERNEL_COLUMNS, [kernel])


def write_operators(
    file: Path, names: Sequence[str] = OPERATORS, self_device_ms: float | None = None
) -> None:
    """``operators.csv``. Without ``self_device_ms`` nothing ran on a device, as on the CPU."""
    rows = []
    for i, name in enumerate(names):
        row: dict[str, Any] = dict.fromkeys(OPERATOR_COLUMNS)
        row |= {
            "operator": name,
            "calls": 24 * (i + 1),
            "input_shapes": f"[[{2**i}, 896]]",
            "self_device_ms": self_device_ms,
            "self_host_ms": 90 / (i + 1),
            "total_host_ms": 100 / (i + 1),
            "share_pct": 30 / (i + 1),
            "attainable_ms": 40 / (i + 1) if i < 3 else None,
        }
        rows.append(list(row.values()))
    write_csv(file, OPERATOR_COLUMNS, rows)


def write_layers(file: Path, *, timed: bool = True) -> None:
    """``layers.csv``: six layers of four modules, and the score head outside the layers.

    Without ``timed`` as on a GPU whose kernels the profiler is not permitted to see.
    """
    rows: list[list[Any]] = []
    for layer in range(NUM_LAYERS):
        for place, kind in enumerate(MODULE_KINDS):
            times = [5.0 - place, 4.0 - place + layer / 10, 4.0]
            rows.append([f"model.layers.{layer}.{kind.lower()}", kind, layer, 3, *times])
    rows.append(["score", "Linear", None, 3, 0.2, 0.2, 0.3])
    if not timed:
        rows = [[*row[:4], None, None, None] for row in rows]
    write_csv(file, LAYER_COLUMNS, rows)


def write_csv(file: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as target:
        csv.writer(target).writerows([header, *rows])
