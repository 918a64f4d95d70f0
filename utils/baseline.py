"""The payload of baseline_metrics.json: assembled, checked and written, with its table."""

from __future__ import annotations

import csv
import shlex
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from utils.config_loader import Config
from utils.core import console
from utils.core.artifacts import METRICS_SCHEMA, SCHEMA_VERSION, atomic_path, fingerprint, write_json, write_text
from utils.core.environment import environment_record
from utils.core.errors import ModelError
from utils.data.labels import LabelMapping
from utils.data.prepared import PreparedData
from utils.data.reader import count_rows
from utils.evaluation.facts import comparison_facts, quality_facts
from utils.evaluation.identity import prediction_identity
from utils.gpu_timeline import GpuReadings, write_timeline
from utils.model_utils import LoadedModel, check_on_texts
from utils.profiler import InferenceProfiler
from utils.records import COLUMNS, SHARED, UNITS
from utils.sample import draw_texts
from utils.sweep import SweepSettings, SweepState, new_state, optimal_batch_size, sample_dependence

KEPT_FILE = "sweep.json"
OTHER_UNITS = {  # by unit, the figures outside the table
    "fraction": "accuracy accuracy_ci95_low accuracy_ci95_high majority_class_accuracy "
                "f1_macro f1_weighted padding_fraction label_agreement "
                "token_budget_padding_fraction dataset_order_padding_fraction compiled_padding_fraction "
                "plain_padding_fraction",
    "s": "inference_time_s busy_s compile_s duration_s load_time_s",
    "ms": "latency_per_sample_ms first_inference_ms",
    "samples/s": "throughput_samples_per_sec token_budget_samples_per_sec dataset_order_samples_per_sec "
                 "compiled_samples_per_sec plain_samples_per_sec",
    "tokens/s": "throughput_tokens_per_sec",
    "MB": "gpu_mem_used peak_gpu_mem cpu_mem_used total_size_mb",
    "%": "gpu_util idle_gpu_util_pct",
    "rows": "num_samples num_labelled num_correct num_missing_labels num_unknown_labels resumed_rows "
            "num_truncated confusion_matrix num_rows sample_size",
    "workers": "num_workers",
    "tokens": "num_tokens max_tokens_per_batch max_position_embeddings",
    "ratio": "speedup",
    "parameters": "total_params trainable_params non_trainable_params",
    "bytes": "memory_bytes",
    "W": "idle_gpu_power_w",
    "1": "time_per_token_ratio",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """What the batch-size sweep measured: a row for each sample size and batch size."""

    rows: tuple[dict[str, Any], ...]
    optimal_batch_size: dict[str, Any] | None
    """Of the largest sample."""
    first_inference_ms: float
    measurement: dict[str, Any]
    """In which order batch sizes were measured, the GPU at rest, whether figures depend on the sample."""
    warnings: tuple[str, ...]


@dataclass(kw_only=True, slots=True)
class _Kept:
    """What a sweep that is cut leaves for the next run under the same settings."""

    fingerprint: str
    first_inference_ms: float | None = None
    idle: GpuReadings = field(default_factory=GpuReadings)
    samples: list[SweepState] = field(default_factory=list)


_KEPT: TypeAdapter[_Kept] = TypeAdapter(_Kept)


def check_labels(loaded: LoadedModel, labels: LabelMapping) -> None:
    """Refuse a model that answers with another number of labels than the data set has."""
    if loaded.info.num_labels != len(labels.names):
        fix = "use a model fine-tuned on this data set, or make the mapping anew: python scripts/01_download_data.py"
        what = f"The model has {loaded.info.num_labels} labels, the data set {len(labels.names)}."
        raise ModelError(what, where=loaded.info.name, fix=fix)


def measure_sweep(loaded: LoadedModel, config: Config, data_sha256: str) -> Sweep:
    """Run the sweep on each sample size; runs that a cut run has measured under the same settings are taken over."""
    settings, file = config.profiling, config.files.state_dir / KEPT_FILE
    kept = _read_kept(file, fingerprint(
        [config.to_dict()[name] for name in ("model", "dataset", "profiling", "embedded")]
        + [prediction_identity(loaded, config, data_sha256), environment_record(loaded.info.device)]
    ))
    profiler = InferenceProfiler(
        loaded.model, loaded.tokenizer, loaded.info.device, gpu_sample_interval_ms=settings.gpu_sample_interval_ms
    )
    drawn = [draw_texts(loaded, config, size) for size in config.dataset.sample_sizes]
    samples = [list(sample.texts) for sample in drawn]
    largest = max(samples, key=len)
    warnings = (*drawn[-1].warnings, *check_on_texts(loaded, largest, settings.max_length))
    if kept.first_inference_ms is None:
        config.files.gpu_timeline.unlink(missing_ok=True)  # an earlier run's
        kept.first_inference_ms = profiler.first_inference_ms(samples[0], settings.max_length)
        kept.idle = replace(profiler.idle_readings(), samples=())
        kept.samples = [new_state(len(texts), settings.batch_sizes) for texts in samples]
        for trial in (trial for state in kept.samples for trial in state.trials if kept.idle.shared):
            trial.disturbed.append(SHARED)
    else:
        console.say("Runs that were measured before this run was cut are taken over.")
    how = SweepSettings(
        num_runs=settings.num_measurement_runs,
        **{item.name: getattr(settings, item.name) for item in fields(SweepSettings) if item.name != "num_runs"},
    )

    def after_round(_: SweepState) -> None:
        write_text(file, _KEPT.dump_json(kept).decode())
        if rows := profiler.collector.monitor.timeline():
            write_timeline(config.files.gpu_timeline, rows, append=True)

    for texts, state in zip(samples, kept.samples, strict=True):
        if len(samples) > 1:
            console.say(f"\nSample of {len(texts)} texts")
        profiler.sweep(texts, state, how, after_round=after_round)
    described = _describe(config, kept)
    return replace(described, warnings=(*warnings, *described.warnings))


def _read_kept(file: Path, key: str) -> _Kept:
    try:
        kept = _KEPT.validate_json(file.read_bytes())
    except (OSError, ValidationError):  # no run was cut here, or what it left is damaged
        return _Kept(fingerprint=key)
    return kept if kept.fingerprint == key else _Kept(fingerprint=key)


def forget_sweep(config: Config) -> None:
    """Once all is written: the next run measures again."""
    (config.files.state_dir / KEPT_FILE).unlink(missing_ok=True)


def _describe(config: Config, kept: _Kept) -> Sweep:
    records = [(state, [trial.record() for trial in state.trials]) for state in kept.samples]
    largest, its_records = max(records, key=lambda pair: pair[0].sample_size)
    asked = zip(config.dataset.sample_sizes, kept.samples, strict=True)
    dependence = sample_dependence(kept.samples)
    assert kept.first_inference_ms is not None
    return Sweep(
        rows=tuple({**record.to_dict(), "sample_size": state.sample_size} for state, rows in records for record in rows),
        optimal_batch_size=optimal_batch_size(its_records, largest),
        first_inference_ms=kept.first_inference_ms,
        measurement={
            "rounds": [{"sample_size": state.sample_size, "order": state.order} for state in kept.samples],
            "idle_gpu_power_w": kept.idle.power_w_mean, "idle_gpu_util_pct": kept.idle.util_pct_mean,
            "gpu_shared": kept.idle.shared, "sample_dependence": dependence,
        },
        warnings=(
            *(f"dataset.sample_sizes asks for {size} texts; the data set has {state.sample_size}"
              for size, state in asked if state.sample_size < size),
            *(f"batch size {row['batch_size']}: time per token differs by {abs(row['time_per_token_ratio'] - 1):.0%} between "
              f"samples of {' and '.join(map(str, row['sample_sizes']))} texts: figures depend on the sample, take a larger one"
              for row in dependence if row["depends_on_sample"]),
            *kept.idle.warnings,
        ),
    )


def evaluation_lines(
    metrics: dict[str, Any], model_info: Mapping[str, Any] | None = None, dataset_info: Mapping[str, Any] | None = None
) -> list[str]:
    """The lines of the FULL DATASET EVALUATION block; how label ids were decided only with ``dataset_info``."""
    facts = quality_facts(metrics, model_info or {}, dataset_info or {})
    return [
        f"Samples: {metrics['num_samples']:,}",
        *(f"{name}: {text}" for name, text in facts),
        f"Inference time: {metrics['inference_time_s']:,.2f} seconds",
        f"Throughput: {metrics['throughput_samples_per_sec']:,.2f} samples/sec",
        *(f"{name}: {text}" for name, text in comparison_facts(metrics)),
    ]


def assemble(
    config: Config, loaded: LoadedModel, prepared: PreparedData, sweep: Sweep, evaluation: dict[str, Any], *,
    started: float, data_sha256: str,
) -> dict[str, Any]:
    """The payload of ``baseline_metrics.json``; ``started`` is Unix time in seconds."""
    now, settings = time.time(), config.to_dict()
    return {
        "schema_version": SCHEMA_VERSION,
        "run": {
            "id": f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(started))}-{uuid.uuid4().hex[:8]}",
            "started_at": _iso(started), "finished_at": _iso(now), "duration_s": now - started,
            "command": shlex.join(["python", *sys.argv]), "seed": config.profiling.seed,
            "config_sha256": fingerprint(settings), "data_sha256": data_sha256,
            "warnings": [*sweep.warnings, *evaluation["warnings"]],
        },
        "environment": environment_record(loaded.info.device),
        "config": settings,
        "model_info": loaded.info.to_dict(),
        "dataset_info": _dataset_info(config, prepared, data_sha256),
        "batch_size_profiling": list(sweep.rows),
        "optimal_batch_size": sweep.optimal_batch_size,
        "full_dataset_metrics": evaluation,
        "first_inference_ms": sweep.first_inference_ms,
        "measurement": sweep.measurement,
        "units": {  # a column has the unit of its family, latency_total_s for latency_total_s_mean
            **{name: UNITS[family] for name in COLUMNS for family in UNITS if f"{name}_".startswith(f"{family}_")},
            **{name: unit for unit, names in OTHER_UNITS.items() for name in names.split()},
        },
    }


def _dataset_info(config: Config, prepared: PreparedData, data_sha256: str) -> dict[str, Any]:
    """What was measured on, as step 01 recorded it: the name is the one that the data was made from."""
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
        "sha256": data_sha256,
        "sample_sizes": list(config.dataset.sample_sizes),
        "label_mapping_source": info.label_mapping_source,
        "label_mapping_confidence": info.label_mapping_confidence,
        "label_mapping_note": info.label_mapping_note,
    }


def write_results(config: Config, payload: dict[str, Any]) -> None:
    """Write the metrics file and the table. The table moves into place only once the checked metrics file is there."""
    file = config.files.detailed_metrics
    with atomic_path(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows([_cell(row[column]) for column in COLUMNS] for row in payload["batch_size_profiling"])
        out.flush()
        write_json(config.files.metrics, payload, schema=METRICS_SCHEMA)


def _iso(unix_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(unix_s))


def _cell(value: Any) -> Any:
    """None is an empty cell; several warnings are one cell."""
    return "; ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value
