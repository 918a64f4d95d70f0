"""Reads the data set that step 01 wrote, in a stream: memory does not grow with its rows."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from utils.core.errors import DataError
from utils.core.files import sha256_file
from utils.data.cells import encodable as encodable  # taken from here by the evaluation
from utils.data.labels import MISSING_ID

COLUMNS = ("text", "labels", "label_id")
BLOCK_ROWS = 8192
FIX = "make it with: python scripts/01_download_data.py"

csv.field_size_limit(sys.maxsize)  # a text may be longer than the default limit of 128 KiB


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Consecutive rows of the data set.

    Args:
        start: position of the first row in the data set.
        texts: one a row.
        label_ids: int64 of shape ``[rows]``; -1 where a row has no label, -2 where the model does not know it.
    """

    start: int
    texts: list[str]
    label_ids: NDArray[np.int64]


def file_state(path: Path) -> tuple[int, int] | None:
    """What differs once a file was replaced: when it was written (ns) and its bytes; None where there is none."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return state.st_mtime_ns, state.st_size


def hash_data(path: Path) -> str:
    """SHA-256 of the data set, as it is now; it is read once as long as the file stays what it is."""
    return _hash(path, file_state(path))


@lru_cache(maxsize=8)
def _hash(path: Path, state: tuple[int, int] | None) -> str:
    return sha256_file(path)


def count_rows(path: Path) -> int:
    """How many rows the data set has, counted once as long as the file stays what it is.

    Raises:
        DataError: missing, unreadable, or empty.
    """
    rows = _count(path, file_state(path))
    if not rows:
        raise DataError("The data set has no rows.", where=path, fix=FIX)
    return rows


@lru_cache(maxsize=8)
def _count(path: Path, state: tuple[int, int] | None) -> int:
    if path.suffix == ".parquet" and state:
        try:
            return int(pq.read_metadata(path).num_rows)
        except (OSError, ValueError) as error:
            raise DataError(
                f"The data set cannot be read: {error}.", where=path, fix=FIX
            ) from error
    return sum(len(part.texts) for part in iter_rows(path, BLOCK_ROWS))


def iter_rows(
    path: Path,
    chunk_rows: int,
    max_rows: int | None = None,
    *,
    first: int = 0,
    offset: int | None = None,
) -> Iterator[Rows]:
    """Yield the data set in order, ``chunk_rows`` rows at a time, at most ``max_rows`` of them.

    Args:
        first: the row to begin at.
        offset: where a CSV has that row, in bytes, from ``chunk_offsets``; a Parquet file knows it itself.

    Raises:
        DataError: the file is missing, is not UTF-8 or lacks a column.
    """
    pairs = islice(_cells(path, first, offset), max_rows)
    start = first
    while block := list(islice(pairs, chunk_rows)):
        texts, ids = zip(*block, strict=True)
        yield Rows(start=start, texts=list(texts), label_ids=np.array(ids, dtype=np.int64))
        start += len(block)


def chunk_offsets(path: Path, chunk_rows: int) -> list[int | None]:
    """Where each chunk's first row begins, in bytes into a CSV, which is read once; None for a Parquet file's."""
    if path.suffix == ".parquet":
        return [None] * -(-count_rows(path) // chunk_rows)
    offsets: list[int | None] = []
    position = 0

    def counted(source: Iterable[str]) -> Iterator[str]:
        nonlocal position
        for line in source:
            position += len(line) if line.isascii() else len(line.encode("utf-8"))
            yield line

    with path.open(encoding="utf-8", newline="") as source:
        lines = csv.reader(counted(source))
        next(lines, None)
        begin, row = position, 0
        for line in lines:  # the reader takes no line before it needs it
            if line and row % chunk_rows == 0:
                offsets.append(begin)
            begin, row = position, row + bool(line)
    return offsets


def sample_texts(path: Path, size: int, seed: int, max_rows: int | None = None) -> list[str]:
    """Draw ``size`` of the first ``max_rows`` texts without replacement, in file order; all of them where there are fewer."""
    rows = min(count_rows(path), max_rows or sys.maxsize)
    chosen = np.random.default_rng(seed).choice(rows, size=min(size, rows), replace=False)
    wanted = set(chosen.tolist())
    parts = iter_rows(path, BLOCK_ROWS, max_rows=max(wanted) + 1)
    return [
        text for part in parts for i, text in enumerate(part.texts, start=part.start) if i in wanted
    ]


def _cells(path: Path, first: int, offset: int | None) -> Iterator[tuple[str, int]]:
    """Text and label id of each row, from the row that ``iter_rows`` describes on."""
    try:
        if path.suffix == ".parquet":
            yield from _parquet_cells(path, first)
        else:
            yield from _csv_cells(path, offset)
    except FileNotFoundError as error:
        raise DataError("There is no such data file.", where=path, fix=FIX) from error
    except (ValueError, OSError) as error:
        raise DataError(f"The data file cannot be read: {error}.", where=path, fix=FIX) from error


def _check_columns(names: Sequence[str], path: Path) -> None:
    for name in ("text", "label_id"):
        if name not in names:
            raise DataError(
                f"The data set lacks the column {name!r}; it has {list(names)}.",
                where=path,
                fix=FIX,
            )


def _label_id(cell: Any) -> int:
    return MISSING_ID if cell is None or cell == "" else int(cell)


def _csv_cells(path: Path, offset: int | None) -> Iterator[tuple[str, int]]:
    with path.open("rb") as file:
        head = io.TextIOWrapper(
            file, encoding="utf-8-sig", newline=""
        )  # it closes the file once nothing refers to it
        lines = csv.reader(head)
        try:
            header = next(lines, [])
            _check_columns(header, path)
            text, label = header.index("text"), header.index("label_id")
            if offset is not None:
                file.seek(offset)
                lines = csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
            for number, fields in enumerate(lines, start=2 if offset is None else 1):
                if len(fields) == len(header):
                    yield fields[text], _label_id(fields[label])
                elif fields:  # a blank line is no row
                    raise ValueError(
                        f"Row {number} has {len(fields)} fields, the header {len(header)}"
                    )
        except (ValueError, csv.Error) as error:
            raise _damaged(path, lines.line_num, offset, error) from error


def _damaged(path: Path, line: int, offset: int | None, error: Exception) -> DataError:
    """Bytes are decoded ahead of the line that is parsed, so their place is known only roughly."""
    reason = str(error)
    relation = "at"
    if isinstance(error, UnicodeDecodeError):
        reason = f"not UTF-8, {error.reason}"
        relation = "after"
    place = f"{relation} line {line}"
    if offset is not None:
        place += f" after byte {offset}"
    return DataError(f"The data set is damaged {place}: {reason}.", where=path, fix=FIX)


def _parquet_cells(path: Path, first: int) -> Iterator[tuple[str, int]]:
    """From row ``first`` on; the row groups before it are not read."""
    table = pq.ParquetFile(path)
    _check_columns(table.schema_arrow.names, path)
    groups = list(range(table.num_row_groups))
    skipped = first
    while groups:
        rows = table.metadata.row_group(groups[0]).num_rows
        if skipped < rows:
            break
        skipped -= rows
        del groups[0]
    for batch in table.iter_batches(
        batch_size=BLOCK_ROWS, columns=["text", "label_id"], row_groups=groups
    ):
        rest = batch.slice(min(skipped, batch.num_rows))
        skipped -= batch.num_rows - rest.num_rows
        texts = ("" if text is None else str(text) for text in rest.column("text").to_pylist())
        label_ids = map(_label_id, rest.column("label_id").to_pylist())
        yield from zip(texts, label_ids, strict=True)
