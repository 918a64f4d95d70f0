"""What is generated from the records is what is committed, and leaves nothing out."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.schema import generate
from utils.schema.baseline import BaselineMetrics
from utils.schema.batch_size import COLUMNS, BatchSizeRow, percentile_columns
from utils.schema.catalog import entries_of, record_paths, units_of
from utils.schema.common import (
    MeasuredRecord,
    Record,
    metric,
    nullable_metrics,
    text,
    walk_records,
)
from utils.schema.markdown import GENERATED, table, with_generated_part
from utils.schema.metrics_page import metrics_tables
from utils.schema.settings_page import describe_values
from utils.settings import Config
from utils.sweep.bench_stats import min_latencies

RECORDS = [record for file in generate.FILES.values() for record in walk_records(file)]


def test_generated_files_are_up_to_date() -> None:
    """If this fails: python -m utils.schema.generate."""
    assert generate.outdated_files() == []
    assert generate.main(["--check"]) == 0


def test_check_names_a_file_that_is_not_up_to_date(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(generate, "SETTINGS_PAGE", tmp_path / "SETTINGS.md")
    monkeypatch.setattr(generate, "METRICS_PAGE", tmp_path / "METRICS.md")
    monkeypatch.setattr(generate, "SCHEMA_FOLDER", tmp_path)
    assert generate.main(["--check"]) == 1
    assert "SETTINGS.md is not up to date" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


@pytest.mark.parametrize("file", generate.FILES)
def test_every_field_of_a_file_is_on_the_page(file: str) -> None:
    page = "\n".join(metrics_tables(generate.FILES))
    for record in walk_records(generate.FILES[file]):
        for entry in entries_of(record):
            assert f"| `{entry.name}` |" in page


def test_a_record_stands_under_its_path_in_the_file() -> None:
    paths = dict(record_paths(BaselineMetrics))
    assert paths["full_dataset_metrics.workers[]"].__name__ == "WorkerMetrics"
    assert paths["environment.gpu"].__name__ == "GpuInfo"
    assert set(paths.values()) == set(walk_records(BaselineMetrics))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_record_and_field_is_described_in_sentences(record: type[Record]) -> None:
    assert (record.__doc__ or "").strip()
    assert all(entry.description.endswith((".", "?")) for entry in entries_of(record))


@pytest.mark.parametrize("file", generate.FILES)
def test_a_name_has_one_unit_in_a_file(file: str) -> None:
    units = units_of(generate.FILES[file])
    assert all(units.values())


@pytest.mark.parametrize(
    "record",
    [record for record in RECORDS if issubclass(record, MeasuredRecord)],
    ids=lambda record: record.__name__,
)
def test_a_record_with_metrics_has_room_for_reasons(record: type[Record]) -> None:
    assert nullable_metrics(record)
    assert "unavailable" in record.model_fields


def test_every_column_but_words_has_a_unit() -> None:
    words = {"status", "energy_source", "stable", "warnings"}
    assert set(COLUMNS) - words == set(COLUMNS) & set(units_of(BaselineMetrics))


def test_a_percentile_column_says_how_many_batches_it_needs() -> None:
    for column, percent in percentile_columns().items():
        description = BatchSizeRow.model_fields[column].description or ""
        assert f"{percent}th percentile" in description
        assert f"from {min_latencies(percent)} batches on" in description


def test_one_field_is_enough_for_a_new_column() -> None:
    class Longer(BatchSizeRow):
        latency_per_batch_ms_p50: float | None = metric("ms", "50th percentile.")

    assert units_of(Longer)["latency_per_batch_ms_p50"] == "ms"
    assert "latency_per_batch_ms_p50" in Longer.model_json_schema(mode="serialization")["required"]
    [entry] = [entry for entry in entries_of(Longer) if entry.name.endswith("_p50")]
    assert (entry.unit, entry.description) == ("ms", "50th percentile.")


def test_a_name_with_two_units_is_refused() -> None:
    class InGigabytes(Record):
        cpu_mem_used: float | None = metric("GB", "Resident memory.")

    class Both(Record):
        row: BatchSizeRow = text("A row.")
        other: InGigabytes = text("Another.")

    with pytest.raises(AssertionError, match="cpu_mem_used has two units: MB, GB"):
        units_of(Both)


def test_a_field_without_a_description_is_refused() -> None:
    class Silent(Record):
        value: int

    with pytest.raises(AssertionError, match="value has no description"):
        units_of(Silent)


def test_every_setting_is_described() -> None:
    for section in Config.model_fields.values():
        for name, field in type(section.default).model_fields.items():
            assert field.description and field.description.endswith("."), name


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1}, "integer at least 1"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number above 0, at most 1"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text or null"),
        ({"enum": ["a", "b"]}, "`a`, `b`"),
        ({"const": "auto", "type": "string"}, "`auto`"),
        ({"type": "array", "items": {"type": "integer"}}, "list of: integer"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "names to: text"),
        ({"type": "boolean"}, "`true`, `false`"),
        ({"type": "string", "pattern": "^a$"}, "text that matches `^a$`"),
    ],
)
def test_allowed_values_are_described_in_words(schema: dict[str, object], words: str) -> None:
    assert describe_values(schema) == words


def test_what_is_written_by_hand_stays() -> None:
    page = with_generated_part("# Title\n\nBy hand.\n", ["| a |"])
    assert page == f"# Title\n\nBy hand.\n\n{GENERATED}\n\n| a |\n"
    assert with_generated_part(page, ["| b |"]) == page.replace("| a |", "| b |")


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert table(["a"], [["x | y"]])[-1] == "| x \\| y |"
