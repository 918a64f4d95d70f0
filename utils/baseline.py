"""The content of baseline_metrics.json and its table: measured, assembled and written."""

from __future__ import annotations

import csv
import shlex
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from utils.config_loader import Config
from utils.core.errors import ModelError
from utils.core.files import (
    METRICS_SCHEMA,
    SCHEMA_VERSION,
    atomic_path,
    fingerprint,
    write_json,
    write_text,
)
from utils.data.labels import LabelMapping
from utils.data.prepared import PreparedData
from utils.data.reader import count_rows
from utils.evaluation.identity import prediction_identity
from utils.model_utils import LoadedModel, check_on_texts
from utils.pipeline import console
from utils.profiler import InferenceProfiler
from utils.sweep.records import COLUMNS, UNITS
from utils.sweep.run_summary import SHARED
from utils.sweep.sample import draw_texts
from utils.sweep.schedule import (
    SweepSettings,
    SweepState,
    new_state,
    optimal_batch_size,
    sample_dependence,
)
from utils.system.environment import environment_record
from utils.system.gpu_timeline import GpuReadings, write_timeline

CHECKPOINT_FILE = "sweep.json"
SWEEP_SECTIONS = ("model", "dataset", "profiling", "embedded")
"""Sections of the settings that decide whether a checkpoint of the sweep can be resumed."""
OTHER_UNITS = {
    "fraction": (
        "accuracy accuracy_ci95_low accuracy_ci95_high majority_class_accuracy "
        "f1_macro f1_weighted padding_fraction label_agreement "
        "token_budget_padding_fraction dataset_order_padding_fraction compiled_padding_fraction "
        "plain_padding_fraction"
    ),
    "s": "inference_time_s busy_s compile_s duration_s load_time_s",
    "ms": "latency_per_sample_ms first_inference_ms",
    "samples/s": (
        "throughput_samples_per_sec token_budget_samples_per_sec dataset_order_samples_per_sec "
        "compiled_samples_per_sec plain_samples_per_sec"
    ),
    "tokens/s": "throughput_tokens_per_sec",
    "MB": "gpu_mem_used peak_gpu_mem cpu_mem_used total_size_mb",
    "%": "gpu_util idle_gpu_util_pct",
    "rows": (
        "num_samples num_labelled num_correct num_missing_labels num_unknown_labels resumed_rows "
        "num_truncated confusion_matrix num_rows sample_size"
    ),
    "workers": "num_workers",
    "tokens": "num_tokens max_tokens_per_batch max_position_embeddings",
    "ratio": "speedup",
    "parameters": "total_params trainable_params non_trainable_params",
    "bytes": "memory_bytes",
    "W": "idle_gpu_power_w",
    "1": "time_per_token_ratio",
}
"""Metrics outside the table, by their unit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """What the batch-size sweep measured.

    Args:
        rows: one for each sample size and batch size.
        optimal_batch_size: of the largest sample.
        measurement: the order in which batch sizes were measured, the GPU at rest, and whether
            metrics depend on the sample.
    """

    rows: tuple[dict[str, Any], ...]
    optimal_batch_size: dict[str, Any] | None
    first_inference_ms: float
    measurement: dict[str, Any]
    warnings: tuple[str, ...]


@dataclass(kw_only=True, slots=True)
class SweepCheckpoint:
    """What an interrupted sweep leaves for the next run under the same settings."""

    fingerprint: str
    first_inference_ms: float | None = None
    idle: GpuReadings = field(default_factory=GpuReadings)
    samples: list[SweepState] = field(default_factory=list)


_CHECKPOINT_ADAPTER: TypeAdapter[SweepCheckpoint] = TypeAdapter(SweepCheckpoint)


def check_labels(loaded: LoadedModel, labels: LabelMapping) -> None:
    """Refuse a model with another number of labels than the data set has."""
    if loaded.info.num_labels == len(labels.names):
        return
    raise ModelError(
        f"The model has {loaded.info.num_labels} labels, the data set {len(labels.names)}.",
        where=loaded.info.name,
        fix=(
            "use a model fine-tuned on this data set, or make the mapping again: "
            "python scripts/01_download_data.py"
        ),
    )


def measure_sweep(loaded: LoadedModel, config: Config, data_sha256: str) -> Sweep:
    """Run the sweep on each sample size.

    Runs that an interrupted run has measured under the same settings are reused.
    """
    settings = config.profiling
    checkpoint = load_checkpoint(config, _sweep_fingerprint(loaded, config, data_sha256))
    profiler = InferenceProfiler(
        loaded.model,
        loaded.tokenizer,
        loaded.info.device,
        gpu_sample_interval_ms=settings.gpu_sample_interval_ms,
    )
    drawn = [draw_texts(loaded, config, size) for size in config.dataset.sample_sizes]
    samples = [list(sample.texts) for sample in drawn]
    largest = max(samples, key=len)
    warnings = (*drawn[-1].warnings, *check_on_texts(loaded, largest, settings.max_length))
    if checkpoint.first_inference_ms is None:
        _start_checkpoint(checkpoint, profiler, samples, config)
    else:
        console.print_line("Runs that an interrupted run has measured are reused.")
    after_round = _checkpoint_writer(checkpoint, profiler, config)
    for texts, state in zip(samples, checkpoint.samples, strict=True):
        if len(samples) > 1:
            console.print_line(f"\nSample of {len(texts)} texts")
        profiler.sweep(texts, state, _sweep_settings(config), after_round=after_round)
    sweep = _to_sweep_result(config, checkpoint)
    return replace(sweep, warnings=(*warnings, *sweep.warnings))


def _sweep_settings(config: Config) -> SweepSettings:
    values: dict[str, Any] = {"num_runs": config.profiling.num_measurement_runs}
    for item in fields(SweepSettings):
        if item.name != "num_runs":
            values[item.name] = getattr(config.profiling, item.name)
    return SweepSettings(**values)


def _sweep_fingerprint(loaded: LoadedModel, config: Config, data_sha256: str) -> str:
    """Identity of everything that decides what the sweep measures."""
    settings = config.to_dict()
    parts = [settings[name] for name in SWEEP_SECTIONS]
    parts.append(prediction_identity(loaded, config, data_sha256))
    parts.append(environment_record(loaded.info.device))
    return fingerprint(parts)


def _start_checkpoint(
    checkpoint: SweepCheckpoint,
    profiler: InferenceProfiler,
    samples: Sequence[list[str]],
    config: Config,
) -> None:
    """Measure what comes before the first run: the cold model and the GPU at rest."""
    settings = config.profiling
    # An earlier run's timeline is not continued.
    config.files.gpu_timeline.unlink(missing_ok=True)
    checkpoint.first_inference_ms = profiler.first_inference_ms(samples[0], settings.max_length)
    checkpoint.idle = replace(profiler.idle_readings(), samples=())
    checkpoint.samples = [new_state(len(texts), settings.batch_sizes) for texts in samples]
    if checkpoint.idle.shared:
        for state in checkpoint.samples:
            for trial in state.trials:
                trial.interference.append(SHARED)


def _checkpoint_writer(
    checkpoint: SweepCheckpoint, profiler: InferenceProfiler, config: Config
) -> Callable[[SweepState], None]:
    """The function that saves the checkpoint and the GPU's readings after each round."""
    file = _checkpoint_file(config)

    def after_round(_: SweepState) -> None:
        write_text(file, _CHECKPOINT_ADAPTER.dump_json(checkpoint).decode())
        rows = profiler.collector.monitor.timeline()
        if rows:
            write_timeline(config.files.gpu_timeline, rows, append=True)

    return after_round


def _checkpoint_file(config: Config) -> Path:
    return config.files.state_dir / CHECKPOINT_FILE


def load_checkpoint(config: Config, key: str) -> SweepCheckpoint:
    """The checkpoint of an interrupted sweep with this fingerprint, otherwise an empty one."""
    empty = SweepCheckpoint(fingerprint=key)
    try:
        checkpoint = _CHECKPOINT_ADAPTER.validate_json(_checkpoint_file(config).read_bytes())
    except (OSError, ValidationError):
        # No run was interrupted here, or its checkpoint is damaged.
        return empty
    if checkpoint.fingerprint != key:
        return empty
    return checkpoint


def delete_checkpoint(config: Config) -> None:
    """Let the next run measure again; called when all results are written."""
    _checkpoint_file(config).unlink(missing_ok=True)


def _to_sweep_result(config: Config, checkpoint: SweepCheckpoint) -> Sweep:
    rows = []
    rounds = []
    for state in checkpoint.samples:
        rounds.append({"sample_size": state.sample_size, "order": state.order})
        for trial in state.trials:
            rows.append({**trial.record().to_dict(), "sample_size": state.sample_size})
    largest = max(checkpoint.samples, key=lambda state: state.sample_size)
    dependence = sample_dependence(checkpoint.samples)
    assert checkpoint.first_inference_ms is not None
    return Sweep(
        rows=tuple(rows),
        optimal_batch_size=optimal_batch_size(
            [trial.record() for trial in largest.trials], largest
        ),
        first_inference_ms=checkpoint.first_inference_ms,
        measurement={
            "rounds": rounds,
            "idle_gpu_power_w": checkpoint.idle.power_w_mean,
            "idle_gpu_util_pct": checkpoint.idle.util_pct_mean,
            "gpu_shared": checkpoint.idle.shared,
            "sample_dependence": dependence,
        },
        warnings=(
            *_sample_size_warnings(config, checkpoint.samples),
            *_dependence_warnings(dependence),
            *checkpoint.idle.warnings,
        ),
    )


def _sample_size_warnings(config: Config, states: Sequence[SweepState]) -> list[str]:
    warnings = []
    for size, state in zip(config.dataset.sample_sizes, states, strict=True):
        if state.sample_size < size:
            warnings.append(
                f"dataset.sample_sizes asks for {size} texts; the data set has {state.sample_size}"
            )
    return warnings


def _dependence_warnings(dependence: Sequence[Mapping[str, Any]]) -> list[str]:
    warnings = []
    for row in dependence:
        if not row["depends_on_sample"]:
            continue
        difference = abs(row["time_per_token_ratio"] - 1)
        sizes = " and ".join(map(str, row["sample_sizes"]))
        warnings.append(
            f"batch size {row['batch_size']}: time per token differs by {difference:.0%} between "
            f"samples of {sizes} texts: metrics depend on the sample, take a larger one"
        )
    return warnings


def build_metrics(
    config: Config,
    loaded: LoadedModel,
    prepared: PreparedData,
    sweep: Sweep,
    evaluation: dict[str, Any],
    *,
    started: float,
) -> dict[str, Any]:
    """The content of ``baseline_metrics.json``; ``started`` is Unix time in seconds."""
    finished = time.time()
    run_name = time.strftime("%Y%m%d-%H%M%S", time.localtime(started))
    settings = config.to_dict()
    run = {
        "id": f"{run_name}-{uuid.uuid4().hex[:8]}",
        "started_at": _iso(started),
        "finished_at": _iso(finished),
        "duration_s": finished - started,
        "command": shlex.join(["python", *sys.argv]),
        "seed": config.profiling.seed,
        "config_sha256": fingerprint(settings),
        "data_sha256": prepared.info.sha256,
        "warnings": [*sweep.warnings, *evaluation["warnings"]],
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "run": run,
        "environment": environment_record(loaded.info.device),
        "config": settings,
        "model_info": loaded.info.to_dict(),
        "dataset_info": _dataset_info(config, prepared),
        "batch_size_profiling": list(sweep.rows),
        "optimal_batch_size": sweep.optimal_batch_size,
        "full_dataset_metrics": evaluation,
        "first_inference_ms": sweep.first_inference_ms,
        "measurement": sweep.measurement,
        "units": _units(),
    }


def _units() -> dict[str, str]:
    """Unit of every metric; ``latency_total_s_mean`` has that of ``latency_total_s``."""
    units = {}
    for column in COLUMNS:
        for name, unit in UNITS.items():
            if f"{column}_".startswith(f"{name}_"):
                units[column] = unit
    for unit, names in OTHER_UNITS.items():
        for name in names.split():
            units[name] = unit
    return units


def _dataset_info(config: Config, prepared: PreparedData) -> dict[str, Any]:
    """The data set as step 01 recorded it, by the name that it was made from."""
    info = prepared.info
    return {
        "name": info.name,
        "revision": info.revision,
        "config": info.settings.get("dataset.config"),
        "split": info.split,
        "path": config.dataset.local_path or str(config.data_file),
        "num_rows": count_rows(config.data_file),
        "num_labels": len(prepared.mapping.names),
        "label_names": list(prepared.mapping.names),
        "sha256": info.sha256,
        "sample_sizes": list(config.dataset.sample_sizes),
        "label_mapping_source": info.label_mapping_source,
        "label_mapping_confidence": info.label_mapping_confidence,
        "label_mapping_note": info.label_mapping_note,
    }


def write_results(config: Config, payload: dict[str, Any]) -> None:
    """Write the metrics file and the table.

    The table moves into place only once the checked metrics file is there.
    """
    file = config.files.detailed_metrics
    with (
        atomic_path(file) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as out,
    ):
        table = csv.writer(out, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in payload["batch_size_profiling"]:
            table.writerow([_cell(row[column]) for column in COLUMNS])
        out.flush()
        write_json(config.files.metrics, payload, schema=METRICS_SCHEMA)


def _iso(unix_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(unix_s))


def _cell(value: Any) -> Any:
    """The value as a cell: several warnings are one cell, and None is an empty one."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(map(str, value))
    return value
