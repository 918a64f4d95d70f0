"""What was run on what: the run, the model, the settings of the measurement, the machine."""

from __future__ import annotations

import json

from utils.reporting.formatting import (
    DASH,
    Fact,
    format_bool,
    format_metric,
    format_number,
    shorten,
)
from utils.reporting.results import Results
from utils.schema.baseline import BaselineMetrics, SweepMeasurement
from utils.schema.run import CpuInfo, GitState, GpuInfo, ModelInfo


def model_title(model_info: ModelInfo, width: int | None = None) -> str:
    """How a report names its model: an adapter with its base, so that adapters are distinguished.

    Args:
        width: the most characters of each name; None shortens nothing.
    """
    base = model_info.name
    adapter = model_info.adapter
    if width is not None:
        base = shorten(base, width)
    if not adapter:
        return base
    if width is not None:
        adapter = shorten(adapter, width)
    # Files of earlier versions have no ``adapter_mode``; their adapters were always merged.
    if model_info.adapter_mode == "unmerged":
        return f"{adapter}, run unmerged on {base}"
    return f"{adapter}, merged into {base}"


def run_facts(results: Results) -> list[Fact]:
    """All that the values of another run have to be compared with."""
    run = results.metrics.run
    return [
        *_run(results.metrics),
        *_model(results),
        *_measurement(results.metrics),
        *_machine(results.metrics),
        Fact("Config SHA-256", run.config_sha256, is_verbatim=True),
        Fact("Data SHA-256", run.data_sha256, is_verbatim=True),
    ]


def _run(metrics: BaselineMetrics) -> list[Fact]:
    run = metrics.run
    duration = format_number(run.duration_s, "s")
    return [
        Fact("Run", run.id),
        Fact("Measured", f"{run.started_at} to {run.finished_at} ({duration})"),
        Fact("Command", run.command, is_verbatim=True),
        Fact("Commit", _commit(metrics.environment.git)),
    ]


def _commit(git: GitState) -> str:
    if not git.commit:
        return "not recorded: not a git checkout"
    if git.dirty:
        return f"{git.commit} with uncommitted changes"
    return git.commit


def _model(results: Results) -> list[Fact]:
    model = results.metrics.model_info
    matmul_precision = results.metrics.environment.torch.matmul_precision
    precision = (
        f"{model.dtype}, matmul precision {matmul_precision or DASH}, "
        f"attention {model.attn_implementation or DASH}"
    )
    return [
        Fact("Model", _model_text(model)),
        Fact("Precision", precision),
        Fact("Load time", _load_time(model)),
        Fact("First inference", _first_inference(results)),
    ]


def _model_text(model: ModelInfo) -> str:
    weights = f"{model.weights} weights"
    if model.weights_format:
        weights += f" from {model.weights_format}"
    details = [
        model.model_type,
        f"{format_number(model.total_params)} parameters "
        f"({format_number(model.trainable_params)} trainable)",
        format_number(model.total_size_mb, "MB"),
        weights,
        f"revision {model.revision or 'none'}",
    ]
    return f"{model_title(model)} ({', '.join(details)})"


def _load_time(model: ModelInfo) -> str:
    parts = []
    rest_s = model.load_time_s
    for name, seconds in model.load_times.items():
        if name != "total_s":
            part = name.removesuffix("_s").replace("_", " ")
            parts.append(f"{part} {format_number(seconds, 's')}")
            rest_s -= seconds
    if parts:
        # Reading the configuration, and texts alone and in a batch.
        parts.append(f"checks {format_number(max(0.0, rest_s), 's')}")
    return f"{format_number(model.load_time_s, 's')} ({', '.join(parts) or 'parts unknown'})"


def _first_inference(results: Results) -> str:
    text = f"{format_number(results.metrics.first_inference_ms, 'ms')}, cold"
    if results.batch1_p50_ms is not None:
        steady = format_number(results.batch1_p50_ms, "ms")
        text += f"; {steady} in the steady state (p50 at batch size 1)"
    return text


def _measurement(metrics: BaselineMetrics) -> list[Fact]:
    data = metrics.dataset_info
    profiling = metrics.config["profiling"]
    num_rounds = sum(len(sample.order) for sample in metrics.measurement.rounds)
    return [
        Fact(
            "Data set",
            f"{data.name} ({format_number(data.num_rows)} rows, {data.num_labels} labels)",
        ),
        Fact(
            "Sweep",
            f"{profiling['num_measurement_runs']} runs after {profiling['num_warmup_runs']} "
            f"of warm-up, texts truncated to {profiling['max_length']} tokens, "
            f"seed {metrics.run.seed}",
        ),
        Fact("Order", f"{num_rounds} rounds in which batch sizes took turns"),
    ]


def _machine(metrics: BaselineMetrics) -> list[Fact]:
    machine = metrics.environment
    versions = []
    for name, version in machine.libraries.items():
        if version:
            versions.append(f"{name} {version}")
    return [
        Fact("Device", metrics.model_info.device),
        Fact("GPU at rest", _gpu_at_rest(metrics.measurement)),
        Fact("GPU", _gpu_text(machine.gpu)),
        Fact("CPU", _cpu_text(machine.cpu, machine.torch.num_threads)),
        Fact("System", f"{machine.platform}, Python {machine.python}"),
        Fact("Libraries", ", ".join(versions)),
    ]


def _gpu_at_rest(measurement: SweepMeasurement) -> str:
    power = format_metric(measurement, "idle_gpu_power_w", "W")
    return f"{power}; another process on it: {format_bool(measurement.gpu_shared)}"


def _gpu_text(gpu: GpuInfo | None) -> str:
    if gpu is None:
        return "none used"
    return f"{gpu.name} ({_gigabytes(gpu.memory_bytes)}, driver {gpu.driver or DASH})"


def _cpu_text(cpu: CpuInfo, num_threads: int | None) -> str:
    return (
        f"{cpu.name} ({cpu.usable_cores or DASH} usable cores, "
        f"{num_threads or DASH} torch threads, {_gigabytes(cpu.memory_bytes)})"
    )


def _gigabytes(num_bytes: int | None) -> str:
    return DASH if num_bytes is None else format_number(num_bytes / 1e9, "GB")


def setting_facts(results: Results) -> list[Fact]:
    """Every setting by its dotted key, its value as ``--set`` takes it."""
    facts = []
    for section, settings in results.metrics.config.items():
        for key, value in settings.items():
            text = value if isinstance(value, str) else json.dumps(value)
            facts.append(Fact(f"{section}.{key}", text))
    return facts
