"""The payload of baseline_metrics.json: assembled, checked and written, with its table."""

from __future__ import annotations

import csv
import shlex
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from utils.config_loader import Config
from utils.core import console
from utils.core.artifacts import METRICS_SCHEMA, SCHEMA_VERSION, atomic_path, fingerprint, read_json, write_json
from utils.core.environment import environment_record
from utils.core.errors import ModelError, UserError
from utils.data.labels import LabelMapping
from utils.data.reader import count_rows, sample_texts
from utils.evaluation.facts import comparison_facts
from utils.metrics import COLUMNS, UNITS, BatchSizeRecord
from utils.model_utils import LoadedModel
from utils.profiler import InferenceProfiler, optimal_batch_size

TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%z"
EVALUATION_UNITS = {
    "accuracy": "fraction", "accuracy_ci95_low": "fraction", "accuracy_ci95_high": "fraction", "f1_macro": "fraction",
    "f1_weighted": "fraction", "inference_time_s": "s", "latency_per_sample_ms": "ms", "padding_fraction": "fraction",
    "throughput_samples_per_sec": "samples/s", "throughput_tokens_per_sec": "tokens/s", "gpu_mem_used": "MB",
    "peak_gpu_mem": "MB", "cpu_mem_used": "MB", "gpu_util": "%", "num_samples": "rows", "num_labelled": "rows",
    "num_correct": "rows", "num_missing_labels": "rows", "num_unknown_labels": "rows", "resumed_rows": "rows",
    "num_workers": "workers", "busy_s": "s",
    "num_truncated": "rows", "num_tokens": "tokens", "max_tokens_per_batch": "tokens", "speedup": "ratio",
    "label_agreement": "fraction", "compile_s": "s", "confusion_matrix": "rows",
    **{f"{way}_samples_per_sec": "samples/s" for way in ("token_budget", "dataset_order", "compiled", "plain")},
    **{f"{way}_padding_fraction": "fraction" for way in ("token_budget", "dataset_order", "compiled", "plain")},
}
OTHER_UNITS = {
    "duration_s": "s", "total_params": "parameters", "trainable_params": "parameters", "total_size_mb": "MB",
    "non_trainable_params": "parameters", "load_time_s": "s", "first_inference_ms": "ms", "num_rows": "rows",
    "sample_size": "rows", "memory_bytes": "bytes", "max_position_embeddings": "tokens",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """What the batch-size sweep measured: a row for each sample size and batch size."""

    rows: tuple[dict[str, Any], ...]
    optimal_batch_size: dict[str, Any] | None
    """Of the largest sample."""
    first_inference_ms: float | None
    warnings: tuple[str, ...]


def check_labels(loaded: LoadedModel, labels: LabelMapping) -> None:
    """Refuse a model that answers with another number of labels than the data set has."""
    if loaded.info.num_labels != len(labels.names):
        raise ModelError(
            f"The model has {loaded.info.num_labels} labels, the data set {len(labels.names)}.",
            where=loaded.info.name,
            fix="use a model fine-tuned on this data set, or make the mapping anew: python scripts/01_download_data.py",
        )


def measure_sweep(loaded: LoadedModel, config: Config, data_sha256: str) -> Sweep:
    """Run the sweep on each sample size; one that a cut run has measured under the same settings is taken over."""
    file = config.files.state_dir / "sweep.json"
    key = fingerprint(
        [config.to_dict()[name] for name in ("model", "dataset", "profiling")]
        + [data_sha256, loaded.info.revision, environment_record(loaded.info.device)]
    )
    try:
        kept = read_json(file, made_by="python scripts/02_baseline_inference.py")
    except UserError:  # no run was cut here
        kept = {}
    if kept.get("fingerprint") == key:
        console.say("Measured before this run was cut; taken over.")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in kept["sweep"].items()}
        return Sweep(**values)
    sweep = _measure(loaded, config)
    write_json(file, {"fingerprint": key, "sweep": {name: getattr(sweep, name) for name in Sweep.__slots__}})
    return sweep


def forget_sweep(config: Config) -> None:
    """Once all is written: the next run measures again."""
    (config.files.state_dir / "sweep.json").unlink(missing_ok=True)


def _measure(loaded: LoadedModel, config: Config) -> Sweep:
    settings = config.profiling
    profiler = InferenceProfiler(
        loaded.model, loaded.tokenizer, loaded.info.device, gpu_sample_interval_ms=settings.gpu_sample_interval_ms
    )
    rows: list[dict[str, Any]] = []
    warnings: list[str] = []
    largest: tuple[int, tuple[BatchSizeRecord, ...]] = (0, ())
    first_ms = None
    for size in config.dataset.sample_sizes:
        texts = sample_texts(config.data_file, size, settings.seed)
        if len(texts) < size:
            warnings.append(f"dataset.sample_sizes asks for {size} texts; the data set has {len(texts)}")
        if first_ms is None:
            first_ms = profiler.first_inference_ms(texts, settings.max_length)
        if len(config.dataset.sample_sizes) > 1:
            console.say(f"\nSample of {len(texts)} texts")
        records = profiler.profile_multiple_batch_sizes(
            texts, settings.batch_sizes, num_runs=settings.num_measurement_runs, max_length=settings.max_length,
            num_warmup_runs=settings.num_warmup_runs, seed=settings.seed,
        )
        rows += [{**record.to_dict(), "sample_size": len(texts)} for record in records]
        largest = max(largest, (len(texts), records), key=lambda pair: pair[0])
    best = optimal_batch_size(largest[1])
    return Sweep(rows=tuple(rows), optimal_batch_size=best, first_inference_ms=first_ms, warnings=tuple(warnings))


def evaluation_lines(metrics: dict[str, Any]) -> list[str]:
    """The lines of the FULL DATASET EVALUATION block."""

    def quality(name: str) -> str:
        if metrics[name] is not None:
            return f"{metrics[name]:.4f}"
        return "not measured (dummy weights)" if metrics["num_labelled"] is None else "not measured (no labels)"

    return [
        f"Samples: {metrics['num_samples']:,}",
        f"Accuracy: {quality('accuracy')}",
        f"F1-Score (Macro): {quality('f1_macro')}",
        f"F1-Score (Weighted): {quality('f1_weighted')}",
        f"Inference time: {metrics['inference_time_s']:,.2f} seconds",
        f"Throughput: {metrics['throughput_samples_per_sec']:,.2f} samples/sec",
        *(f"{name}: {text}" for name, text in comparison_facts(metrics)),
    ]


def assemble(
    config: Config, loaded: LoadedModel, labels: LabelMapping, sweep: Sweep, evaluation: dict[str, Any], *,
    started: float, data_sha256: str,
) -> dict[str, Any]:
    """The payload of ``baseline_metrics.json``; ``started`` is Unix time in seconds."""
    now, settings = time.time(), config.to_dict()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(started))
    return {
        "schema_version": SCHEMA_VERSION,
        "run": {
            "id": f"{stamp}-{uuid.uuid4().hex[:8]}",
            "started_at": time.strftime(TIME_FORMAT, time.localtime(started)),
            "finished_at": time.strftime(TIME_FORMAT, time.localtime(now)),
            "duration_s": now - started,
            "command": shlex.join(["python", *sys.argv]),
            "seed": config.profiling.seed,
            "config_sha256": fingerprint(settings),
            "data_sha256": data_sha256,
            "warnings": [*sweep.warnings, *evaluation["warnings"]],
        },
        "environment": environment_record(loaded.info.device),
        "config": settings,
        "model_info": loaded.info.to_dict(),
        "dataset_info": {
            "name": config.dataset.hf_name,
            "revision": config.dataset.revision,
            "path": config.dataset.local_path,
            "num_rows": count_rows(config.data_file),
            "num_labels": len(labels.names),
            "label_names": list(labels.names),
            "sha256": data_sha256,
            "sample_sizes": list(config.dataset.sample_sizes),
            "label_mapping_source": _mapping_source(loaded, labels),
        },
        "batch_size_profiling": list(sweep.rows),
        "optimal_batch_size": sweep.optimal_batch_size,
        "full_dataset_metrics": evaluation,
        "first_inference_ms": sweep.first_inference_ms,
        "units": {**_column_units(), **EVALUATION_UNITS, **OTHER_UNITS},
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


def _column_units() -> dict[str, str]:
    """A column has the unit of its family, ``latency_total_s`` for ``latency_total_s_mean``."""
    return {name: UNITS[family] for name in COLUMNS for family in UNITS if f"{name}_".startswith(f"{family}_")}


def _cell(value: Any) -> Any:
    """None is an empty cell; several warnings are one cell."""
    return "; ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _mapping_source(loaded: LoadedModel, labels: LabelMapping) -> str:
    """``model`` where the ids are the model's own, else ``sorted``: by name."""
    own = {str(name): int(number) for name, number in (loaded.model.config.label2id or {}).items()}
    return "model" if own == {name: i for i, name in enumerate(labels.names)} else "sorted"
