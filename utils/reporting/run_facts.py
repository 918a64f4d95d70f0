"""What was run on what: the run, the model, the settings of the measurement, the machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from utils.reporting.formatting import (
    DASH,
    Fact,
    format_bool,
    format_number,
    not_measured,
    shorten,
)
from utils.reporting.results import Results


def model_title(model_info: Mapping[str, Any], width: int | None = None) -> str:
    """How a report names its model: an adapter with its base, so that adapters are distinguished.

    Args:
        model_info: the section of ``baseline_metrics.json``. Files of earlier versions have no
            ``adapter_mode``; their adapters were always merged.
        width: the most characters of each name; None shortens nothing.
    """
    base = str(model_info["name"])
    adapter = model_info.get("adapter")
    if not adapter:
        return base if width is None else shorten(base, width)
    if width is not None:
        base = shorten(base, width)
        adapter = shorten(str(adapter), width)
    if model_info.get("adapter_mode") == "unmerged":
        return f"{adapter}, run unmerged on {base}"
    return f"{adapter}, merged into {base}"


def run_facts(results: Results) -> list[Fact]:
    """All that the values of another run have to be compared with."""
    run = results.metrics["run"]
    return [
        *_run(results.metrics),
        *_model(results),
        *_measurement(results.metrics),
        *_machine(results.metrics),
        Fact("Config SHA-256", run["config_sha256"]),
        Fact("Data SHA-256", run["data_sha256"]),
    ]


def _run(metrics: Mapping[str, Any]) -> list[Fact]:
    run = metrics["run"]
    duration = format_number(run["duration_s"], "s")
    return [
        Fact("Run", run["id"]),
        Fact("Measured", f"{run['started_at']} to {run['finished_at']} ({duration})"),
        Fact("Command", run["command"]),
        Fact("Commit", _commit(metrics["environment"]["git"])),
    ]


def _commit(git: Mapping[str, Any]) -> str:
    if not git.get("commit"):
        return "not recorded: not a git checkout"
    if git.get("dirty"):
        return f"{git['commit']} with uncommitted changes"
    return str(git["commit"])


def _model(results: Results) -> list[Fact]:
    model = results.metrics["model_info"]
    torch = results.metrics["environment"]["torch"]
    precision = (
        f"{model['dtype']}, matmul precision {torch.get('matmul_precision', DASH)}, "
        f"attention {model['attn_implementation'] or DASH}"
    )
    return [
        Fact("Model", _model_text(model)),
        Fact("Precision", precision),
        Fact("Load time", _load_time(model)),
        Fact("First inference", _first_inference(results)),
    ]


def _model_text(model: Mapping[str, Any]) -> str:
    weights = f"{model['weights']} weights"
    if model.get("weights_format"):
        weights += f" from {model['weights_format']}"
    details = [
        model["model_type"],
        f"{format_number(model['total_params'])} parameters",
        format_number(model["total_size_mb"], "MB"),
        weights,
        f"revision {model['revision'] or 'none'}",
    ]
    return f"{model_title(model)} ({', '.join(details)})"


def _load_time(model: Mapping[str, Any]) -> str:
    parts = []
    for name, seconds in model["load_times"].items():
        if name != "total_s":
            part = name.removesuffix("_s").replace("_", " ")
            parts.append(f"{part} {format_number(seconds, 's')}")
    return f"{format_number(model['load_time_s'], 's')} ({', '.join(parts) or 'parts unknown'})"


def _first_inference(results: Results) -> str:
    text = f"{format_number(results.metrics['first_inference_ms'], 'ms')}, cold"
    if results.batch1_p50_ms is not None:
        steady = format_number(results.batch1_p50_ms, "ms")
        text += f"; {steady} in the steady state (p50 at batch size 1)"
    return text


def _measurement(metrics: Mapping[str, Any]) -> list[Fact]:
    data = metrics["dataset_info"]
    profiling = metrics["config"]["profiling"]
    num_rounds = sum(len(sample["order"]) for sample in metrics["measurement"]["rounds"])
    rows = format_number(data["num_rows"])
    return [
        Fact("Data set", f"{data['name']} ({rows} rows, {data['num_labels']} labels)"),
        Fact(
            "Sweep",
            f"{profiling['num_measurement_runs']} runs after {profiling['num_warmup_runs']} "
            f"of warm-up, texts truncated to {profiling['max_length']} tokens, "
            f"seed {metrics['run']['seed']}",
        ),
        Fact("Order", f"{num_rounds} rounds in which batch sizes took turns"),
    ]


def _machine(metrics: Mapping[str, Any]) -> list[Fact]:
    machine = metrics["environment"]
    versions = []
    for name, version in machine["libraries"].items():
        if version:
            versions.append(f"{name} {version}")
    return [
        Fact("Device", metrics["model_info"]["device"]),
        Fact("GPU at rest", _gpu_at_rest(metrics["measurement"])),
        Fact("GPU", _gpu_text(machine["gpu"])),
        Fact("CPU", _cpu_text(machine["cpu"], machine["torch"])),
        Fact("System", f"{machine['platform']}, Python {machine['python']}"),
        Fact("Libraries", ", ".join(versions)),
    ]


def _gpu_at_rest(measurement: Mapping[str, Any]) -> str:
    power = format_number(measurement["idle_gpu_power_w"], "W", missing=not_measured())
    return f"{power}; another process on it: {format_bool(measurement['gpu_shared'])}"


def _gpu_text(gpu: Mapping[str, Any] | None) -> str:
    if not gpu:
        return "none used"
    return f"{gpu.get('name')} ({_memory_text(gpu)}, driver {gpu.get('driver') or DASH})"


def _cpu_text(cpu: Mapping[str, Any], torch: Mapping[str, Any]) -> str:
    cores = cpu.get("usable_cores") or DASH
    threads = torch.get("num_threads", DASH)
    memory = _memory_text(cpu)
    return f"{cpu.get('name')} ({cores} usable cores, {threads} torch threads, {memory})"


def _memory_text(part: Mapping[str, Any]) -> str:
    memory_bytes = part.get("memory_bytes")
    if not memory_bytes:
        return DASH
    return format_number(memory_bytes / 1e9, "GB")


def setting_facts(results: Results) -> list[Fact]:
    """Every setting by its dotted key, its value as ``--set`` takes it."""
    facts = []
    for section, settings in results.metrics["config"].items():
        for key, value in settings.items():
            text = value if isinstance(value, str) else json.dumps(value)
            facts.append(Fact(f"{section}.{key}", text))
    return facts
