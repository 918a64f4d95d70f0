"""The report's name-and-value pairs, for the text and the page alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from utils.reporting.answers import accuracy
from utils.reporting.evaluation_facts import (
    GUESSED,
    MULTI_LABEL,
    comparison_facts,
    label_mapping_confidence,
    label_mapping_text,
)
from utils.reporting.formatting import (
    DASH,
    not_measured,
    number,
    percent,
    shorten,
    unmeasured,
    yes_no,
)
from utils.reporting.results import Results

FILES = {
    "metrics": "everything that a later week compares against",
    "detailed_metrics": "one row a batch size",
    "html_report": "this report with pictures, for a browser",
    "plots_dir": "the pictures",
    "predictions_dir": "a prediction for every row",
    "bottlenecks": "the verdict with its evidence",
    "ceilings": "what the machine reaches at best, and which machine it is",
    "operators": "time by operator",
    "layers": "time and memory by module",
    "kernels": "time by kernel of the GPU",
    "memory": "memory over time",
    "gpu_timeline": "every reading of the GPU, with its time",
    "trace": "the timeline: open it in ui.perfetto.dev",
    "stacks": "call stacks",
    "flame_graph": "the flame graph of the call stacks",
}

Facts = list[tuple[str, str]]


def model_title(model_info: Mapping[str, Any], width: int | None = None) -> str:
    """How a report names its model: an adapter with the base that it changes, so that two adapters cannot be confused.

    Args:
        model_info: the section of ``baseline_metrics.json``. Files of earlier versions have no ``adapter_mode``; there
            adapters were always merged.
        width: the most characters of each name; None shortens nothing.
    """
    base = str(model_info["name"])
    adapter = model_info.get("adapter")
    if width is not None:
        base = shorten(base, width)
        adapter = adapter and shorten(str(adapter), width)
    if not adapter:
        return base
    unmerged = model_info.get("adapter_mode") == "unmerged"
    return f"{adapter}, {'run unmerged on' if unmerged else 'merged into'} {base}"


def _model(model: Mapping[str, Any]) -> str:
    details = [
        model["model_type"],
        f"{number(model['total_params'])} parameters",
        number(model["total_size_mb"], "MB"),
        f"{model['weights']} weights"
        + (f" from {model['weights_format']}" if model.get("weights_format") else ""),
        f"revision {model['revision'] or 'none'}",
    ]
    return f"{model_title(model)} ({', '.join(details)})"


def run_facts(results: Results) -> Facts:
    """What was run on what: all that another run's figures need to be held against these."""
    metrics, profiling = results.metrics, results.metrics["config"]["profiling"]
    run, model, data, machine, measured = (
        metrics[key] for key in ("run", "model_info", "dataset_info", "environment", "measurement")
    )
    torch, cpu, gpu, git = (machine[key] for key in ("torch", "cpu", "gpu", "git"))
    load = {
        name.removesuffix("_s").replace("_", " "): number(s, "s")
        for name, s in model["load_times"].items()
    }
    parts = (
        ", ".join(f"{name} {seconds}" for name, seconds in load.items() if name != "total")
        or "parts unknown"
    )
    steady = (
        results.steady_ms
        and f"; {number(results.steady_ms, 'ms')} in the steady state (p50 at batch size 1)"
    )
    dirty = " with uncommitted changes" if git.get("dirty") else ""
    idle = number(measured["idle_gpu_power_w"], "W", missing=not_measured())
    return [
        ("Run", run["id"]),
        (
            "Measured",
            f"{run['started_at']} to {run['finished_at']} ({number(run['duration_s'], 's')})",
        ),
        ("Command", run["command"]),
        (
            "Commit",
            f"{git['commit']}{dirty}" if git.get("commit") else "not recorded: not a git checkout",
        ),
        ("Model", _model(model)),
        (
            "Precision",
            f"{model['dtype']}, matmul precision {torch.get('matmul_precision', DASH)}, "
            f"attention {model['attn_implementation'] or DASH}",
        ),
        ("Load time", f"{number(model['load_time_s'], 's')} ({parts})"),
        ("First inference", f"{number(metrics['first_inference_ms'], 'ms')}, cold{steady or ''}"),
        (
            "Data set",
            f"{data['name']} ({number(data['num_rows'])} rows, {data['num_labels']} labels)",
        ),
        (
            "Sweep",
            f"{profiling['num_measurement_runs']} runs after {profiling['num_warmup_runs']} "
            f"of warm-up, texts cut at {profiling['max_length']} tokens, seed {run['seed']}",
        ),
        (
            "Order",
            f"{sum(len(one['order']) for one in measured['rounds'])} rounds in which batch sizes took turns",
        ),
        ("Device", model["device"]),
        ("GPU at rest", f"{idle}; another process on it: {yes_no(measured['gpu_shared'])}"),
        (
            "GPU",
            f"{gpu.get('name')} ({_gigabytes(gpu)}, driver {gpu.get('driver') or DASH})"
            if gpu
            else "none used",
        ),
        (
            "CPU",
            f"{cpu.get('name')} ({cpu.get('usable_cores') or DASH} usable cores, {torch.get('num_threads', DASH)} torch "
            f"threads, {_gigabytes(cpu)})",
        ),
        ("System", f"{machine['platform']}, Python {machine['python']}"),
        (
            "Libraries",
            ", ".join(
                f"{name} {version}" for name, version in machine["libraries"].items() if version
            ),
        ),
        ("Config SHA-256", run["config_sha256"]),
        ("Data SHA-256", run["data_sha256"]),
    ]


def _gigabytes(part: Mapping[str, Any]) -> str:
    return number(part.get("memory_bytes") and part["memory_bytes"] / 1e9, "GB")


def full_facts(results: Results) -> Facts:
    """Quality and speed on the whole data set."""
    whole = results.evaluation
    limit = whole["max_tokens_per_batch"]
    f1 = {
        name: not_measured() if whole[name] is None else f"{whole[name]:.4f}"
        for name in ("f1_macro", "f1_weighted")
    }
    speeds = (
        number(whole[f"throughput_{unit}_per_sec"], f"{unit}/s") for unit in ("samples", "tokens")
    )
    return [
        ("Samples", number(whole["num_samples"])),
        (
            "Batching",
            f"{whole['batching']}{f', at most {number(limit)} tokens a batch' if limit else ''}",
        ),
        ("Accuracy", accuracy(results)),
        *_beside_the_accuracy(results),
        ("F1 (macro)", f1["f1_macro"]),
        ("F1 (weighted)", f1["f1_weighted"]),
        ("Inference time", number(whole["inference_time_s"], "s")),
        ("Latency", number(whole["latency_per_sample_ms"], "ms/sample")),
        ("Throughput", ", ".join(speeds)),
        (
            "Tokens",
            f"{number(whole['num_tokens'])}; texts cut at max_length: {number(whole['num_truncated'])}",
        ),
        ("Rows taken over", f"{number(whole['resumed_rows'])} from an earlier, interrupted run"),
    ]


def _beside_the_accuracy(results: Results) -> Facts:
    """What the accuracy has to be read with; what older files lack is left out."""
    facts = []
    label_ids = label_mapping_text(results.metrics["dataset_info"])
    if label_ids is not None:
        facts.append(("Label ids", label_ids))
    if results.metrics["model_info"].get("problem_type") == "multi_label":
        facts.append(("Prediction", MULTI_LABEL))
    return facts


def guessed_label_ids(results: Results) -> str | None:
    """A warning for the top of the page where the accuracy rests on label ids that were guessed; else None."""
    data = results.metrics["dataset_info"]
    if results.evaluation["accuracy"] is None or label_mapping_confidence(data) != GUESSED:
        return None
    details = str(label_mapping_text(data)).rstrip(".")
    return f"The accuracy may be wrong, because the model's label ids are not known. They were taken {details}."


def memory_facts(results: Results) -> Facts:
    """Memory and utilisation on the whole data set, and the model's own size."""
    whole, why = results.evaluation, None if results.on_gpu else "the model ran on the CPU"
    figures = {
        "GPU memory used": ("gpu_mem_used", "MB"),
        "GPU memory peak": ("peak_gpu_mem", "MB"),
        "GPU utilisation": ("gpu_util", "%"),
        "CPU resident": ("cpu_mem_used", "MB"),
    }
    return [("Model weights", number(results.metrics["model_info"]["total_size_mb"], "MB"))] + [
        (said, number(whole[name], unit, missing=unmeasured(name, whole["warnings"], why)))
        for said, (name, unit) in figures.items()
    ]


def padding_facts(results: Results) -> Facts:
    """Tokens computed that no text asked for."""
    whole = results.evaluation
    facts = [
        ("Whole data set", f"{percent(whole['padding_fraction'])} of the tokens computed"),
        *comparison_facts(whole),
    ]
    shares = [
        (row["padding_fraction"], row["batch_size"])
        for row in results.sweep.having("padding_fraction")
    ]
    if shares:
        ends = (
            f"{percent(share)} (batch size {size})" for share, size in (min(shares), max(shares))
        )
        facts.append(("Batch-size sweep", " to ".join(ends)))
    return facts


def kernel_facts(diagnosis: Mapping[str, Any]) -> Facts:
    """What the GPU did in the traced steps, and why it waited."""
    found = diagnosis.get("kernels")
    if not found:
        return [("Kernels", _why_not(diagnosis, "kernels"))]
    causes = _listed_ms(
        {cause.replace("_", " "): ms for cause, ms in found["idle_by_cause_ms"].items() if ms}
    )
    busy, span, idle, host, device = (
        number(found[f"{name}_ms"], "ms") for name in ("busy", "span", "idle", "launch", "kernel")
    )
    launches = (
        f"{number(found['num_launches'])} launches, {number(found['launches_per_s'])} per second"
    )
    return [
        ("Device busy", f"{busy} of {span} from the first kernel to the last"),
        (
            "Device idle, whole steps",
            f"{idle}: {causes}; median gap {number(found['median_gap_us'], 'us')}",
        ),
        ("Kernels by category", _listed_ms(found["by_category_ms"])),
        ("Launching", f"{launches}: {host} of the host, where the kernels take {device}"),
    ]


def peak_facts(diagnosis: Mapping[str, Any]) -> Facts:
    """What holds the memory's peak."""
    peak = diagnosis.get("peak_memory")
    return [("Peak", _peak(peak) if peak else _why_not(diagnosis, "peak_memory"))]


def _peak(peak: Mapping[str, Any]) -> str:
    owners = {name: peak[f"{name}_mb"] for name in ("weights", "activations", "workspace")} | {
        "libraries": peak["other_mb"]
    }
    shares = ", ".join(
        f"{name} {number(mb, 'MB')}" for name, mb in owners.items() if mb is not None
    )
    largest = "; ".join(
        f"{one['operator'] or 'outside operators'}{' in ' if one['module'] else ''}{one['module']} {number(one['size_mb'], 'MB')}"
        for one in peak["largest"][:3]
    )
    return f"{number(peak['total_mb'], 'MB')}: {shares}. The largest: {largest}"


def _listed_ms(parts: Mapping[str, float]) -> str:
    return (
        ", ".join(
            f"{name} {number(ms, 'ms')}"
            for name, ms in sorted(parts.items(), key=lambda item: -item[1])
        )
        or "none"
    )


def _why_not(diagnosis: Mapping[str, Any], name: str) -> str:
    return not_measured(diagnosis.get("unavailable", {}).get(name))


def flame_time(results: Results) -> str:
    """Whose time the flame graph shows: on CUDA the device's, unless no kernel was seen; then the operators' times are empty."""
    on_cuda = str((results.diagnosis or {}).get("device")).startswith("cuda")
    seen = results.operators is not None and results.operators["self_device_ms"].notna().any()
    return "time on the device (CUDA)" if on_cuda and seen else "time of the host (CPU)"


def setting_facts(results: Results) -> Facts:
    """Every setting by its dotted key, its value as ``--set`` takes it."""
    values = {
        f"{name}.{key}": value
        for name, keys in results.metrics["config"].items()
        for key, value in keys.items()
    }
    return [
        (key, value if isinstance(value, str) else json.dumps(value))
        for key, value in values.items()
    ]


def files_facts(results: Results) -> Facts:
    """Where everything lies, relative to the folder that the report is in; only what is there, and the page being written."""
    listed = [(getattr(results.files, name), said) for name, said in FILES.items()]
    there = [
        (path, said) for path, said in listed if path == results.files.html_report or path.exists()
    ]
    return [(path.relative_to(results.files.results_dir).as_posix(), said) for path, said in there]
