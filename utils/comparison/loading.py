"""The results of both sides, read and checked: each run is a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from utils.core.errors import UserError, reason_of
from utils.core.files import JsonObject
from utils.core.paths import find_in_working_directory, project_path, tried_places
from utils.core.result_files import ResultFiles
from utils.pipeline.lock import lock_owner
from utils.schema.baseline import BASELINE_VERSION, STEP_02, BaselineMetrics, load_baseline_metrics
from utils.schema.batch_size import SweepRow
from utils.schema.diagnosis import DIAGNOSIS_VERSION, Diagnosis, load_diagnosis
from utils.schema.evaluation import EvaluationMetrics
from utils.schema.trace_tables import TraceTables, read_trace_tables
from utils.schema.warning_codes import WarningCode

METRICS_NAME = "baseline_metrics.json"
REQUIRED_KEYS = ("schema_version", "run", "model_info", "batch_size_profiling")
NAME_RESULTS = f"name a results folder, or the {METRICS_NAME} in it"

RowKey = tuple[int, int]
"""Sample size and batch size of a row of the sweep."""
Loaded = TypeVar("Loaded", BaselineMetrics, Diagnosis)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResults:
    """The results of one run.

    Args:
        file: its metrics file.
        diagnosis: ``bottlenecks.json``; None where step 03 has not run.
        tables: the tables of step 03; None where there are none or they cannot be read.
        predictions: the folder of its predictions; None without one.
        warnings: what could not be read.
    """

    file: Path
    metrics: BaselineMetrics
    diagnosis: Diagnosis | None
    tables: TraceTables | None
    predictions: Path | None
    warnings: tuple[str, ...] = ()

    @property
    def evaluation(self) -> EvaluationMetrics | None:
        """The evaluation of the complete data set; None where it was left out."""
        return self.metrics.full_dataset_metrics

    @property
    def on_gpu(self) -> bool:
        """Whether the model ran on a CUDA device."""
        return self.metrics.model_info.device.startswith("cuda")

    def rows(self) -> dict[RowKey, SweepRow]:
        """The rows of the sweep; of samples of the same size the first."""
        rows: dict[RowKey, SweepRow] = {}
        for row in self.metrics.batch_size_profiling:
            rows.setdefault((row.sample_size, row.batch_size), row)
        return rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """The runs of one side, in the order in which they were given."""

    name: str
    runs: tuple[RunResults, ...]

    @property
    def first(self) -> RunResults:
        return self.runs[0]


def load_sides(baseline: Sequence[Path], candidate: Sequence[Path]) -> tuple[Side, Side]:
    """Read the runs of both sides.

    Args:
        baseline: results folders or metrics files.
        candidate: the same of the other side.

    Raises:
        UserError: something is missing, is not what this project writes, is of a later version or
            still being written, or the same run is given twice.
    """
    sides = []
    for name, paths in (("baseline", baseline), ("candidate", candidate)):
        if not paths:
            raise UserError(f"No results were given as {name}.", fix=NAME_RESULTS)
        sides.append(Side(name=name, runs=tuple(load_run(path) for path in paths)))
    _refuse_duplicates(*sides)
    return sides[0], sides[1]


def find_results(name: str) -> Path:
    """The results that a name on the command line stands for.

    Looked up from the working directory first, then from the project's root.

    Raises:
        UserError: there are none.
    """
    path = find_in_working_directory(name) or project_path(name)
    if not path.exists():
        raise UserError("There are no such results.", where=tried_places(name), fix=NAME_RESULTS)
    return path


def load_run(path: Path) -> RunResults:
    """Read the results that a folder or a metrics file stands for.

    Files beside a metrics file belong to it only where it has the name that its own settings give
    it: a copy among copies has neither diagnosis nor predictions.

    Raises:
        UserError: see ``load_sides``.
    """
    file = _metrics_file(path)
    _refuse_unfinished(file)
    metrics = _load(file, load_baseline_metrics, BASELINE_VERSION, REQUIRED_KEYS, STEP_02)
    output = metrics.config.get("output", {})
    if file.name != output.get("metrics_file", METRICS_NAME):
        return RunResults(file=file, metrics=metrics, diagnosis=None, tables=None, predictions=None)
    files = ResultFiles(
        results_dir=file.parent, metrics=file, detailed_metrics=file.with_suffix(".csv")
    )
    diagnosis = None
    if files.bottlenecks.exists():
        diagnosis = _load(
            files.bottlenecks,
            load_diagnosis,
            DIAGNOSIS_VERSION,
            ("schema_version", "batch_sizes"),
            "python scripts/03_detailed_profiling.py",
        )
    tables, warnings = _read_tables(files)
    predictions = files.predictions_dir if files.predictions_dir.is_dir() else None
    return RunResults(
        file=file,
        metrics=metrics,
        diagnosis=diagnosis,
        tables=tables,
        predictions=predictions,
        warnings=warnings,
    )


def _metrics_file(path: Path) -> Path:
    """The metrics file that a folder or file on the command line stands for."""
    if not path.exists():
        raise UserError("There are no such results.", where=path, fix=NAME_RESULTS)
    if path.is_dir():
        return path / METRICS_NAME
    return path


def _refuse_unfinished(file: Path) -> None:
    """Raise where a run is still writing, or has ended before it wrote its metrics."""
    owner = lock_owner(file.parent / ".state" / "lock")
    if owner is not None:
        raise UserError(
            f"A run is still writing to this results folder: {owner}.",
            where=file.parent,
            fix="wait until it has finished",
        )
    if not file.exists():
        raise UserError(
            f"The folder has no {file.name}: step 02 has not finished there.",
            where=file.parent,
            fix=f"make it with: {STEP_02}; a metrics file of another name can be named itself",
        )


def _load(
    file: Path,
    load: Callable[[Path], Loaded],
    newest_version: int,
    required_keys: tuple[str, ...],
    made_by: str,
) -> Loaded:
    """Read a file of any version up to ``newest_version``; refuse what this project did not write.

    Raises:
        UserError: as ``load_sides``.
    """
    payload = _read_payload(file, made_by)
    missing = [key for key in required_keys if key not in payload]
    if missing:
        raise UserError(
            f"{file.name} is not a file of this project: it has no {', '.join(missing)}.",
            where=file,
            fix=NAME_RESULTS,
        )
    version = payload["schema_version"]
    if isinstance(version, int) and version > newest_version:
        raise UserError(
            f"{file.name} was written by a later version of this project: schema_version "
            f"{version}; this one reads up to {newest_version}.",
            where=file,
            fix="compare with the version that wrote it, or a later one",
        )
    try:
        return load(file)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Of the conversion of an earlier version, where a part has another form.
        raise UserError(
            f"{file.name} is damaged: {reason_of(error)}.",
            where=file,
            fix=f"make it again: {made_by}",
        ) from error


def _read_payload(file: Path, made_by: str) -> JsonObject:
    try:
        payload = json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file.name} cannot be read: {error.strerror}.", where=file) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{file.name} is not valid JSON: {reason_of(error)}.",
            where=file,
            fix=f"copy the file again if it is a truncated copy, or make it again: {made_by}",
        ) from error
    if not isinstance(payload, dict):
        raise UserError(
            f"{file.name} is not a file of this project: it holds no object.",
            where=file,
            fix=NAME_RESULTS,
        )
    return payload


def _read_tables(files: ResultFiles) -> tuple[TraceTables | None, tuple[str, ...]]:
    """The tables of step 03, or a warning where they cannot be read: earlier versions differ."""
    try:
        tables = read_trace_tables(files)
    except (UserError, OSError) as error:
        warning = WarningCode.DIAGNOSIS.warn(f"{files.traces_dir}: {reason_of(error)}")
        return None, (warning,)
    if not (tables.operators or tables.layers or tables.kernels):
        return None, ()
    return tables, ()


def _refuse_duplicates(baseline: Side, candidate: Side) -> None:
    """Raise where a run is given twice: a run is not its own replicate."""
    for side in (baseline, candidate):
        seen: dict[str, Path] = {}
        for run in side.runs:
            run_id = run.metrics.run.id
            if run_id in seen:
                raise UserError(
                    f"The {side.name} has run {run_id} twice: a run is not its own replicate.",
                    where=f"{seen[run_id]} and {run.file}",
                    fix="give each run once; measure again for another one",
                )
            seen[run_id] = run.file
    of_baseline = {run.file.resolve() for run in baseline.runs}
    for run in candidate.runs:
        if run.file.resolve() in of_baseline:
            raise UserError(
                "The same results are given as baseline and as candidate.",
                where=run.file,
                fix="name two different results folders",
            )


def copy_warnings(baseline: Side, candidate: Side) -> list[str]:
    """A warning for each run that is on both sides as a copy."""
    of_baseline = {run.metrics.run.id for run in baseline.runs}
    warnings = []
    for run in candidate.runs:
        run_id = run.metrics.run.id
        if run_id in of_baseline:
            warnings.append(
                WarningCode.COMPARISON.warn(
                    f"run {run_id} is on both sides, as copies: they cannot differ"
                )
            )
    return warnings
