"""The tables of ``docs/METRICS.md``: every metric and column with its unit and meaning."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping

from utils.schema.catalog import FieldEntry, entries_of, record_paths
from utils.schema.common import Record
from utils.schema.markdown import table

PAGE_WIDTH = 110
HEADER = ("Name", "Unit", "Null", "Meaning")


def metrics_tables(files: Mapping[str, type[Record]]) -> list[str]:
    """The lines of the generated part of ``docs/METRICS.md``.

    Args:
        files: the record of each file, by the file's name.
    """
    lines: list[str] = []
    for file_name, file_record in files.items():
        for path, record in record_paths(file_record):
            title = f"### `{path}`" if path else f"## `{file_name}`"
            rows = _rows(entries_of(record))
            lines += [title, "", *_summary(record), "", *table(HEADER, rows), ""]
    return lines


def _summary(record: type[Record]) -> list[str]:
    """The first paragraph of the record's docstring, in lines."""
    paragraph = (record.__doc__ or "").strip().partition("\n\n")[0]
    return textwrap.wrap(" ".join(paragraph.split()), PAGE_WIDTH)


def _rows(entries: Iterable[FieldEntry]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for entry in entries:
        may_be_null = "yes" if entry.may_be_null else ""
        rows.append((f"`{entry.name}`", entry.unit or "", may_be_null, entry.description))
    return rows
