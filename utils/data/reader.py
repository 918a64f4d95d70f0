"""Reads the data set that step 01 wrote: in a stream, so that memory does not grow with its rows."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from utils.core.artifacts import sha256_file
from utils.core.errors import DataError
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
    """How many rows the data set has.

    Raises:
        DataError: missing, unreadable, or empty.
    """
    if not path.is_file():
        raise DataError("There is no data set yet.", where=path, fix=FIX)
    rows = _count(path, file_state(path))
    if not rows:
        raise DataError("The data set has no rows.", where=path, fix=FIX)
    return rows


@lru_cache(maxsize=8)
def _count(path: Path, state: tuple[int, int] | None) -> int:
    """Counted once as long as the file stays what it is: a CSV has to be read for it."""
    if path.suffix != ".parquet":
        return sum(len(part.texts) for part in iter_rows(path, BLOCK_ROWS))
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, ValueError) as error:
        raise DataError(f"The data set cannot be read: {error}.", where=path, fix=FIX) from error


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
    if not path.is_file():
        raise DataError("There is no data set yet.", where=path, fix=FIX)
    pairs = islice(_parquet_pairs(path, first) if path.suffix == ".parquet" else _csv_pairs(path, offset), max_rows)
    start = first
    while block := list(islice(pairs, chunk_rows)):
        ids = np.array([number for _, number in block], dtype=np.int64)
        yield Rows(start=start, texts=[text for text, _ in block], label_ids=ids)
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
        begin = position
        for row, _ in enumerate(lines):  # the reader takes no line before it needs it
            if row % chunk_rows == 0:
                offsets.append(begin)
            begin = position
    return offsets


def sample_texts(path: Path, size: int, seed: int, max_rows: int | None = None) -> list[str]:
    """Draw ``size`` of the first ``max_rows`` texts without replacement, in file order; all of them where there are fewer."""
    rows = min(count_rows(path), max_rows or sys.maxsize)
    chosen = np.random.default_rng(seed).choice(rows, size=min(size, rows), replace=False)
    wanted = set(chosen.tolist())
    texts: list[str] = []
    for part in iter_rows(path, BLOCK_ROWS, max_rows=max(wanted) + 1):
        texts += [text for i, text in enumerate(part.texts, start=part.start) if i in wanted]
    return texts


def _csv_pairs(path: Path, offset: int | None) -> Iterator[tuple[str, int]]:
    with path.open("rb") as file:
        source = io.TextIOWrapper(file, encoding="utf-8", newline="")
        lines = csv.reader(source)
        try:
            text, number = _positions(next(lines, []), path)
            if offset is not None:
                file.seek(offset)
                lines = csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
            for line in lines:
                yield line[text], int(line[number] or MISSING_ID)
        except (UnicodeDecodeError, csv.Error, ValueError, IndexError) as error:
            begun = "" if offset is None else f" after byte {offset}"
            said = f"The data set is damaged at line {lines.line_num}{begun}: {error}."
            raise DataError(said, where=path, fix=FIX) from error


def _parquet_pairs(path: Path, first: int) -> Iterator[tuple[str, int]]:
    """From row ``first`` on; the row groups before it are not read."""
    try:
        table = pq.ParquetFile(path)
        _positions(table.schema_arrow.names, path)
        groups, skipped = list(range(table.num_row_groups)), first
        while groups and skipped >= (rows := table.metadata.row_group(groups[0]).num_rows):
            skipped -= rows
            del groups[0]
        for batch in table.iter_batches(batch_size=BLOCK_ROWS, columns=["text", "label_id"], row_groups=groups):
            rest = batch.slice(min(skipped, batch.num_rows))
            skipped -= batch.num_rows - rest.num_rows
            ids = (MISSING_ID if number is None else number for number in rest.column("label_id").to_pylist())
            yield from zip((text or "" for text in rest.column("text").to_pylist()), ids, strict=True)
    except (OSError, ValueError) as error:
        raise DataError(f"The data set cannot be read: {error}.", where=path, fix=FIX) from error


def _positions(names: list[str], path: Path) -> tuple[int, int]:
    missing = [name for name in ("text", "label_id") if name not in names]
    if missing:
        raise DataError(f"The data set lacks the column {missing[0]!r}; it has {names}.", where=path, fix=FIX)
    return names.index("text"), names.index("label_id")
