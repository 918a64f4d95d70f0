"""The results files, read and checked: metrics always, the diagnosis of step 03 where it has run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from utils.core.errors import UserError
from utils.core.files import METRICS_SCHEMA, read_json
from utils.core.result_files import ResultFiles
from utils.schema.diagnosis_versions import convert_diagnosis

STEP_02 = "python scripts/02_baseline_inference.py"
STEP_03 = "python scripts/03_detailed_profiling.py"
STEP_03_MISSING = f"step 03 has not run; run it with the same --config: {STEP_03}"
DIAGNOSIS_KEYS = {"batch_sizes", "suggestions", "main_bottleneck"}
# Of step 03's tables, the columns that are shown: words, then numbers.
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "operators": (
        ("operator", "input_shapes"),
        ("self_device_ms", "self_host_ms", "share_pct", "attainable_ms", "calls"),
    ),
    "layers": (
        ("module", "kind"),
        ("calls", "time_ms", "self_time_ms", "share_pct", "layer_index"),
    ),
    "kernels": (("kernel", "category"), ("calls", "time_ms", "mean_us", "share_pct")),
    "memory": ((), ("time_ms", "allocated_mb")),
}

Row = Mapping[str, Any]
"""One row of ``batch_size_profiling``, under the contract's column names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """The rows of one sample, by batch size; ``mfu_source`` where ``mfu`` is not the metrics file's own."""

    sample_size: int
    rows: tuple[Row, ...]
    mfu_source: str | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """All rows' warnings."""
        return tuple(warning for row in self.rows for warning in row["warnings"])

    @property
    def measured(self) -> tuple[Row, ...]:
        """The rows that did not run out of memory."""
        return self.having()

    def having(self, *names: str) -> tuple[Row, ...]:
        """The measured rows that have all these figures."""
        return tuple(
            row
            for row in self.rows
            if row["status"] == "ok" and all(row[name] is not None for name in names)
        )

    def column(self, name: str) -> pd.Series[float]:
        """One figure of the rows that have it, by batch size."""
        return pd.Series(
            {row["batch_size"]: row[name] for row in self.having(name)}, dtype=float, name=name
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """All that a report is drawn from: ``baseline_metrics.json``, and ``bottlenecks.json`` as ``diagnosis``.

    Step 03's parts are None where it has not run; ``notes`` say what is missing or does not belong together.
    """

    files: ResultFiles
    metrics: Mapping[str, Any]
    sweeps: tuple[Sweep, ...]
    diagnosis: Mapping[str, Any] | None
    operators: pd.DataFrame | None
    layers: pd.DataFrame | None
    kernels: pd.DataFrame | None
    memory: pd.DataFrame | None
    notes: tuple[str, ...]

    @property
    def sweep(self) -> Sweep:
        """The sweep over the largest sample; the optimal batch size is its."""
        return max(self.sweeps, key=lambda sweep: sweep.sample_size)

    @property
    def evaluation(self) -> dict[str, Any]:
        """``full_dataset_metrics``."""
        return dict(self.metrics["full_dataset_metrics"])

    @property
    def on_gpu(self) -> bool:
        """Whether the model ran on a CUDA device."""
        return str(self.metrics["model_info"]["device"]).startswith("cuda")

    @property
    def steady_ms(self) -> float | None:
        """Milliseconds of a text alone in the steady state: p50 at batch size 1; None where that was not measured."""
        rows = self.sweep.having("latency_per_batch_ms_median")
        return next(
            (row["latency_per_batch_ms_median"] for row in rows if row["batch_size"] == 1), None
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Every warning once; those of several batch sizes say which."""
        per_row: dict[str, list[str]] = {}
        for row in self.sweep.rows:
            for warning in row["warnings"]:
                per_row.setdefault(warning, []).append(str(row["batch_size"]))
        rows = [
            f"batch size{'s' if len(sizes) > 1 else ''} {', '.join(sizes)}: {text}"
            for text, sizes in per_row.items()
        ]
        found = self.diagnosis.get("warnings", ()) if self.diagnosis else ()
        return tuple(
            dict.fromkeys(
                [
                    *self.notes,
                    *self.metrics["run"]["warnings"],
                    *self.evaluation["warnings"],
                    *rows,
                    *found,
                ]
            )
        )


def read_results(files: ResultFiles) -> Results:
    """Read what steps 02 and 03 wrote.

    Raises:
        UserError: the metrics are missing, or a file is not what its step writes.
    """
    metrics = read_json(files.metrics, made_by=STEP_02, schema=METRICS_SCHEMA)
    diagnosis = None
    if files.bottlenecks.exists():
        diagnosis = convert_diagnosis(read_json(files.bottlenecks, made_by=STEP_03))
    if diagnosis is not None and not diagnosis.keys() >= DIAGNOSIS_KEYS:
        missing = ", ".join(sorted(DIAGNOSIS_KEYS - diagnosis.keys()))
        raise UserError(
            f"{files.bottlenecks.name} has no {missing}.",
            where=files.bottlenecks,
            fix=f"make it anew: {STEP_03}",
        )
    frames = {name: _read_table(getattr(files, name), *columns) for name, columns in TABLES.items()}
    layers = frames["layers"]
    if layers is not None:
        # Where the profiler sees no kernels of a GPU, modules have no times.
        frames["layers"] = layers.dropna(subset="self_time_ms")
    return Results(
        files=files,
        metrics=metrics,
        sweeps=_sweeps(metrics, diagnosis or {}),
        diagnosis=diagnosis,
        notes=tuple(_notes(files, metrics, diagnosis)),
        **frames,
    )


def _sweeps(metrics: Mapping[str, Any], diagnosis: Mapping[str, Any]) -> tuple[Sweep, ...]:
    """One sweep for each sample; samples of one size stay apart: the second one's rows name their batch size again."""
    rate = _matrix_rate(metrics, diagnosis)
    ceiling = rate and f"{rate / 1e12:.3g} TFLOP/s of the ceilings in bottlenecks.json"
    source = ceiling and f"MFU: TFLOP/s, padding counted as work, over the {ceiling}"
    seen: Counter[tuple[int, int]] = Counter()
    groups: dict[tuple[int, int], list[Row]] = {}
    for row in metrics["batch_size_profiling"]:
        place = row["sample_size"], row["batch_size"]
        groups.setdefault((row["sample_size"], seen[place]), []).append(_with_mfu(row, rate))
        seen[place] += 1
    return tuple(
        Sweep(
            sample_size=size,
            rows=tuple(sorted(rows, key=lambda row: row["batch_size"])),
            mfu_source=source,
        )
        for (size, _), rows in groups.items()
    )


def _matrix_rate(metrics: Mapping[str, Any], diagnosis: Mapping[str, Any]) -> Any:
    """FLOP/s of the matrix ceiling that step 03 has measured, if for this device and precision; else None."""
    here = {
        **metrics["model_info"],
        "matmul_precision": metrics["config"]["model"]["matmul_precision"],
    }
    alike = all(
        here[name] == diagnosis.get(name) for name in ("device", "dtype", "matmul_precision")
    )
    return diagnosis.get("ceilings", {}).get("matmul_flops_per_s") if alike else None


def _with_mfu(row: Row, rate: Any) -> Row:
    if not rate or row["mfu"] is not None or row["achieved_tflops"] is None:
        return row
    warnings = [warning for warning in row["warnings"] if not warning.startswith("mfu:")]
    return {**row, "mfu": 1e12 * row["achieved_tflops"] / rate, "warnings": warnings}


def _read_table(
    file: Path, words: tuple[str, ...], numbers: tuple[str, ...]
) -> pd.DataFrame | None:
    if not file.exists():
        return None
    try:
        # Only an empty cell is absent: a label or module may be called "null" or "NA".
        kinds: Any = {**dict.fromkeys(words, str), **dict.fromkeys(numbers, float)}
        return pd.read_csv(
            file,
            usecols=list(kinds),
            dtype=kinds,
            keep_default_na=False,
            na_values=dict.fromkeys(numbers, [""]),
        )
    except ValueError as error:
        raise UserError(
            f"{file.name} cannot be read: {error}.", where=file, fix=f"make it anew: {STEP_03}"
        ) from error


def _notes(
    files: ResultFiles, metrics: Mapping[str, Any], diagnosis: Mapping[str, Any] | None
) -> Iterable[str]:
    missing = [
        file.name
        for file in (files.bottlenecks, files.operators, files.layers)
        if not file.exists()
    ]
    if missing:
        yield f"{', '.join(missing)} not there: {STEP_03_MISSING}"
    if diagnosis is None:
        return
    for name in ("device", "dtype"):
        here, there = metrics["model_info"][name], diagnosis.get(name)
        if there not in (here, None):
            yield f"{files.bottlenecks.name} was measured with {name} {there}, {files.metrics.name} with {here}: run step 03 again"
    if files.bottlenecks.stat().st_mtime < files.metrics.stat().st_mtime:
        yield f"{files.bottlenecks.name} is older than {files.metrics.name}: run step 03 again, {STEP_03}"
