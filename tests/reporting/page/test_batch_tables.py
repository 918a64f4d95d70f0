"""The tables of the sweep: every measured column in one of them, each narrow enough for paper."""

from __future__ import annotations

import pytest

from tests.reporting.conftest import MakeResults
from utils.reporting.page.batch_tables import GROUPS, MAX_COLUMNS, batch_tables, shared_unit
from utils.reporting.tables import EXTRA_COLUMNS


@pytest.mark.parametrize("gpu", [True, False])
def test_every_measured_column_is_in_one_table(make_results: MakeResults, gpu: bool) -> None:
    sweep = make_results(gpu=gpu, out_of_memory=(64,)).sweep
    _, *tables = batch_tables(sweep)
    shown = [name for table in tables for name in table.header[1:]]
    expected = [title for column, title in EXTRA_COLUMNS.items() if sweep.has(column)]
    # Where all columns of a table have one unit, it stands in the caption; p50 is in this one.
    short = [title.partition(" (")[0] for title in expected]
    assert sorted(name.partition(" (")[0] for name in shown) == sorted([*short, "p50"])


def test_tables_are_narrow_and_have_a_row_for_each_batch_size(make_results: MakeResults) -> None:
    sweep = make_results(gpu=True, out_of_memory=(64,)).sweep
    for table in batch_tables(sweep):
        assert len(table.header) <= MAX_COLUMNS + 1
        assert [row[0] for row in table.rows] == ["1", "4", "8", "16", "32", "64"]
        assert {len(row) for row in table.rows} == {len(table.header)}


def test_the_source_of_mfu_stands_below_its_table(make_results: MakeResults) -> None:
    tables = list(batch_tables(make_results().sweep))
    (table,) = [table for table in tables if "MFU" in table.header]
    assert "of the ceilings in bottlenecks.json" in table.note


@pytest.mark.parametrize(
    ("titles", "unit"),
    [
        (["p50 (ms)", "p90 (ms)"], "ms"),
        (["p50 (ms)", "power (W)"], None),
        (["p50 (ms)", "MFU"], None),
        (["MFU"], None),
    ],
)
def test_a_unit_that_all_columns_share_is_found(titles: list[str], unit: str | None) -> None:
    assert shared_unit(titles) == unit


def test_groups_name_columns_once() -> None:
    grouped = [column for columns in GROUPS.values() for column in columns]
    assert len(grouped) == len(set(grouped))
