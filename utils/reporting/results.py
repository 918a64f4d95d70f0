"""The results files, read and checked: metrics always, the diagnosis of step 03 where it has run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from utils.core.artifacts import METRICS_SCHEMA, ResultFiles, read_json
from utils.core.errors import UserError

STEP_02 = "python scripts/02_baseline_inference.py"
STEP_03 = "python scripts/03_detailed_profiling.py"
STEP_03_MISSING = f"step 03 has not run; run it with the same --config: {STEP_03}"
DIAGNOSIS_KEYS = {"batch_sizes", "wins", "main_bottleneck"}
OPERATOR_NUMBERS = ("self_device_ms", "self_host_ms", "share_pct", "attainable_ms", "calls")
KERNEL_NUMBERS = ("calls", "time_ms", "mean_us", "share_pct")
LAYER_NUMBERS = ("calls", "time_ms", "self_time_ms", "share_pct", "layer_index")

Row = Mapping[str, Any]
"""One row of ``batch_size_profiling``, under the contract's column names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """The rows of one sample, by batch size."""

    sample_size: int
    rows: tuple[Row, ...]
    mfu_source: str | None = None
    """Where the rows' ``mfu`` comes from, where it is not the metrics file's own."""

    @property
    def measured(self) -> tuple[Row, ...]:
        """The rows that did not run out of memory."""
        return tuple(row for row in self.rows if row["status"] == "ok")

    @property
    def warnings(self) -> tuple[str, ...]:
        """All rows' warnings."""
        return tuple(warning for row in self.rows for warning in row["warnings"])

    def having(self, *names: str) -> tuple[Row, ...]:
        """The measured rows that have all these figures."""
        return tuple(row for row in self.measured if all(row[name] is not None for name in names))

    def column(self, name: str) -> pd.Series[float]:
        """One figure of the rows that have it, by batch size."""
        return pd.Series({row["batch_size"]: row[name] for row in self.having(name)}, dtype=float, name=name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """All that a report is drawn from. Step 03's parts are None where it has not run."""

    files: ResultFiles
    metrics: Mapping[str, Any]
    """``baseline_metrics.json``."""
    sweeps: tuple[Sweep, ...]
    diagnosis: Mapping[str, Any] | None
    """``bottlenecks.json``."""
    operators: pd.DataFrame | None
    layers: pd.DataFrame | None
    kernels: pd.DataFrame | None
    memory: pd.DataFrame | None
    notes: tuple[str, ...]
    """What is missing or does not belong together."""

    @property
    def sweep(self) -> Sweep:
        """The sweep over the largest sample; the optimal batch size is its."""
        return max(self.sweeps, key=lambda sweep: sweep.sample_size)

    @property
    def evaluation(self) -> Mapping[str, Any]:
        """``full_dataset_metrics``."""
        return dict(self.metrics["full_dataset_metrics"])

    @property
    def on_gpu(self) -> bool:
        """Whether the model ran on a CUDA device."""
        return str(self.metrics["model_info"]["device"]).startswith("cuda")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Every warning once; those of several batch sizes say which."""
        per_row: dict[str, list[str]] = {}
        for row in self.sweep.rows:
            for warning in row["warnings"]:
                per_row.setdefault(warning, []).append(str(row["batch_size"]))
        rows = [f"batch size{'s' if len(sizes) > 1 else ''} {', '.join(sizes)}: {text}" for text, sizes in per_row.items()]
        found = self.diagnosis.get("warnings", ()) if self.diagnosis else ()
        return tuple(dict.fromkeys([*self.notes, *self.metrics["run"]["warnings"], *self.evaluation["warnings"], *rows, *found]))


def read_results(files: ResultFiles) -> Results:
    """Read what steps 02 and 03 wrote.

    Raises:
        UserError: the metrics are missing, or a file is not what its step writes.
    """
    metrics = read_json(files.metrics, made_by=STEP_02, schema=METRICS_SCHEMA)
    diagnosis = _read_diagnosis(files.bottlenecks) if files.bottlenecks.exists() else None
    return Results(
        files=files, metrics=metrics, sweeps=_split(*_with_mfu(metrics, diagnosis)), diagnosis=diagnosis,
        operators=_read_table(files.operators, ("operator", "input_shapes"), OPERATOR_NUMBERS),
        layers=_read_table(files.layers, ("module", "kind"), LAYER_NUMBERS),
        kernels=_read_table(files.kernels, ("kernel", "category"), KERNEL_NUMBERS),
        memory=_read_table(files.memory, (), ("time_ms", "allocated_mb")), notes=tuple(_notes(files, metrics, diagnosis)),
    )


def reason(name: str, warnings: Iterable[str]) -> str | None:
    """Why the figure ``name`` is null: what the first warning that names it says, or None."""
    stem = re.sub(r"(_(per_sample|mean|median|pct|w|j))+$", "", name)
    # A warning may speak of all GPU figures at once.
    names = rf"\b{re.escape(stem)}|^GPU figures" if re.search("gpu|energy", name) else rf"\b{re.escape(stem)}"
    warning = next((warning for warning in warnings if re.search(names, warning)), None)
    return warning.split(": ", 1)[-1] if warning else None


def _with_mfu(metrics: Mapping[str, Any], diagnosis: Mapping[str, Any] | None) -> tuple[Sequence[Row], str | None]:
    """The rows with the share of the matrix ceiling that step 03 has measured for this device and precision; and the ceiling."""
    rows: Sequence[Row] = metrics["batch_size_profiling"]
    rate = (diagnosis or {}).get("ceilings", {}).get("matmul_flops_per_s")
    measured = {**metrics["model_info"], "matmul_precision": metrics["config"]["model"]["matmul_precision"]}
    alike = all(measured[name] == (diagnosis or {}).get(name) for name in ("device", "dtype", "matmul_precision"))
    if not rate or not alike:
        return rows, None
    joined = [
        row if row["mfu"] is not None or row["achieved_tflops"] is None else {
            **row, "mfu": 1e12 * row["achieved_tflops"] / rate,
            "warnings": [warning for warning in row["warnings"] if not warning.startswith("mfu:")],
        } for row in rows
    ]
    return joined, f"MFU: TFLOP/s, padding counted as work, over the {rate / 1e12:.3g} TFLOP/s of the ceilings in bottlenecks.json"


def _split(rows: Sequence[Row], mfu_source: str | None) -> tuple[Sweep, ...]:
    """One sweep for each sample; samples of one size stay apart."""
    groups: list[list[Row]] = []
    for row in rows:
        same = groups and groups[-1][0]["sample_size"] == row["sample_size"]
        if not same or row["batch_size"] in {earlier["batch_size"] for earlier in groups[-1]}:
            groups.append([])
        groups[-1].append(row)
    return tuple(
        Sweep(sample_size=group[0]["sample_size"], rows=tuple(sorted(group, key=lambda row: row["batch_size"])),
              mfu_source=mfu_source)
        for group in groups
    )


def _read_diagnosis(file: Path) -> Mapping[str, Any]:
    payload = read_json(file, made_by=STEP_03)
    missing = DIAGNOSIS_KEYS - payload.keys()
    if missing:
        raise UserError(f"{file.name} has no {', '.join(sorted(missing))}.", where=file, fix=f"make it anew: {STEP_03}")
    return payload


def _read_table(file: Path, words: tuple[str, ...], numbers: tuple[str, ...]) -> pd.DataFrame | None:
    if not file.exists():
        return None
    try:
        # Only an empty cell is absent: a label or module may be called "null" or "NA".
        kinds: Any = {**dict.fromkeys(words, str), **dict.fromkeys(numbers, float)}
        return pd.read_csv(file, usecols=list(kinds), dtype=kinds, keep_default_na=False, na_values=dict.fromkeys(numbers, [""]))
    except ValueError as error:
        raise UserError(f"{file.name} cannot be read: {error}.", where=file, fix=f"make it anew: {STEP_03}") from error


def _notes(files: ResultFiles, metrics: Mapping[str, Any], diagnosis: Mapping[str, Any] | None) -> Iterable[str]:
    missing = [file.name for file in (files.bottlenecks, files.operators, files.layers) if not file.exists()]
    if missing:
        yield f"{', '.join(missing)} not there: {STEP_03_MISSING}"
    if diagnosis is None:
        return
    for name in ("device", "dtype"):
        here, there = metrics["model_info"][name], diagnosis.get(name, metrics["model_info"][name])
        if here != there:
            yield f"{files.bottlenecks.name} was measured with {name} {there}, {files.metrics.name} with {here}: run step 03 again"
    if files.bottlenecks.stat().st_mtime < files.metrics.stat().st_mtime:
        yield f"{files.bottlenecks.name} is older than {files.metrics.name}: run step 03 again, {STEP_03}"
