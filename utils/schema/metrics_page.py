"""The tables of ``docs/METRICS.md``: every metric and column with its unit and meaning."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from utils.schema.baseline import (
    BaselineMetrics,
    SampleDependence,
    SweepMeasurement,
    SweepRounds,
)
from utils.schema.batch_size import BatchSizeRow, OptimalBatchSize, SweepRow
from utils.schema.catalog import FieldEntry, entries_of
from utils.schema.common import Record
from utils.schema.evaluation import (
    BatchingComparison,
    ClassMetrics,
    CompileComparison,
    EvaluationMetrics,
    WorkerMetrics,
)
from utils.schema.markdown import table
from utils.schema.run import (
    CpuInfo,
    DatasetInfo,
    Environment,
    GitState,
    GpuInfo,
    ModelInfo,
    RunInfo,
    TorchSettings,
)

HEADER = ("Name", "Unit", "Null", "Meaning")


@dataclass(frozen=True, kw_only=True, slots=True)
class PageSection:
    """One table: the fields of a record, apart from those of the record that it extends."""

    title: str
    record: type[Record]
    extends: type[Record] | None = None


SECTIONS = (
    PageSection(title="`detailed_metrics.csv`", record=BatchSizeRow),
    PageSection(title="`batch_size_profiling`", record=SweepRow, extends=BatchSizeRow),
    PageSection(title="`optimal_batch_size`", record=OptimalBatchSize),
    PageSection(title="`full_dataset_metrics`", record=EvaluationMetrics),
    PageSection(title="`full_dataset_metrics.per_class`", record=ClassMetrics),
    PageSection(title="`full_dataset_metrics.workers`", record=WorkerMetrics),
    PageSection(title="`full_dataset_metrics.batching_comparison`", record=BatchingComparison),
    PageSection(title="`full_dataset_metrics.compile_comparison`", record=CompileComparison),
    PageSection(title="`measurement`", record=SweepMeasurement),
    PageSection(title="`measurement.rounds`", record=SweepRounds),
    PageSection(title="`measurement.sample_dependence`", record=SampleDependence),
    PageSection(title="`baseline_metrics.json`", record=BaselineMetrics),
    PageSection(title="`run`", record=RunInfo),
    PageSection(title="`model_info`", record=ModelInfo),
    PageSection(title="`dataset_info`", record=DatasetInfo),
    PageSection(title="`environment`", record=Environment),
    PageSection(title="`environment.cpu`", record=CpuInfo),
    PageSection(title="`environment.gpu`", record=GpuInfo),
    PageSection(title="`environment.torch`", record=TorchSettings),
    PageSection(title="`environment.git`", record=GitState),
)
"""Every record of ``baseline_metrics.json`` has its place here."""


def metrics_tables() -> list[str]:
    """The lines of the generated part of ``docs/METRICS.md``."""
    lines: list[str] = []
    for section in SECTIONS:
        summary = (section.record.__doc__ or "").strip().splitlines()[0]
        lines += [f"## {section.title}", "", summary, ""]
        if section.extends is not None:
            lines += [f"It has the fields of {_title_of(section.extends)} and:", ""]
        lines += [*table(HEADER, _rows(_own_entries(section))), ""]
    return lines


def _own_entries(section: PageSection) -> list[FieldEntry]:
    entries = entries_of(section.record)
    if section.extends is None:
        return entries
    inherited = section.extends.model_fields
    return [entry for entry in entries if entry.name not in inherited]


def _title_of(record: type[Record]) -> str:
    for section in SECTIONS:
        if section.record is record:
            return section.title
    raise AssertionError(f"{record.__name__} is not on the page")


def _rows(entries: Iterable[FieldEntry]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for entry in entries:
        may_be_null = "yes" if entry.may_be_null else ""
        rows.append((f"`{entry.name}`", entry.unit or "", may_be_null, entry.description))
    return rows
