"""Results files made up from the contract. Every figure is invented: nothing here was measured on any machine."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from utils.config_loader import Config, load_config
from utils.core.files import METRICS_SCHEMA, write_json, write_text

MADE_UP = "TEST DATA, not measured"
HOSTILE = "<script>alert('x')</script>"
SIZES = (1, 4, 8, 16, 32, 64)
STATISTICS = ("mean", "std", "min", "max", "median")
SPREAD = (
    "latency_per_sample_ms",
    "latency_per_batch_ms",
    "latency_total_s",
    "throughput_samples_per_sec",
    "throughput_batches_per_sec",
    "throughput_tokens_per_sec",
)
OPERATORS = (
    "aten::addmm",
    "aten::mm",
    "aten::scaled_dot_product_attention",
    "aten::mul",
    "aten::silu",
    "aten::copy_",
)
KINDS = ("Linear", "Qwen2RMSNorm", "SiLUActivation", "Qwen2Attention")
NO_CUDA = (
    "gpu_mem_used, gpu_mem_reserved, peak_gpu_mem, gpu_util_pct_mean, gpu_power_w_mean, energy_per_sample_j: "
    "the model is on the CPU"
)


def columns() -> list[str]:
    """The row's keys, from the schema."""
    schema = json.loads(METRICS_SCHEMA.read_text())
    return list(schema["properties"]["batch_size_profiling"]["items"]["required"])


def row(size: int, *, gpu: bool, sample_size: int = 100) -> dict[str, Any]:
    """One made-up row: latency per sample falls with the batch size and levels off."""
    values: dict[str, Any] = dict.fromkeys(columns())
    per_sample = 3.1 + 21.7 / size
    throughput = 1000 / per_sample
    means = (
        per_sample,
        per_sample * size,
        per_sample * sample_size / 1000,
        throughput,
        throughput / size,
        throughput * 61.5,
    )
    for name, mean in zip(SPREAD, means, strict=True):
        values |= {
            f"{name}_{s}": mean * f
            for s, f in zip(STATISTICS, (1, 0.031, 0.95, 1.07, 0.99), strict=True)
        }
    forward = per_sample * sample_size * 0.86
    values |= {
        "batch_size": size,
        "status": "ok",
        "num_runs": 10,
        "num_samples": sample_size,
        "sample_size": sample_size,
        "latency_per_batch_ms_p90": per_sample * size * 1.31,
        "latency_per_batch_ms_p95": per_sample * size * 1.48,
        "latency_per_batch_ms_p99": per_sample * size * 1.83,
        "throughput_samples_per_sec_ci95_low": throughput * 0.96,
        "throughput_samples_per_sec_ci95_high": throughput * 1.04,
        "tokenize_ms_mean": forward * 0.13,
        "host_to_device_ms_mean": forward * 0.02,
        "forward_ms_mean": forward,
        "device_to_host_ms_mean": forward * 0.01,
        "cpu_mem_used": 812.4 + size,
        "padding_fraction": 0.48 * (1 - 1 / size),
        "flops_per_sample": 6.1e10,
        "achieved_tflops": throughput * 6.1e-2,
        "cv": 0.031,
        "stable": size != 8,
        "warnings": [f"mfu: {MADE_UP}"] if gpu else [f"mfu: {MADE_UP}", NO_CUDA],
    }
    if gpu:
        values |= {
            "gpu_mem_used": 8.5,
            "gpu_mem_reserved": 2400.0 + 20 * size,
            "peak_gpu_mem": 2100.0 + 18.5 * size,
            "gpu_util_pct_mean": min(97.0, 31.0 + 12 * size**0.5),
            "gpu_power_w_mean": 130.0 + 30 * size**0.5,
            "energy_per_sample_j": 3.3 / size**0.5,
        }
    return values


def oom_row(size: int, sample_size: int = 100, status: str = "oom") -> dict[str, Any]:
    """A batch size that did not fit, or was not tried since a smaller one did not."""
    return {
        **dict.fromkeys(columns()),
        "batch_size": size,
        "status": status,
        "num_runs": 0,
        "num_samples": sample_size,
        "sample_size": sample_size,
        "warnings": ["out of memory: 71.20 GB asked for"],
    }


def per_class(labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """Quality that differs by label."""
    return [
        {
            "label_id": i,
            "label": name,
            "precision": 0.91 - i / 100,
            "recall": 0.87 + i / 200,
            "f1": 0.89,
            "support": 40 + i,
        }
        for i, name in enumerate(labels)
    ]


def evaluation(labels: tuple[str, ...], *, gpu: bool, dummy: bool) -> dict[str, Any]:
    """Made-up ``full_dataset_metrics``."""
    quality = (
        "accuracy",
        "accuracy_ci95_low",
        "accuracy_ci95_high",
        "f1_macro",
        "f1_weighted",
        "num_labelled",
        "num_correct",
    )
    figures = (None,) * 7 if dummy else (0.9207, 0.9131, 0.9278, 0.9012, 0.9199, 5000, 4603)
    known: dict[str, Any] = dict(zip(quality, figures, strict=True))
    return {
        **known,
        "num_samples": 5000,
        "batching": "token_budget",
        "max_tokens_per_batch": 8192,
        "num_missing_labels": 0,
        "num_unknown_labels": 0,
        "confusion_matrix": None,
        "compile_comparison": None,
        "batching_comparison": {
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
        },
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
        "per_class": None if dummy else per_class(labels),
        "warnings": []
        if gpu
        else [
            "gpu_mem_used, peak_gpu_mem and gpu_util are not measured: the model is not on a CUDA device"
        ],
    }


def payload(
    config: Config, rows: list[dict[str, Any]], labels: tuple[str, ...], *, gpu: bool, dummy: bool
) -> dict[str, Any]:
    """A whole made-up ``baseline_metrics.json``."""
    device = "cuda:0" if gpu else "cpu"
    fitted = [item for item in rows if item["status"] == "ok"]
    best = max(fitted, key=lambda item: item["throughput_samples_per_sec_mean"], default=None)
    keys = ("batch_size", "throughput_samples_per_sec_mean", "latency_per_sample_ms_mean")
    whole = evaluation(labels, gpu=gpu, dummy=dummy)
    return {
        "schema_version": 2,
        "run": {
            "id": "20300101-000000-testdata",
            "started_at": "2030-01-01T00:00:00+0000",
            "finished_at": "2030-01-01T00:04:11+0000",
            "duration_s": 251.3,
            "command": f"python {MADE_UP}",
            "seed": 0,
            "config_sha256": "0" * 64,
            "data_sha256": "1" * 64,
            "warnings": [
                f"accuracy: {MADE_UP}" if not dummy else "the weights are random",
                *whole["warnings"],
            ],
        },
        "environment": {
            "platform": "Test-OS",
            "python": "3.12.0",
            "libraries": {"torch": "2.6.0", "transformers": "5.0.0", "peft": None},
            "cpu": {
                "name": "Test CPU",
                "physical_cores": 2,
                "logical_cores": 2,
                "usable_cores": 2,
                "memory_bytes": 16_000_000_000,
            },
            "gpu": {
                "name": "Test GPU",
                "uuid": None,
                "memory_bytes": 80_000_000_000,
                "driver": "550.1",
            }
            if gpu
            else None,
            "torch": {"num_threads": 2, "matmul_precision": "highest"},
            "variables": {"OMP_NUM_THREADS": None},
            "git": {"commit": "0123456789abcdef", "dirty": True},
        },
        "config": config.to_dict(),
        "model_info": {
            "model_type": "qwen2",
            "name": "test/invented-model",
            "revision": None,
            "adapter": None,
            "total_params": 494_053_376,
            "trainable_params": 494_053_376,
            "non_trainable_params": 0,
            "total_size_mb": 1976.21,
            "weights": "dummy" if dummy else "pretrained",
            "dtype": "float32",
            "device": device,
            "attn_implementation": "sdpa",
            "num_labels": len(labels),
            "max_position_embeddings": 32768,
            "load_time_s": 2.5,
            "load_times": {"total_s": 2.5},
        },
        "dataset_info": {
            "name": "test/invented-data",
            "revision": None,
            "path": "data.csv",
            "num_rows": 5000,
            "num_labels": len(labels),
            "label_names": list(labels),
            "sha256": "1" * 64,
            "sample_sizes": [100],
            "label_mapping_source": "model",
        },
        "batch_size_profiling": rows,
        "optimal_batch_size": best
        and {**{k: best[k] for k in keys}, "criterion": "highest mean throughput", "tied_with": []},
        "full_dataset_metrics": whole,
        "first_inference_ms": 73.2,
        "measurement": {
            "rounds": [],
            "idle_gpu_power_w": 71.5 if gpu else None,
            "idle_gpu_util_pct": 0.0 if gpu else None,
            "gpu_shared": False if gpu else None,
            "sample_dependence": dependence(rows),
        },
        "units": {},
    }


def dependence(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Made up for every batch size of the first and the last sample."""
    first, last = rows[0]["sample_size"], rows[-1]["sample_size"]
    return [
        {
            "batch_size": row["batch_size"],
            "sample_sizes": [first, last],
            "time_per_token_ratio": 1.27,
            "ci95_low": 1.19,
            "ci95_high": 1.36,
            "depends_on_sample": True,
        }
        for row in rows
        if row["sample_size"] == first != last
    ]


def bottlenecks(rows: list[dict[str, Any]], device: str) -> dict[str, Any]:
    """A made-up ``bottlenecks.json``."""
    verdicts = [
        {
            "batch_size": item["batch_size"],
            "verdict": "overhead-bound" if item["batch_size"] < 8 else "compute-bound",
            "sentence": f"At batch size {item['batch_size']} the invented figures say so.",
            "evidence": {"ratio": 0.7},
            "rule": "test",
            "padding_fraction": item["padding_fraction"],
            "measured_ms": item["latency_per_batch_ms_mean"],
            "roofline_ms": item["latency_per_batch_ms_mean"] * 0.4,
        }
        for item in rows
        if item["status"] == "ok"
    ]
    no_figures = dict.fromkeys(
        ("measured_speedup", "ci95", "label_agreement", "num_rounds", "num_texts")
    )
    tried = [
        {
            "predicted_speedup": 2.0,
            "measured_speedup": 1.93,
            "ci95": [1.9, 1.96],
            "label_agreement": 0.9988,
            "num_rounds": 7,
            "num_texts": 100,
            "reason": None,
        },
        {**no_figures, "predicted_speedup": 1.5, "reason": "invented, it does not fit"},
        None,
    ]
    suggestions = [
        {
            "title": f"Invented win {i}",
            "cause": f"Cause {i}.",
            "saving_ms": 41.7 / i,
            "saving_pct": 23.5 / i,
            "advice": f"remedy {i}",
            "predicted_speedup": 1 + 1 / i,
            "prediction": "upper-bound" if i == 2 else "estimate",
            "evidence": f"Evidence {i}",
            "setting": "evaluation.batching" if i == 1 else None,
            "verification": tried[i - 1],
        }
        for i in (1, 2, 3)
    ]
    return {
        "schema_version": 3,
        "device": device,
        "dtype": "float32",
        "matmul_precision": "highest",
        "ceilings": {"matmul_flops_per_s": 1e11},
        "tracing_overhead_ratio": 1.2,
        "batch_sizes": verdicts,
        "suggestions": suggestions,
        "main_bottleneck": "compute-bound: 62% of the time is at the matrix ceiling.",
        "warnings": [f"ceilings: {MADE_UP}"],
        **device_and_memory(gpu=device != "cpu"),
    }


def device_and_memory(*, gpu: bool) -> dict[str, Any]:
    """Made-up ``kernels`` and ``memory``; on the CPU no kernels."""
    kernels = {
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
    peak = {
        "total_mb": 2310.5,
        "weights_mb": 1976.5,
        "activations_mb": 301.5,
        "workspace_mb": 23.25,
        "other_mb": 9.25 if gpu else None,
        "largest": [
            {
                "operator": "aten::invented",
                "module": "model.layers.3",
                "size_mb": 119.5,
                "is_workspace": True,
            }
        ],
    }
    return {
        "kernels": kernels if gpu else None,
        "peak_memory": peak,
        "unavailable": {} if gpu else {"kernels": "no GPU was used"},
    }


def write_traces(config: Config, *, gpu: bool) -> None:
    """Made-up stacks, memory over time and, on the GPU, kernels."""
    files = config.files
    write_text(
        files.stacks,
        f"ProfilerStep*;forward;aten::mm 3000\nProfilerStep*;f.py(1):_{HOSTILE.replace(' ', '_')} 1000\n",
    )
    _write_csv(files.memory, ["time_ms", "allocated_mb"], [[0, 10.5], [1, 301.5], [2, 0]])
    if gpu:
        _write_csv(
            files.kernels,
            ["kernel", "category", "calls", "time_ms", "mean_us", "share_pct"],
            [["sm90_xmma_gemm_invented", "matrix product", 3, 32.0, 10666.7, 75.3]],
        )


def write_operators(file: Path, names: tuple[str, ...] = OPERATORS) -> None:
    """A made-up ``operators.csv``; nothing ran on a device, as on the CPU."""
    heads = (
        "operator,calls,input_shapes,self_device_ms,total_device_ms,self_host_ms,total_host_ms,flops,bytes_moved,"
        "arithmetic_intensity,memory_allocated_mb,achieved_gflops_per_s,achieved_gbytes_per_s,share_pct,attainable_ms"
    )
    rows = [
        [
            name,
            24 * (i + 1),
            f"[[{2**i}, 896]]",
            "",
            "",
            90 / (i + 1),
            100 / (i + 1),
            "",
            "",
            "",
            "",
            "",
            "",
            30 / (i + 1),
            40 / (i + 1) if i < 3 else "",
        ]
        for i, name in enumerate(names)
    ]
    _write_csv(file, heads.split(","), rows)


def write_layers(file: Path, count: int = 6) -> None:
    """A made-up ``layers.csv``: ``count`` layers of four modules, and the score head outside."""
    rows: list[list[Any]] = [
        [f"model.layers.{i}.{kind.lower()}", kind, i, 3, 5.0 - j, 4.0 - j + i / 10, 4.0]
        for i in range(count)
        for j, kind in enumerate(KINDS)
    ]
    rows.append(["score", "Linear", "", 3, 0.2, 0.2, 0.3])
    _write_csv(
        file,
        ["module", "kind", "layer_index", "calls", "time_ms", "self_time_ms", "share_pct"],
        rows,
    )


def _write_csv(file: Path, head: list[str], rows: list[list[Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([head, *rows])


def write_results(
    folder: Path,
    *,
    gpu: bool = False,
    dummy: bool = False,
    step_03: bool = True,
    sizes: tuple[int, ...] = SIZES,
    oom: tuple[int, ...] = (),
    labels: tuple[str, ...] = ("books", "games", "music"),
    sample_sizes: tuple[int, ...] = (100,),
    sections: dict[str, dict[str, Any]] | None = None,
) -> Config:
    """Write the files of steps 02 and 03 under ``folder``; return the config that points there.

    The files are those of an earlier version; ``sections`` replaces keys in sections of ``baseline_metrics.json``.
    """
    config = load_config(
        "configs/config.yaml",
        [f"output.results_dir={folder}", f"dataset.local_path={folder / 'data.csv'}"],
    )
    rows = [
        oom_row(s, n, "oom" if s == min(oom) else "not_tried")
        if s in oom
        else row(s, gpu=gpu, sample_size=n)
        for n in sample_sizes
        for s in sizes
    ]
    files = config.files
    metrics = payload(config, rows, labels, gpu=gpu, dummy=dummy)
    for name, values in (sections or {}).items():
        metrics[name] |= values
    write_json(files.metrics, metrics, schema=METRICS_SCHEMA)
    _write_csv(files.detailed_metrics, columns(), [list(item.values()) for item in rows])
    if step_03:
        write_json(files.bottlenecks, bottlenecks(rows, "cuda:0" if gpu else "cpu"))
        write_operators(files.operators)
        write_layers(files.layers)
        write_traces(config, gpu=gpu)
    return config
