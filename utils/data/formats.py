"""Reads the columns of one source file, of whichever kind it is, as a stream of rows."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shlex
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from utils.core.errors import DataError
from utils.core.files import JsonObject
from utils.data.cells import nested_label, nested_text
from utils.data.columns import Columns
from utils.data.csv_check import check_csv, looks_like_other_delimiter
from utils.data.json_shape import refuse_single_object

Kind = Literal["csv", "tsv", "parquet", "json", "jsonl"]
ENDINGS: dict[str, Kind] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
KINDS_READ = (
    ".csv, .tsv, .json and .jsonl files (also .gz), .parquet files, a folder or pattern of them, a "
    "save_to_disk folder"
)
FIX_KIND = f"these are read: {KINDS_READ}, all texts in UTF-8"
DELIMITERS = {"csv": ",", "tsv": "\t"}
BLOCK_ROWS = 8192
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
FIRST_BYTES = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """One file of a source and its columns.

    Args:
        class_names: by column, the ClassLabel names in the order of their ids, which is what the
            column holds.
    """

    path: Path
    kind: Kind
    column_names: tuple[str, ...]
    class_names: dict[str, tuple[str, ...]]


def file_kind(path: Path) -> Kind | None:
    """The kind of a file by its name, compressed or not; None for what is not read."""
    name = path.name.lower()
    is_compressed = name.endswith(".gz")
    name = name.removesuffix(".gz")
    for ending, kind in ENDINGS.items():
        if name.endswith(ending) and not (is_compressed and kind == "parquet"):
            return kind
    return None


def open_source_file(path: Path) -> SourceFile:
    """Read which columns a file has.

    A JSON file is read to its end, because every record may have other keys.

    Raises:
        DataError: the file is missing, unreadable, or of a kind that is not read.
    """
    kind = file_kind(path)
    if kind is None:
        raise DataError(f"Files of this kind are not read: {path.name}.", where=path, fix=FIX_KIND)
    class_names: dict[str, tuple[str, ...]] = {}
    with _reading(path):
        if kind == "parquet":
            schema = pq.read_schema(path)
            names = list(schema.names)
            class_names = _class_names_of_schema(schema)
        elif kind in DELIMITERS:
            names = _read_header(path, DELIMITERS[kind])
        else:
            with _open_text(path) as lines:
                refuse_single_object(lines, path)
            keys: dict[str, None] = {}
            for record in _records(path, kind):
                keys.update(dict.fromkeys(record))
            names = list(keys)
    return SourceFile(path=path, kind=kind, column_names=tuple(names), class_names=class_names)


def check_source_file(file: SourceFile, columns: Columns) -> tuple[str, ...]:
    """Return warnings about the chosen columns of a file.

    Raises:
        DataError: the columns have nested values, or a quotation mark swallows rows.
    """
    if file.kind in DELIMITERS:
        with _reading(file.path), _open_text(file.path) as lines:
            return check_csv(lines, DELIMITERS[file.kind], columns.label, file.path)
    if file.kind == "parquet":
        with _reading(file.path):
            schema = pq.read_schema(file.path)
        _refuse_nested_columns(schema, columns, file.path)
    return ()


def iter_cells(file: SourceFile, columns: Columns) -> Iterator[tuple[Any, Any]]:
    """Text and label of each row, as they are stored; the label is None without such a column.

    Raises:
        DataError: the file is missing or damaged.
    """
    with _reading(file.path):
        if file.kind == "parquet":
            yield from _parquet_cells(file.path, columns)
        elif file.kind in DELIMITERS:
            yield from _csv_cells(file.path, DELIMITERS[file.kind], columns)
        else:
            for record in _records(file.path, file.kind):
                label = None
                if columns.label is not None:
                    label = record.get(columns.label)
                yield record.get(columns.text), label


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError("There is no such data file.", where=path, fix=FIX_KIND) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"The data file is not UTF-8: {error.reason}.",
            where=path,
            fix="save it as UTF-8; a file of Windows or Excel is converted with: "
            f"iconv -f WINDOWS-1252 -t UTF-8 {shlex.quote(path.name)} > NEW",
        ) from error
    except (ValueError, OSError, EOFError, zlib.error, csv.Error, pa.ArrowException) as error:
        raise DataError(
            f"The data file cannot be read: {error}.", where=path, fix=FIX_KIND
        ) from error


@contextmanager
def _open_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """UTF-8 text with its own line ends, without a byte order mark, decompressed if necessary."""
    with path.open("rb") as file:
        content: Any = file
        if path.name.lower().endswith(".gz"):
            content = gzip.GzipFile(fileobj=file)
        begin = content.read(FIRST_BYTES)
        if begin[:2] in UTF_16_MARKS:
            raise DataError(
                "The data file is UTF-16, not UTF-8.", where=path, fix="save it as UTF-8"
            )
        if b"\0" in begin.split(b"\n")[0]:
            raise DataError(
                "The first line of the data file has NUL bytes: it seems to be UTF-16 without a "
                "byte order mark.",
                where=path,
                fix="save it as UTF-8",
            )
        content.seek(0)
        with io.TextIOWrapper(content, encoding="utf-8-sig", newline="") as text:
            yield text


def _read_header(path: Path, delimiter: str) -> list[str]:
    with _open_text(path) as lines:
        header = next(csv.reader(lines, delimiter=delimiter), [])
    if not header:
        raise DataError(
            "The data file is empty, or its first line is.",
            where=path,
            fix="name another file; its first line has the names of the columns",
        )
    if header[0].lower().startswith("sep="):
        raise DataError(
            "The first line of the data file is for Excel (sep=…) and has no columns.",
            where=path,
            fix="remove that line",
        )
    other = looks_like_other_delimiter(header, delimiter)
    if other is None:
        return header
    fix = "save it again with commas, or as .tsv with tabs"
    if other == "\t":
        fix = "name the file .tsv"
    elif other == ",":
        fix = "name the file .csv"
    raise DataError(
        f"The columns of this file seem to be separated by {_delimiter_name(other)}; {path.name} "
        f"is read with {_delimiter_name(delimiter)}: its only column would be {header[0]!r}.",
        where=path,
        fix=fix,
    )


def _delimiter_name(delimiter: str) -> str:
    if delimiter == "\t":
        return "tabs"
    return repr(delimiter)


def _csv_cells(path: Path, delimiter: str, columns: Columns) -> Iterator[tuple[Any, Any]]:
    with _open_text(path) as lines:
        reader = csv.reader(lines, delimiter=delimiter)
        header = next(reader, [])
        text = header.index(columns.text)
        label_index = None
        if columns.label is not None:
            label_index = header.index(columns.label)
        for fields in reader:
            # A blank line; check_csv has refused every other row of another width.
            if len(fields) != len(header):
                continue
            label = None
            if label_index is not None:
                label = fields[label_index]
            yield fields[text], label


def _parquet_cells(path: Path, columns: Columns) -> Iterator[tuple[Any, Any]]:
    names = [columns.text]
    if columns.label is not None:
        names.append(columns.label)
    for batch in pq.ParquetFile(path).iter_batches(batch_size=BLOCK_ROWS, columns=names):
        texts = batch.column(columns.text).to_pylist()
        labels = [None] * len(texts)
        if columns.label is not None:
            labels = batch.column(columns.label).to_pylist()
        yield from zip(texts, labels, strict=True)


def _records(path: Path, kind: Kind) -> Iterator[JsonObject]:
    """The records of a JSON file: a list of them, or one a line."""
    with _open_text(path) as lines:
        if kind == "json" and _begins_with_bracket(lines):
            yield from _records_of_list(json.load(lines), path)
            return
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _record_of_line(line, number, path)


def _begins_with_bracket(lines: io.TextIOWrapper) -> bool:
    character = " "
    while character.isspace():
        character = lines.read(1)
    lines.seek(0)
    return character == "["


def _records_of_list(content: Any, path: Path) -> Iterator[JsonObject]:
    for number, record in enumerate(content, start=1):
        if not isinstance(record, dict):
            raise _no_record(f"Item {number} of the list", record, path)
        yield record


def _record_of_line(line: str, number: int, path: Path) -> JsonObject:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(
            f"The data file cannot be read: line {number} is not JSON: {error}.",
            where=path,
            fix="a JSON file has a list of records, or one record a line",
        ) from error
    if not isinstance(record, dict):
        raise _no_record(f"Line {number}", record, path)
    return record


def _no_record(place: str, value: Any, path: Path) -> DataError:
    return DataError(
        f"{place} is not a record but a {type(value).__name__}.",
        where=path,
        fix='a JSON file has a list of records, or one record a line: {"text": "…", "label": "…"}',
    )


def _class_names_of_schema(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """ClassLabel names by column, as the datasets library stores them in a Parquet file."""
    stored = (schema.metadata or {}).get(b"huggingface")
    if stored is None:
        return {}
    try:
        features = json.loads(stored)["info"]["features"]
        labels = {}
        for name, kind in features.items():
            if kind.get("_type") == "ClassLabel":
                labels[name] = kind["names"]
    except (ValueError, KeyError, TypeError, AttributeError):
        # Written by another program; the column then has its own values.
        return {}
    integers = {field.name for field in schema if pa.types.is_integer(field.type)}
    return {name: tuple(map(str, names)) for name, names in labels.items() if name in integers}


def _refuse_nested_columns(schema: pa.Schema, columns: Columns, path: Path) -> None:
    text_type = schema.field(columns.text).type
    if pa.types.is_nested(text_type):
        raise nested_text(str(text_type), path, columns.text)
    if columns.label is not None:
        label_type = schema.field(columns.label).type
        if pa.types.is_nested(label_type):
            raise nested_label(str(label_type), path, columns.label)
