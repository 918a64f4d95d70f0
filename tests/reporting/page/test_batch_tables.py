"""The tables of the sweep: every measured column in one of them, each narrow enough for paper."""

from __future__ import annotations

import pytest

from tests.reporting.conftest import MakeResults
from utils.reporting.page.batch_tables import GROUPS, MAX_COLUMNS, batch_tables
from utils.reporting.tables import EXTRA_COLUMNS


@pytest.mark.parametrize("gpu", [True, False])
def test_every_measured_column_is_in_one_table(make_results: MakeResults, gpu: bool) -> None:
    sweep = make_results(gpu=gpu, out_of_memory=(64,)).sweep
    tables = list(batch_tables(sweep))
    header = [name for table in tables for name in table.header]
    for column, title in EXTRA_COLUMNS.items():
        assert header.count(title) == int(sweep.has(column)), column


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


def test_groups_name_columns_once() -> None:
    grouped = [column for columns in GROUPS.values() for column in columns]
    assert len(grouped) == len(set(grouped))
