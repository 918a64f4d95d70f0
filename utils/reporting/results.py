"""The result files, read and checked: the metrics always, the diagnosis where step 03 has run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from utils.core.files import JsonObject
from utils.core.result_files import ResultFiles
from utils.reporting.commands import STEP_03, STEP_03_MISSING
from utils.reporting.sweeps import Sweep, group_sweeps
from utils.schema.baseline import BASELINE_VERSION, BaselineMetrics, load_baseline_metrics
from utils.schema.diagnosis import DIAGNOSIS_VERSION, Diagnosis, load_diagnosis
from utils.schema.evaluation import EvaluationMetrics
from utils.schema.trace_tables import TraceTables, read_trace_tables
from utils.schema.warning_codes import WarningCode

REPORT_SECTIONS = ("cost", "targets")
"""Sections of the settings that only the report reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """All that a report is drawn from.

    Args:
        metrics: ``baseline_metrics.json``.
        diagnosis: ``bottlenecks.json``; None where step 03 has not run.
        notes: which files are missing or do not belong together.
    """

    files: ResultFiles
    metrics: BaselineMetrics
    sweeps: tuple[Sweep, ...]
    diagnosis: Diagnosis | None
    tables: TraceTables
    notes: tuple[str, ...]

    @property
    def sweep(self) -> Sweep:
        """The sweep over the largest sample, which the optimal batch size is chosen from."""
        return max(self.sweeps, key=lambda sweep: sweep.sample_size)

    @property
    def evaluation(self) -> EvaluationMetrics | None:
        """The evaluation of the complete data set; None where it was left out."""
        return self.metrics.full_dataset_metrics

    @property
    def on_gpu(self) -> bool:
        """Whether the model ran on a CUDA device."""
        return self.metrics.model_info.device.startswith("cuda")

    @property
    def batch1_p50_ms(self) -> float | None:
        """The median latency of one text alone; None where batch size 1 was not measured."""
        return self.sweep.values("latency_per_batch_ms_median").get(1)


def read_results(files: ResultFiles) -> Results:
    """Read what steps 02 and 03 wrote.

    Raises:
        UserError: the metrics are missing, or a file is not what its step writes.
    """
    metrics = load_baseline_metrics(files.metrics)
    diagnosis = load_diagnosis(files.bottlenecks) if files.bottlenecks.exists() else None
    peak_flops_per_s = _peak_matmul_flops_per_s(metrics, diagnosis)
    return Results(
        files=files,
        metrics=metrics,
        sweeps=group_sweeps(metrics.batch_size_profiling, peak_flops_per_s),
        diagnosis=diagnosis,
        tables=read_trace_tables(files),
        notes=(
            *_missing_files(files),
            *_later_versions(files, metrics, diagnosis),
            *_mismatches(files, metrics, diagnosis),
        ),
    )


def with_report_settings(results: Results, settings: Mapping[str, JsonObject]) -> Results:
    """The results with the price and the targets of the present settings.

    They change no measurement, so the report takes them from now, not from the run.

    Args:
        settings: the sections of the settings by name.
    """
    config = dict(results.metrics.config)
    for section in REPORT_SECTIONS:
        config[section] = settings[section]
    metrics = results.metrics.model_copy(update={"config": config})
    return replace(results, metrics=metrics)


def _peak_matmul_flops_per_s(metrics: BaselineMetrics, diagnosis: Diagnosis | None) -> float | None:
    """The fastest matrix product that step 03 has measured, if on this device and precision."""
    if diagnosis is None:
        return None
    model = metrics.model_info
    expected = (model.device, model.dtype, metrics.config["model"].get("matmul_precision"))
    if expected != (diagnosis.device, diagnosis.dtype, diagnosis.matmul_precision):
        return None
    return diagnosis.ceilings.matmul_flops_per_s


def _missing_files(files: ResultFiles) -> list[str]:
    written_by_step_03 = (files.bottlenecks, files.operators, files.layers)
    missing = [file.name for file in written_by_step_03 if not file.exists()]
    if not missing:
        return []
    return [WarningCode.DIAGNOSIS.warn(f"missing {', '.join(missing)}: {STEP_03_MISSING}")]


def _later_versions(
    files: ResultFiles, metrics: BaselineMetrics, diagnosis: Diagnosis | None
) -> list[str]:
    """Which files are of a format that this program does not know."""
    versions = [(files.metrics.name, metrics.schema_version, BASELINE_VERSION)]
    if diagnosis is not None:
        versions.append((files.bottlenecks.name, diagnosis.schema_version, DIAGNOSIS_VERSION))
    notes = []
    for name, version, known in versions:
        if version > known:
            notes.append(
                WarningCode.VERSION.warn(
                    f"{name} has schema version {version}, this program knows {known}: values may "
                    "have another meaning"
                )
            )
    return notes


def _mismatches(
    files: ResultFiles, metrics: BaselineMetrics, diagnosis: Diagnosis | None
) -> list[str]:
    """What shows that the metrics and the diagnosis are of different runs."""
    if diagnosis is None:
        return []
    metrics_name = files.metrics.name
    diagnosis_name = files.bottlenecks.name
    notes = []
    for name in ("device", "dtype"):
        expected = getattr(metrics.model_info, name)
        actual = getattr(diagnosis, name)
        if actual != expected:
            notes.append(
                WarningCode.DIAGNOSIS.warn(
                    f"{diagnosis_name} was measured with {name} {actual}, "
                    f"{metrics_name} with {expected}: run step 03 again"
                )
            )
    if files.bottlenecks.stat().st_mtime < files.metrics.stat().st_mtime:
        notes.append(
            WarningCode.DIAGNOSIS.warn(
                f"{diagnosis_name} is older than {metrics_name}: run step 03 again, {STEP_03}"
            )
        )
    return notes
