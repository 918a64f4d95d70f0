"""The report's tables: what each cell says, for the text and the page alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from utils.evaluation.facts import comparison_facts
from utils.reporting.answers import accuracy
from utils.reporting.figures import DASH, interval, number, percent, spread, unmeasured, yes_no
from utils.reporting.results import Results, Row, Sweep

TOP = 15
"""Operators or modules shown."""

PHASES = {
    "tokenize_ms_mean": "tokenise", "host_to_device_ms_mean": "host to device",
    "forward_ms_mean": "forward", "device_to_host_ms_mean": "device to host",
}
EXTRA_COLUMNS = {
    "latency_per_batch_ms_p90": "p90 (ms/batch)", "latency_per_batch_ms_p95": "p95 (ms/batch)",
    "latency_per_batch_ms_p99": "p99 (ms/batch)", "latency_per_batch_ms_mad": "MAD (ms/batch)",
    "throughput_tokens_per_sec_mean": "tokens/s", "latency_per_token_ms_mean": "ms/token",
    "forward_launch_ms_mean": "forward, host (ms)", "forward_device_ms_mean": "forward, device (ms)",
    "gpu_mem_used": "GPU memory change (MB)", "peak_gpu_mem": "GPU peak (MB)", "activations_mem": "activations (MB)",
    "gpu_mem_device": "whole GPU (MB)", "gpu_mem_other": "outside PyTorch (MB)", "cpu_mem_used": "CPU resident (MB)",
    "cpu_mem_peak": "CPU peak (MB)", "gpu_util_pct_mean": "GPU util (%)", "gpu_power_w_mean": "GPU power (W)",
    "energy_per_sample_j": "energy (J/sample)", "gpu_sm_clock_mhz_mean": "SM clock (MHz)", "gpu_temperature_c_max": "hottest (°C)",
    "tokens_per_batch_mean": "tokens/batch", "padding_tokens_per_batch_mean": "padding/batch", "num_truncated": "texts cut",
    "achieved_tflops": "TFLOP/s", "mfu": "MFU", "cpu_wait_fraction": "CPU wait", "cv": "CV",
}


STATUSES = {"ok": "ok", "oom": "out of memory", "not_tried": "not tried", "wrong_outputs": "wrong answers"}


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
    empty = [name for name in EXTRA_COLUMNS if full and name not in extra]
    header = ("Batch", "Status", "ms/sample", "p50 (ms/batch)", "samples/s", "95% interval", "Padding", "Stable")
    return Table(
        caption=f"Batch sizes over a sample of {number(sweep.sample_size)} texts; mean ± standard deviation of the runs",
        header=(*header, *(EXTRA_COLUMNS[name] for name in extra)),
        rows=tuple((*_batch_cells(row), *(number(row[name]) for name in extra)) for row in sweep.rows),
        words=2,
        note="; ".join(filter(None, (
            _grouped({EXTRA_COLUMNS[name]: unmeasured(name, sweep.warnings) for name in empty}),
            sweep.mfu_source if "mfu" in extra else None,
        ))),
    )


def _grouped(reasons: Mapping[str, str]) -> str:
    """Names that share a reason, together."""
    return "; ".join(
        f"{', '.join(name for name in reasons if reasons[name] == why)}: {why}" for why in dict.fromkeys(reasons.values())
    )


def _batch_cells(row: Row) -> tuple[str, ...]:
    speed = "throughput_samples_per_sec"
    return (
        str(row["batch_size"]), STATUSES[row["status"]],
        spread(row["latency_per_sample_ms_mean"], row["latency_per_sample_ms_std"]),
        number(row["latency_per_batch_ms_median"]), number(row[f"{speed}_mean"]),
        interval(row[f"{speed}_ci95_low"], row[f"{speed}_ci95_high"]), percent(row["padding_fraction"]),
        yes_no(row["stable"]) if row["status"] == "ok" else DASH,
    )


def run_facts(results: Results) -> list[tuple[str, str]]:
    """What was run on what: all that another run's figures need to be held against these."""
    metrics, settings = results.metrics, results.metrics["config"]
    run, model, data, machine = (metrics[key] for key in ("run", "model_info", "dataset_info", "environment"))
    torch, cpu, gpu = machine["torch"], machine["cpu"], machine["gpu"]
    return [
        ("Run", run["id"]),
        ("Measured", f"{run['started_at']} to {run['finished_at']} ({number(float(run['duration_s']), 's')})"),
        ("Command", run["command"]),
        ("Commit", _commit(machine["git"])),
        ("Model", f"{model['name']} ({model['model_type']}, {number(model['total_params'])} parameters, "
                  f"{number(model['total_size_mb'], 'MB')}, {model['weights']} weights, "
                  f"revision {model['revision'] or 'none'})"),
        ("Precision", f"{model['dtype']}, matmul precision {torch.get('matmul_precision', DASH)}, "
                      f"attention {model['attn_implementation'] or DASH}"),
        ("Load time", f"{number(float(model['load_time_s']), 's')} ({_load_parts(model['load_times'])})"),
        ("First inference", _cold(results)),
        ("Data set", f"{data['name']} ({number(data['num_rows'])} rows, {data['num_labels']} labels, "
                     f"label ids from: {data['label_mapping_source'] or 'unknown'})"),
        ("Sweep", f"{settings['profiling']['num_measurement_runs']} runs after {settings['profiling']['num_warmup_runs']} "
                  f"of warm-up, texts cut at {settings['profiling']['max_length']} tokens, seed {run['seed']}"),
        ("Order", f"{sum(len(one['order']) for one in metrics['measurement']['rounds'])} rounds in which batch sizes took turns"),
        ("Device", model["device"]),
        ("GPU at rest", _idle(metrics["measurement"])),
        ("GPU", f"{gpu.get('name')} ({_gigabytes(gpu)}, driver {gpu.get('driver') or DASH})" if gpu else "none used"),
        ("CPU", f"{cpu.get('name')} ({cpu.get('usable_cores') or DASH} usable cores, {torch.get('num_threads', DASH)} torch "
                f"threads, {_gigabytes(cpu)})"),
        ("System", f"{machine['platform']}, Python {machine['python']}"),
        ("Libraries", ", ".join(f"{name} {version}" for name, version in machine["libraries"].items() if version)),
        ("Config SHA-256", run["config_sha256"]),
        ("Data SHA-256", run["data_sha256"]),
    ]


def _load_parts(times: Mapping[str, float]) -> str:
    parts = {name.removesuffix("_s").replace("_", " "): seconds for name, seconds in times.items() if name != "total_s"}
    return ", ".join(f"{name} {number(float(seconds), 's')}" for name, seconds in parts.items()) or "parts unknown"


def _cold(results: Results) -> str:
    """The process's very first text, beside one in the steady state."""
    cold = number(results.metrics["first_inference_ms"], "ms")
    steady = next((row["latency_per_batch_ms_median"] for row in results.sweep.measured if row["batch_size"] == 1), None)
    return f"{cold}, cold" + (f"; {number(steady, 'ms')} in the steady state (p50 at batch size 1)" if steady else "")


def _idle(measurement: Mapping[str, Any]) -> str:
    power, shared = measurement["idle_gpu_power_w"], measurement["gpu_shared"]
    return f"{number(power, 'W', missing='not measured')}; another process on it: {yes_no(shared)}"


def sample_table(results: Results) -> Table | None:
    """Whether figures depend on the sample; None for a single sample."""
    rows = results.metrics["measurement"]["sample_dependence"]
    return rows and Table(
        caption="Time per real token of the larger sample over the smaller's: what is left depends on how texts fall into batches",
        header=("Batch", "Samples", "Ratio", "95% interval", "Depends on the sample"),
        rows=tuple(
            (str(row["batch_size"]), " and ".join(map(str, row["sample_sizes"])), number(row["time_per_token_ratio"]),
             interval(row["ci95_low"], row["ci95_high"]), yes_no(row["depends_on_sample"]))
            for row in rows
        ),
        words=2,
    )


def _commit(git: Mapping[str, Any]) -> str:
    dirty = " with uncommitted changes" if git.get("dirty") else ""
    return f"{git['commit']}{dirty}" if git.get("commit") else "not recorded: not a git checkout"


def _gigabytes(part: Mapping[str, Any]) -> str:
    return number(part.get("memory_bytes") and part["memory_bytes"] / 1e9, "GB")


def full_facts(results: Results) -> list[tuple[str, str]]:
    """Quality and speed on the whole data set."""
    whole = results.evaluation
    limit = whole["max_tokens_per_batch"]
    batching = f"{whole['batching']}{f', at most {number(limit)} tokens a batch' if limit else ''}"

    def quality(name: str) -> str:
        return "not measured" if whole[name] is None else f"{whole[name]:.4f}"

    return [
        ("Samples", number(whole["num_samples"])),
        ("Batching", batching),
        ("Accuracy", accuracy(results)),
        ("F1 (macro)", quality("f1_macro")),
        ("F1 (weighted)", quality("f1_weighted")),
        ("Inference time", number(float(whole["inference_time_s"]), "s")),
        ("Latency", number(float(whole["latency_per_sample_ms"]), "ms/sample")),
        ("Throughput", f"{number(float(whole['throughput_samples_per_sec']), 'samples/s')}, "
                       f"{number(float(whole['throughput_tokens_per_sec']), 'tokens/s')}"),
        ("Tokens", f"{number(whole['num_tokens'])}; texts cut at max_length: {number(whole['num_truncated'])}"),
        ("Rows taken over", f"{number(whole['resumed_rows'])} from an earlier, interrupted run"),
    ]


def memory_facts(results: Results) -> list[tuple[str, str]]:
    """Memory and utilisation on the whole data set, and the model's own size."""
    whole = results.evaluation
    why = None if results.on_gpu else "the model ran on the CPU"

    def said(name: str, unit: str) -> str:
        return number(whole[name], unit, missing=unmeasured(name, whole["warnings"], why))

    return [
        ("Model weights", number(float(results.metrics["model_info"]["total_size_mb"]), "MB")),
        ("GPU memory used", said("gpu_mem_used", "MB")),
        ("GPU memory peak", said("peak_gpu_mem", "MB")),
        ("GPU utilisation", said("gpu_util", "%")),
        ("CPU resident", said("cpu_mem_used", "MB")),
    ]


def padding_facts(results: Results) -> list[tuple[str, str]]:
    """Tokens computed that no text asked for."""
    shares = [(row["padding_fraction"], row["batch_size"]) for row in results.sweep.having("padding_fraction")]
    facts = [("Whole data set", f"{percent(results.evaluation['padding_fraction'])} of the tokens computed")]
    facts += comparison_facts(results.evaluation)
    if shares:
        (low, first), (high, last) = min(shares), max(shares)
        facts.append(("Batch-size sweep", f"{percent(low)} (batch size {first}) to {percent(high)} (batch size {last})"))
    return facts


def wins(diagnosis: Mapping[str, Any] | None) -> list[str]:
    """The largest wins, each with its cause and what to try. They overlap: they do not add up."""
    return [
        f"{win['title']}: up to {number(win['win_ms'], 'ms')} ({number(win['win_pct'])}%) of a batch{_predicted(win)}; "
        f"{win.get('cause') or DASH}: {win.get('evidence') or DASH}. Try: {win.get('try') or DASH}"
        f"{f' (--set {setting})' if (setting := win.get('setting')) else ' (no setting of ours)'}"
        for win in (diagnosis or {}).get("wins", ())
    ]


def _predicted(win: Mapping[str, Any]) -> str:
    times = win.get("predicted_speedup")
    return "" if times is None else f", {'at most ' if win.get('prediction') == 'at most' else ''}{times:.2f} times as fast"


def verified_lines(diagnosis: Mapping[str, Any] | None) -> list[str]:
    """What trying the suggestions showed, each alone; none where they were not tried."""
    tried = [(win, win.get("verified")) for name in ("wins", "further_wins") for win in (diagnosis or {}).get(name, ())]
    return [f"{win['title']} ({win['setting'] or 'no setting'}): {_outcome(win, said)}" for win, said in tried if said]


def _outcome(win: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    if said["reason"]:
        return f"not tried: {said['reason']}"
    low, high = said["ci95"]
    return (
        f"predicted {'at most ' if win['prediction'] == 'at most' else ''}{said['predicted_speedup']:.2f} times as fast, "
        f"measured {said['measured_speedup']:.2f} (95% interval {low:.2f} to {high:.2f}, {said['rounds']} rounds of "
        f"{number(said['num_texts'])} texts); {said['label_agreement']:.2%} of the labels equal"
    )


def verdict_table(diagnosis: Mapping[str, Any]) -> Table:
    """The verdict for each batch size."""
    return Table(
        caption="Verdict by batch size, with its reason",
        header=("Batch", "Verdict", "Confidence", "Why", "Measured (ms)", "Floor (ms)", "Padding"),
        rows=tuple(
            (str(item["batch_size"]), item["verdict"], item.get("confidence", DASH), item.get("sentence", ""),
             number(item.get("measured_ms")), number(item.get("floor_ms")), percent(item.get("padding_fraction")))
            for item in diagnosis["batch_sizes"]
        ),
        words=4,
        note=f"Confidence is {rule}; else low." if (rule := diagnosis.get("confidence_rule")) else "",
    )


def per_class_table(results: Results) -> Table:
    """Quality by label."""
    return Table(
        caption="Quality by label",
        header=("Label", "Precision", "Recall", "F1", "Rows"),
        rows=tuple(
            (row["label"], *(DASH if row[key] is None else f"{row[key]:.4f}" for key in ("precision", "recall", "f1")),
             number(row["support"]))
            for row in results.evaluation["per_class"]
        ),
    )


def time_column(frame: pd.DataFrame) -> str:
    """The operators' own time where it was spent: on the device, or on the host where nothing ran on a device."""
    return "self_device_ms" if frame["self_device_ms"].fillna(0).gt(0).any() else "self_host_ms"


def operators_table(frame: pd.DataFrame) -> Table:
    """The operators that take the most time themselves."""
    column = time_column(frame)
    return top_table(frame, column, f"The {TOP} operators with the most {column}, per batch of the traced run", {
        "operator": "Operator", "input_shapes": "Input shapes", "calls": "Calls", column: "Own time (ms)",
        "attainable_ms": "At the ceilings (ms)", "share_pct": "Share (%)",
    })


def layers_table(frame: pd.DataFrame) -> Table:
    """The modules that take the most time themselves."""
    return top_table(frame, "self_time_ms", f"The {TOP} modules with the most time of their own, per forward", {
        "module": "Module", "kind": "Kind", "calls": "Calls", "self_time_ms": "Own time (ms)",
        "time_ms": "With children (ms)", "share_pct": "Share (%)",
    })


def top_table(frame: pd.DataFrame, by: str, caption: str, columns: dict[str, str]) -> Table:
    top = frame.sort_values(by, ascending=False, kind="stable").head(TOP)
    rows = zip(*(top[name] for name in columns), strict=True)
    cells = tuple(tuple(cell if isinstance(cell, str) else number(float(cell)) for cell in row) for row in rows)
    return Table(caption=caption, header=tuple(columns.values()), rows=cells, words=2)


def setting_facts(results: Results) -> list[tuple[str, str]]:
    """Every setting by its dotted key."""
    sections = results.metrics["config"].items()
    return [(f"{name}.{key}", "null" if value is None else str(value)) for name, keys in sections for key, value in keys.items()]


def files_facts(results: Results) -> list[tuple[str, str]]:
    """Where everything lies, relative to the folder that the report is in; only what is there."""
    files = results.files
    listed = (
        (files.metrics, "everything that a later week compares against"), (files.detailed_metrics, "one row a batch size"),
        (files.html_report, "this report with pictures, for a browser"), (files.plots_dir, "the pictures"),
        (files.predictions_dir, "a prediction for every row"), (files.bottlenecks, "the verdict with its evidence"),
        (files.ceilings, "what the machine reaches at best, and which machine it is"),
        (files.operators, "time by operator"), (files.layers, "time and memory by module"),
        (files.kernels, "time by kernel of the GPU"), (files.memory, "memory over time"),
        (files.gpu_timeline, "every reading of the GPU, with its time"),
        (files.trace, "the timeline: open it in ui.perfetto.dev"), (files.stacks, "call stacks"),
        (files.flame_graph, "the flame graph of the call stacks"),
    )
    always = (files.html_report, files.plots_dir)  # written by the step that writes this
    return [(path.relative_to(files.results_dir).as_posix(), what) for path, what in listed if path in always or path.exists()]
