"""Made-up sections of ``baseline_metrics.json``. Nothing in them was measured on any machine.

Each function returns JSON values, so that a test can change them before they become a record.
"""

from __future__ import annotations

from typing import Any

MADE_UP = "TEST DATA, not measured"
STATISTICS = {"mean": 1.0, "std": 0.031, "min": 0.95, "max": 1.07, "median": 0.99}
"""The statistics of a metric, each as a multiple of its mean."""
NO_CUDA = "the model is on the CPU"
ROW_WARNING = "spread: the standard deviation is 12% of the mean"
OUT_OF_MEMORY = "out of memory: 71.20 GB asked for"
EVALUATION_GPU_METRICS = ("gpu_mem_used", "peak_gpu_mem", "gpu_util")
GPU_COLUMNS = (
    "gpu_mem_change",
    "gpu_mem_reserved",
    "peak_gpu_mem",
    "gpu_util_pct_mean",
    "gpu_power_w_mean",
    "energy_per_sample_j",
)


def build_row(batch_size: int, *, gpu: bool, sample_size: int = 100) -> dict[str, Any]:
    """A measured row: the latency per sample falls with the batch size and levels off."""
    latency_ms = 3.1 + 21.7 / batch_size
    throughput = 1000 / latency_ms
    row: dict[str, Any] = {
        "batch_size": batch_size,
        "status": "ok",
        "num_runs": 10,
        "num_samples": sample_size,
        "sample_size": sample_size,
        "cpu_mem_used": 812.4 + batch_size,
        "padding_fraction": 0.48 * (1 - 1 / batch_size),
        "flops_per_sample": 6.1e10,
        "achieved_tflops": throughput * 6.1e-5,
        "cv": 0.031,
        "stable": batch_size != 8,
        "warnings": [ROW_WARNING],
        "unavailable": {"mfu": MADE_UP},
    }
    row |= _speed_columns(batch_size, latency_ms, sample_size)
    row |= _phase_columns(latency_ms * sample_size * 0.86)
    if gpu:
        row |= _gpu_columns(batch_size)
    else:
        row["unavailable"] |= dict.fromkeys(GPU_COLUMNS, NO_CUDA)
    return row


def _speed_columns(batch_size: int, latency_ms: float, sample_size: int) -> dict[str, float]:
    throughput = 1000 / latency_ms
    batch_ms = latency_ms * batch_size
    means = {
        "latency_per_sample_ms": latency_ms,
        "latency_per_batch_ms": batch_ms,
        "latency_total_s": latency_ms * sample_size / 1000,
        "throughput_samples_per_sec": throughput,
        "throughput_batches_per_sec": throughput / batch_size,
        "throughput_tokens_per_sec": throughput * 61.5,
    }
    columns = {
        "latency_per_batch_ms_p90": batch_ms * 1.31,
        "latency_per_batch_ms_p95": batch_ms * 1.48,
        "latency_per_batch_ms_p99": batch_ms * 1.83,
        "throughput_samples_per_sec_ci95_low": throughput * 0.96,
        "throughput_samples_per_sec_ci95_high": throughput * 1.04,
    }
    for name, mean in means.items():
        for statistic, factor in STATISTICS.items():
            columns[f"{name}_{statistic}"] = mean * factor
    return columns


def _phase_columns(forward_ms: float) -> dict[str, float]:
    return {
        "tokenize_ms_mean": forward_ms * 0.13,
        "host_to_device_ms_mean": forward_ms * 0.02,
        "forward_ms_mean": forward_ms,
        "device_to_host_ms_mean": forward_ms * 0.01,
    }


def _gpu_columns(batch_size: int) -> dict[str, float]:
    return {
        "gpu_mem_change": 8.5,
        "gpu_mem_reserved": 2400.0 + 20 * batch_size,
        "peak_gpu_mem": 2100.0 + 18.5 * batch_size,
        "gpu_util_pct_mean": min(97.0, 31.0 + 12 * batch_size**0.5),
        "gpu_power_w_mean": 130.0 + 30 * batch_size**0.5,
        "energy_per_sample_j": 3.3 / batch_size**0.5,
    }


def build_unmeasured_row(batch_size: int, sample_size: int, status: str) -> dict[str, Any]:
    """A batch size that did not fit, or was not tried since a smaller one did not fit."""
    return {
        "batch_size": batch_size,
        "status": status,
        "num_runs": 0,
        "num_samples": sample_size,
        "sample_size": sample_size,
        "warnings": [OUT_OF_MEMORY],
    }


def build_evaluation(labels: tuple[str, ...], *, gpu: bool, dummy_weights: bool) -> dict[str, Any]:
    """``full_dataset_metrics``."""
    return {
        **_quality(labels, dummy_weights=dummy_weights),
        "num_samples": 5000,
        "batching": "token_budget",
        "max_tokens_per_batch": 8192,
        "num_missing_labels": 0,
        "num_unknown_labels": 0,
        "confusion_matrix": None,
        "compile_comparison": None,
        "batching_comparison": _batching_comparison(),
        "inference_time_s": 45.41,
        "throughput_samples_per_sec": 110.12,
        "throughput_tokens_per_sec": 6771.3,
        "latency_per_sample_ms": 9.0817,
        "padding_fraction": 0.0123,
        "num_tokens": 307512,
        "num_truncated": 17,
        "gpu_mem_used": 1976.14 if gpu else None,
        "peak_gpu_mem": 3210.5 if gpu else None,
        "cpu_mem_used": 912.7,
        "gpu_util": 93.2 if gpu else None,
        "resumed_rows": 0,
        "warnings": [],
        "unavailable": {} if gpu else dict.fromkeys(EVALUATION_GPU_METRICS, NO_CUDA),
    }


def _quality(labels: tuple[str, ...], *, dummy_weights: bool) -> dict[str, Any]:
    quality: dict[str, Any] = {
        "accuracy": 0.9207,
        "accuracy_ci95_low": 0.9131,
        "accuracy_ci95_high": 0.9278,
        "f1_macro": 0.9012,
        "f1_weighted": 0.9199,
        "num_labelled": 5000,
        "num_correct": 4603,
        "per_class": _per_class(labels),
    }
    if dummy_weights:
        return dict.fromkeys(quality)
    return quality


def _per_class(labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """Quality that differs by label."""
    rows = []
    for label_id, label in enumerate(labels):
        rows.append(
            {
                "label_id": label_id,
                "label": label,
                "precision": 0.91 - label_id % 50 / 100,
                "recall": 0.87 + label_id % 20 / 200,
                "f1": 0.89,
                "support": 40 + label_id,
            }
        )
    return rows


def _batching_comparison() -> dict[str, Any]:
    return {
        "max_tokens_per_batch": 8192,
        "batch_size": 32,
        "num_rows": 512,
        "rounds": 2,
        "speedup": 4.9,
        "label_agreement": 1.0,
        "token_budget_samples_per_sec": 110.0,
        "token_budget_padding_fraction": 0.0123,
        "dataset_order_samples_per_sec": 22.5,
        "dataset_order_padding_fraction": 0.74,
    }


def build_run(warnings: list[str], *, dummy_weights: bool) -> dict[str, Any]:
    first_warning = "the weights are random" if dummy_weights else f"accuracy: {MADE_UP}"
    return {
        "id": "20300101-000000-testdata",
        "started_at": "2030-01-01T00:00:00+0000",
        "finished_at": "2030-01-01T00:04:11+0000",
        "duration_s": 251.3,
        "command": f"python {MADE_UP}",
        "seed": 0,
        "config_sha256": "0" * 64,
        "data_sha256": "1" * 64,
        "warnings": [first_warning, *warnings],
    }


def build_environment(*, gpu: bool) -> dict[str, Any]:
    gpu_record = {
        "name": "Test GPU",
        "uuid": None,
        "memory_bytes": 80_000_000_000,
        "driver": "550.1",
    }
    cpu_record = {
        "name": "Test CPU",
        "physical_cores": 2,
        "logical_cores": 2,
        "usable_cores": 2,
        "memory_bytes": 16_000_000_000,
    }
    return {
        "platform": "Test-OS",
        "python": "3.12.0",
        "libraries": {"torch": "2.6.0", "transformers": "5.0.0", "peft": None},
        "cpu": cpu_record,
        "gpu": gpu_record if gpu else None,
        "torch": {"num_threads": 2, "matmul_precision": "highest"},
        "variables": {"OMP_NUM_THREADS": None},
        "git": {"commit": "0123456789abcdef", "dirty": True},
    }


def build_model_info(num_labels: int, *, device: str, dummy_weights: bool) -> dict[str, Any]:
    return {
        "model_type": "qwen2",
        "name": "test/invented-model",
        "revision": None,
        "adapter": None,
        "total_params": 494_053_376,
        "trainable_params": 494_053_376,
        "non_trainable_params": 0,
        "total_size_mb": 1976.21,
        "weights": "dummy" if dummy_weights else "pretrained",
        "dtype": "float32",
        "device": device,
        "attn_implementation": "sdpa",
        "num_labels": num_labels,
        "max_position_embeddings": 32768,
        "load_time_s": 2.5,
        "load_times": {"total_s": 2.5},
    }


def build_dataset_info(labels: tuple[str, ...]) -> dict[str, Any]:
    return {
        "name": "test/invented-data",
        "revision": None,
        "path": "data.csv",
        "num_rows": 5000,
        "num_labels": len(labels),
        "label_names": list(labels),
        "sha256": "1" * 64,
        "sample_sizes": [100],
        "label_mapping_source": "model",
    }


def choose_optimal(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """``optimal_batch_size``: None where nothing was measured."""
    measured = [row for row in rows if row["status"] == "ok"]
    if not measured:
        return None
    best = max(measured, key=lambda row: row["throughput_samples_per_sec_mean"])
    return {
        "batch_size": best["batch_size"],
        "throughput_samples_per_sec_mean": best["throughput_samples_per_sec_mean"],
        "latency_per_sample_ms_mean": best["latency_per_sample_ms_mean"],
        "criterion": "highest mean throughput",
        "tied_with": [],
    }


def build_measurement(rows: list[dict[str, Any]], *, gpu: bool) -> dict[str, Any]:
    return {
        "rounds": [],
        "idle_gpu_power_w": 71.5 if gpu else None,
        "idle_gpu_util_pct": 0.0 if gpu else None,
        "gpu_shared": False if gpu else None,
        "sample_dependence": _sample_dependence(rows),
    }


def _sample_dependence(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first sample compared with the last one at every batch size; empty for one sample."""
    first = rows[0]["sample_size"]
    last = rows[-1]["sample_size"]
    if first == last:
        return []
    comparisons = []
    for row in rows:
        if row["sample_size"] == first:
            comparisons.append(
                {
                    "batch_size": row["batch_size"],
                    "sample_sizes": [first, last],
                    "time_per_token_ratio": 1.27,
                    "ci95_low": 1.19,
                    "ci95_high": 1.36,
                    "depends_on_sample": True,
                }
            )
    return comparisons
