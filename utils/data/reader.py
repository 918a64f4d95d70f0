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
from utils.data.labels import MISSING_ID

COLUMNS = ("text", "labels", "label_id")
BLOCK_ROWS = 8192
FIX = "make it with: python scripts/01_download_data.py"

# A text may be longer than the default limit of 128 KiB.
csv.field_size_limit(sys.maxsize)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Consecutive rows of the data set.

    Args:
        start: position of the first row in the data set.
        texts: one a row.
        label_ids: int64 of shape ``[rows]``; -1 where a row has no label, -2 where the model does
            not know it.
    """

    start: int
    texts: list[str]
    label_ids: NDArray[np.int64]


def file_signature(path: Path) -> tuple[int, int] | None:
    """When a file was written (ns) and its size in bytes, to notice that it was replaced.

    None if the file does not exist.
    """
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return state.st_mtime_ns, state.st_size


def hash_data(path: Path) -> str:
    """SHA-256 of the data set, as it is now; computed once as long as the file does not change."""
    return _hash(path, file_signature(path))


@lru_cache(maxsize=8)
def _hash(path: Path, state: tuple[int, int] | None) -> str:
    return sha256_file(path)


def count_rows(path: Path) -> int:
    """How many rows the data set has, counted once as long as the file does not change.

    Raises:
        DataError: missing, unreadable, or empty.
    """
    rows = _count(path, file_signature(path))
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
        offset: the byte of a CSV file where that row begins, from ``chunk_offsets``.

    Raises:
        DataError: the file is missing, is not UTF-8 or lacks a column.
    """
    pairs = islice(_cells(path, first, offset), max_rows)
    start = first
    while True:
        block = list(islice(pairs, chunk_rows))
        if not block:
            return
        texts, ids = zip(*block, strict=True)
        yield Rows(start=start, texts=list(texts), label_ids=np.array(ids, dtype=np.int64))
        start += len(block)


def chunk_offsets(path: Path, chunk_rows: int) -> list[int | None]:
    """The byte at which each chunk's first row begins in a CSV file, which is read once.

    None for each chunk of a Parquet file, which finds its rows by their numbers.
    """
    if path.suffix == ".parquet":
        num_chunks = -(-count_rows(path) // chunk_rows)
        return [None] * num_chunks
    offsets: list[int | None] = []
    position = 0

    def counted(source: Iterable[str]) -> Iterator[str]:
        nonlocal position
        for line in source:
            position += len(line.encode("utf-8"))
            yield line

    with path.open(encoding="utf-8", newline="") as source:
        lines = csv.reader(counted(source))
        next(lines, None)
        begin = position
        row = 0
        # The reader takes no line before it needs it, so that the position is that of the row.
        for fields in lines:
            # A blank line is no row.
            if fields:
                if row % chunk_rows == 0:
                    offsets.append(begin)
                row += 1
            begin = position
    return offsets


def sample_texts(path: Path, size: int, seed: int, max_rows: int | None = None) -> list[str]:
    """Draw ``size`` of the first ``max_rows`` texts without replacement, in file order.

    All of them are drawn if there are fewer.
    """
    num_rows = min(count_rows(path), max_rows or sys.maxsize)
    generator = np.random.default_rng(seed)
    drawn = generator.choice(num_rows, size=min(size, num_rows), replace=False)
    chosen = set(drawn.tolist())
    texts = []
    for part in iter_rows(path, BLOCK_ROWS, max_rows=max(chosen) + 1):
        for row, text in enumerate(part.texts, start=part.start):
            if row in chosen:
                texts.append(text)
    return texts


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
    if cell is None or cell == "":
        return MISSING_ID
    return int(cell)


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    return str(cell)


def _csv_cells(path: Path, offset: int | None) -> Iterator[tuple[str, int]]:
    with path.open("rb") as file:
        # In a variable, because it closes the file once nothing refers to it.
        head = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        lines = csv.reader(head)
        try:
            header = next(lines, [])
            _check_columns(header, path)
            text = header.index("text")
            label = header.index("label_id")
            first_number = 2
            if offset is not None:
                file.seek(offset)
                lines = csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
                first_number = 1
            for number, fields in enumerate(lines, start=first_number):
                if len(fields) == len(header):
                    yield fields[text], _label_id(fields[label])
                elif fields:
                    # A blank line is no row; this is one of another width.
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
        texts = map(_text, rest.column("text").to_pylist())
        label_ids = map(_label_id, rest.column("label_id").to_pylist())
        yield from zip(texts, label_ids, strict=True)
