"""Fetches texts and labels from the hub, a local file or the embedded corpus, and writes the data set."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from utils.config_loader import EMBEDDED, SOURCE_SUFFIXES, Config, project_path, source_files
from utils.core.artifacts import atomic_path, check_disk_space, sha256_file, write_json
from utils.core.errors import DataError
from utils.data.labels import MISSING_ID, UNKNOWN_ID, LabelMapping
from utils.data.reader import BLOCK_ROWS, COLUMNS, Layout, encodable, missing, table_rows

SYNONYMS = {"text": "query", "query": "text", "labels": "label", "label": "labels"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Texts and labels as they were found, in a stream: memory does not grow with the rows.

    Args:
        rows: reads from the beginning: a text and its label as text. A missing text is an empty one, a missing label None.
        revision: the commit on the hub, None for a file.
    """

    rows: Callable[[], Iterator[tuple[str, str | None]]]
    revision: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What one reading of a source found: rows, rows by label, and what the user should know."""

    num_rows: int
    text_bytes: int
    nul_texts: int
    label_rows: Counter[str]
    warnings: tuple[str, ...]


def read_source(config: Config) -> Source:
    """Open what ``dataset.hf_name`` names.

    Raises:
        DataError: not there, not readable, or without the columns (also while it is read).
        UserError: the hub refused or cannot be reached.
    """
    name = config.dataset.hf_name
    if name != EMBEDDED and Path(name).suffix not in SOURCE_SUFFIXES:
        return _read_hub(config)
    corpus = config.path("embedded.dir") / "corpus_eval.parquet"
    files = [corpus] if name == EMBEDDED else source_files(name) or [project_path(name)]

    def rows() -> Iterator[tuple[str, str | None]]:
        for file in files:
            yield from table_rows(file, _layout(config, file))

    return Source(rows=rows)


def scan(source: Source, where: str) -> Contents:
    """Read the source once and count.

    Raises:
        DataError: no rows, or what reading it raises.
    """
    labels: Counter[str] = Counter()
    rows = size = nuls = replaced = 0
    for text, label in source.rows():
        rows += 1
        size += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        nuls += "\0" in text
        replaced += encodable(text) != text
        labels.update([label] if label else ())
    if not rows:
        raise DataError("The data set has no rows.", where=where, fix="name another file or split")
    warnings = (f"{replaced} texts held lone surrogates, which UTF-8 cannot hold; each became '?'",) if replaced else ()
    return Contents(num_rows=rows, text_bytes=size, nul_texts=nuls, label_rows=labels, warnings=warnings)


def write_dataset(
    config: Config, source: Source, contents: Contents, mapping: LabelMapping, origin: str, warnings: tuple[str, ...]
) -> None:
    """Write the data set, its label mappings and its record; each file is whole or untouched."""
    numbers = mapping.label2id if origin != "ids" else {str(i): i for i in range(len(mapping.names))}
    file = config.data_file
    if file.suffix == ".csv" and sys.version_info < (3, 11) and contents.nul_texts:
        fix = f"use Python 3.11 or later, or --set dataset.local_path={file.with_suffix('.parquet')}"
        raise DataError("Texts hold NUL characters, which Python 3.10's csv module cannot write.", where=file, fix=fix)
    check_disk_space(file.parent, contents.text_bytes, "the data set", fix="--set dataset.local_path=PATH on another disk",
                     kind=DataError)

    def rows() -> Iterator[tuple[str, str, int]]:
        for text, label in source.rows():
            number = MISSING_ID if label is None else numbers.get(label, UNKNOWN_ID)
            yield encodable(text), mapping.names[number] if number >= 0 else label or "", number

    with atomic_path(file) as temporary:
        (_write_parquet if file.suffix == ".parquet" else _write_csv)(temporary, rows())
    write_json(config.label_mappings_file, mapping.to_json())
    record = {
        "name": config.dataset.hf_name, "revision": source.revision, "num_rows": contents.num_rows,
        "num_labels": len(mapping.names), "label_mapping_source": origin, "sha256": sha256_file(file),
        "warnings": [*contents.warnings, *warnings],
    }
    write_json(file.parent / "dataset_info.json", record)


def _write_csv(file: Path, rows: Iterator[tuple[str, str, int]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        # All strings are quoted: a lone carriage return or an empty text comes back as it was.
        table = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(rows)


def _write_parquet(file: Path, rows: Iterator[tuple[str, str, int]]) -> None:
    schema = pa.schema(list(zip(COLUMNS, (pa.string(), pa.string(), pa.int64()), strict=True)))
    with pq.ParquetWriter(file, schema) as out:
        while block := list(islice(rows, BLOCK_ROWS)):
            out.write_batch(pa.record_batch([pa.array(column) for column in zip(*block, strict=True)], schema=schema))


def _read_hub(config: Config) -> Source:
    from datasets import ClassLabel, load_dataset

    from utils.hub import hub_errors, resolve

    settings, name = config.dataset, config.dataset.hf_name
    place = resolve(name, settings.revision, "dataset")
    with hub_errors("data set", name, DataError):
        try:
            table: Any = load_dataset(name, revision=place.commit, split=settings.split)
        except ValueError as error:
            if "split" not in str(error).lower():
                raise
            fix = "--set dataset.split=NAME, with one of the names above"
            raise DataError(f"The data set has no split {settings.split!r}: {error}", where=name, fix=fix) from error
    layout = _layout(config, name)

    def rows() -> Iterator[tuple[str, str | None]]:
        text, label = layout.find(list(table.features))
        kind = table.features[label]
        for part in table.iter(batch_size=BLOCK_ROWS):
            labels = part[label]
            if isinstance(kind, ClassLabel):
                labels = [None if number is None or number < 0 else kind.names[number] for number in labels]
            yield from layout.pairs(part[text], labels)

    return Source(rows=rows, revision=place.commit)


def _layout(config: Config, where: object) -> Layout[str | None]:
    def find(names: Sequence[str]) -> tuple[str, str]:
        return column(names, "text_column"), column(names, "label_column")

    def column(names: Sequence[str], key: str) -> str:
        wanted = config.get(f"dataset.{key}")
        for name in (wanted, SYNONYMS.get(wanted)):
            if name in names:
                return str(name)
        raise DataError(
            f"The data set has no column {wanted!r}; it has {', '.join(map(repr, names)) or 'none'}.",
            where=where, fix=f"--set dataset.{key}=NAME, with one of those",
        )

    return Layout(find=find, label=_label, fix="--set dataset.hf_name=PATH names UTF-8 .csv, .jsonl or .parquet files")


def _label(value: Any) -> str | None:
    """A label as text: 3.0 is 3, as a column of ids with a gap is read as floats; empty is none."""
    if missing(value):
        return None
    return str(int(value) if isinstance(value, float) and value.is_integer() else value) or None
