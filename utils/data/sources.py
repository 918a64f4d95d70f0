"""Fetches texts and labels from the hub, a local file or the embedded corpus, and writes the data set."""

from __future__ import annotations

import csv
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from utils.config_loader import EMBEDDED, SOURCE_SUFFIXES, Config, project_path
from utils.core.artifacts import atomic_path, sha256_file, write_json
from utils.core.errors import DataError
from utils.data.labels import MISSING_ID, LabelMapping
from utils.data.reader import COLUMNS

SYNONYMS = {"text": "query", "query": "text", "labels": "label", "label": "labels"}
SPARE_BYTES = 50 * 10**6
"""Disk to leave free beside the data set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Texts and labels as they were found.

    Args:
        texts: one a row; a missing text is an empty one.
        labels: as text, None where a row has no label.
        revision: the commit on the hub, None for a file.
        warnings: what the user should know about how they were read.
    """

    texts: list[str]
    labels: list[str | None]
    revision: str | None
    warnings: tuple[str, ...]


def read_source(config: Config) -> Source:
    """Read what ``dataset.hf_name`` names.

    Raises:
        DataError: not there, not readable, no rows, or without the columns.
        UserError: the hub refused or cannot be reached.
    """
    settings = config.dataset
    if settings.hf_name == EMBEDDED:
        return _columns(pd.read_parquet(config.path("embedded.dir") / "corpus_eval.parquet"), config, None)
    file = project_path(settings.hf_name)
    if file.suffix in SOURCE_SUFFIXES:
        return _columns(_read_file(file), config, None)
    return _read_hub(config)


def write_dataset(config: Config, source: Source, mapping: LabelMapping, origin: str, warnings: tuple[str, ...]) -> None:
    """Write the data set, its label mappings and its record; each file is whole or untouched."""
    numbers = mapping.label2id if origin != "ids" else {str(i): i for i in range(len(mapping.names))}
    ids = [MISSING_ID if label is None else numbers[label] for label in source.labels]
    names = [mapping.names[number] if number != MISSING_ID else "" for number in ids]
    file = config.data_file
    if file.suffix == ".csv" and sys.version_info < (3, 11) and any("\0" in text for text in source.texts):
        fix = f"use Python 3.11 or later, or --set dataset.local_path={file.with_suffix('.parquet')}"
        raise DataError("Texts hold NUL characters, which Python 3.10's csv module cannot write.", where=file, fix=fix)
    _check_space(file, sum(len(text.encode()) for text in source.texts))
    with atomic_path(file) as temporary:
        if file.suffix == ".parquet":
            frame = pd.DataFrame(dict(zip(COLUMNS, (source.texts, names, ids), strict=True)))
            frame.to_parquet(temporary, index=False)
        else:
            with temporary.open("w", encoding="utf-8", newline="") as out:
                # All strings are quoted: a lone carriage return or an empty text comes back as it was.
                table = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
                table.writerow(COLUMNS)
                table.writerows(zip(source.texts, names, ids, strict=True))
    write_json(config.label_mappings_file, mapping.to_json())
    record = {
        "name": config.dataset.hf_name, "revision": source.revision, "num_rows": len(ids),
        "num_labels": len(mapping.names), "label_mapping_source": origin, "sha256": sha256_file(file),
        "warnings": [*source.warnings, *warnings],
    }
    write_json(file.parent / "dataset_info.json", record)


def _read_file(file: Path) -> pd.DataFrame:
    fix = "--set dataset.hf_name=PATH names a UTF-8 .csv, a .jsonl or a .parquet file"
    try:
        if file.suffix == ".parquet":
            return pd.read_parquet(file)
        if file.suffix == ".jsonl":
            return pd.read_json(file, lines=True, dtype=False, encoding="utf-8", convert_dates=False)
        with file.open(encoding="utf-8-sig", newline="") as source:
            rows = list(csv.reader(source))
        width = len(rows[0]) if rows else 0
        bad = next((i for i, row in enumerate(rows, start=1) if row and len(row) != width), None)
        if bad is not None:
            raise DataError(f"Row {bad} has {len(rows[bad - 1])} fields, the header {width}.", where=file, fix=fix)
        return pd.DataFrame([row for row in rows[1:] if row], columns=rows[0] if rows else [], dtype=object)
    except FileNotFoundError as error:
        raise DataError("There is no such data file.", where=file, fix=fix) from error
    except UnicodeDecodeError as error:
        raise DataError(f"The data file is not UTF-8: {error.reason} at byte {error.start}.", where=file, fix=fix) from error
    except (ValueError, OSError, csv.Error, pa.ArrowInvalid) as error:
        raise DataError(f"The data file cannot be read: {error}.", where=file, fix=fix) from error


def _read_hub(config: Config) -> Source:
    from datasets import ClassLabel, load_dataset

    from utils.hub import hub_errors, resolve

    settings = config.dataset
    name = settings.hf_name
    place = resolve(name, settings.revision, "dataset")
    with hub_errors("data set", name, DataError):
        try:
            table: Any = load_dataset(name, revision=place.commit, split=settings.split)
        except ValueError as error:
            if "split" not in str(error).lower():
                raise
            fix = "--set dataset.split=NAME, with one of the names above"
            raise DataError(f"The data set has no split {settings.split!r}: {error}", where=name, fix=fix) from error
    frame = table.to_pandas()
    for column, feature in table.features.items():
        if isinstance(feature, ClassLabel):
            names = feature.names
            frame[column] = [None if pd.isna(i) or i < 0 else names[int(i)] for i in frame[column]]
    return _columns(frame, config, place.commit)


def _columns(frame: pd.DataFrame, config: Config, revision: str | None) -> Source:
    text_column = _find(frame, config.dataset.text_column, "dataset.text_column", config)
    label_column = _find(frame, config.dataset.label_column, "dataset.label_column", config)
    if not len(frame):
        raise DataError("The data set has no rows.", where=config.dataset.hf_name, fix="name another file or split")
    texts, replaced = [], 0
    for value in frame[text_column]:
        text = "" if _missing(value) else str(value)
        clean = text.encode("utf-8", "replace").decode("utf-8")
        replaced += clean != text
        texts.append(clean)
    warnings = (f"{replaced} texts held lone surrogates, which UTF-8 cannot hold; each became '?'",) if replaced else ()
    labels = [None if _missing(value) else _label(value) for value in frame[label_column]]
    return Source(texts=texts, labels=labels, revision=revision, warnings=warnings)


def _find(frame: pd.DataFrame, wanted: str, key: str, config: Config) -> str:
    for name in (wanted, SYNONYMS.get(wanted, wanted)):
        if name in frame.columns:
            return name
    raise DataError(
        f"The data set has no column {wanted!r}; it has {', '.join(map(repr, frame.columns)) or 'none'}.",
        where=config.dataset.hf_name, fix=f"--set {key}=NAME, with one of those",
    )


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value) or value is pd.NA


def _label(value: Any) -> str | None:
    """A label as text: 3.0 is 3, as a column of ids with a gap is read as floats; empty is none."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) or None


def _check_space(file: Path, needed_bytes: int) -> None:
    folder = file.parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed_bytes + SPARE_BYTES > free:
        raise DataError(
            f"Too little disk: the data set needs about {needed_bytes / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free.",
            where=folder, fix="free some space, or --set dataset.local_path=PATH on another disk",
        )
