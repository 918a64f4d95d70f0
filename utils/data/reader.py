"""Reads data files in a stream, so that memory does not grow with their rows; above all the data set that step 01 wrote."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from utils.core.artifacts import sha256_file
from utils.core.errors import DataError
from utils.data.labels import MISSING_ID

COLUMNS = ("text", "labels", "label_id")
BLOCK_ROWS = 8192
FIX = "make it with: python scripts/01_download_data.py"
Label = TypeVar("Label")

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


@dataclass(frozen=True, kw_only=True)
class Layout(Generic[Label]):
    """How rows are read: which columns hold text and label, what a label becomes, what to do about a file that is damaged."""

    find: Callable[[Sequence[str]], tuple[str, str]]
    label: Callable[[Any], Label]
    fix: str

    def pairs(self, texts: Iterable[Any], labels: Iterable[Any]) -> Iterator[tuple[str, Label]]:
        """Two columns as rows; a missing text is an empty one."""
        return zip(("" if missing(text) else str(text) for text in texts), map(self.label, labels), strict=True)


def missing(value: Any) -> bool:
    """Whether a cell is empty in a file that has a way to say so."""
    return value is None or isinstance(value, float) and value != value


def encodable(text: str) -> str:
    """The text; lone surrogates, which neither UTF-8 nor a tokenizer takes, become question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


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
            raise DataError(f"The data set cannot be read: {error}.", where=path, fix=FIX) from error
    return sum(len(part.texts) for part in iter_rows(path, BLOCK_ROWS))


def iter_rows(
    path: Path, chunk_rows: int, max_rows: int | None = None, *, first: int = 0, offset: int | None = None
) -> Iterator[Rows]:
    """Yield the data set in order, ``chunk_rows`` rows at a time, at most ``max_rows`` of them.

    Args:
        first: the row to begin at.
        offset: where a CSV has that row, in bytes, from ``chunk_offsets``; a Parquet file knows it itself.

    Raises:
        DataError: the file is missing, is not UTF-8 or lacks a column.
    """
    def columns(names: Sequence[str]) -> tuple[str, str]:
        if lacking := [name for name in ("text", "label_id") if name not in names]:
            raise DataError(f"The data set lacks the column {lacking[0]!r}; it has {list(names)}.", where=path, fix=FIX)
        return "text", "label_id"

    layout = Layout(find=columns, label=lambda cell: MISSING_ID if cell is None or cell == "" else int(cell), fix=FIX)
    pairs = islice(table_rows(path, layout, first=first, offset=offset), max_rows)
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
    return [text for part in parts for i, text in enumerate(part.texts, start=part.start) if i in wanted]


def table_rows(
    path: Path, layout: Layout[Label], *, first: int = 0, offset: int | None = None
) -> Iterator[tuple[str, Label]]:
    """Text and label of each row of a ``.csv``, ``.parquet`` or ``.jsonl`` file, from the row that ``iter_rows`` describes on.

    Raises:
        DataError: missing, damaged, not UTF-8, or what ``layout.find`` raises.
    """
    try:
        if path.suffix == ".parquet":
            yield from _parquet_rows(path, layout, first)
        elif path.suffix == ".jsonl":
            options: Any = {"lines": True, "dtype": False, "convert_dates": False, "chunksize": BLOCK_ROWS}
            for frame in pd.read_json(path, encoding="utf-8", **options):
                text, label = layout.find(list(frame.columns))
                yield from layout.pairs(frame[text], frame[label])
        else:
            yield from _csv_rows(path, layout, offset)
    except FileNotFoundError as error:
        raise DataError("There is no such data file.", where=path, fix=layout.fix) from error
    except (ValueError, OSError) as error:
        raise DataError(f"The data file cannot be read: {error}.", where=path, fix=layout.fix) from error


def _csv_rows(path: Path, layout: Layout[Label], offset: int | None) -> Iterator[tuple[str, Label]]:
    with path.open("rb") as file:
        head = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        lines = csv.reader(head)
        try:
            header = next(lines, [])
            text, label = map(header.index, layout.find(header))
            width = len(header)
            if offset is not None:
                file.seek(offset)
                lines = csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
            for number, line in enumerate(lines, start=2 if offset is None else 1):
                if len(line) == width:
                    yield line[text], layout.label(line[label])
                elif line:  # a blank one is no row
                    raise ValueError(f"Row {number} has {len(line)} fields, the header {len(header)}")
        except (ValueError, csv.Error) as error:
            decoding = isinstance(error, UnicodeDecodeError)  # it is found ahead of the line, in what was read with it
            place = f"{'after' if decoding else 'at'} line {lines.line_num}{'' if offset is None else f' after byte {offset}'}"
            why = f"not UTF-8, {error.reason}" if isinstance(error, UnicodeDecodeError) else error
            raise DataError(f"The data set is damaged {place}: {why}.", where=path, fix=layout.fix) from error


def _parquet_rows(path: Path, layout: Layout[Label], first: int) -> Iterator[tuple[str, Label]]:
    """From row ``first`` on; the row groups before it are not read."""
    table = pq.ParquetFile(path)
    text, label = layout.find(table.schema_arrow.names)
    groups, skipped = list(range(table.num_row_groups)), first
    while groups and skipped >= (rows := table.metadata.row_group(groups[0]).num_rows):
        skipped -= rows
        del groups[0]
    for batch in table.iter_batches(batch_size=BLOCK_ROWS, columns=[text, label], row_groups=groups):
        rest = batch.slice(min(skipped, batch.num_rows))
        skipped -= batch.num_rows - rest.num_rows
        yield from layout.pairs(rest.column(text).to_pylist(), rest.column(label).to_pylist())
