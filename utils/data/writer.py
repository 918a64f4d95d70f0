"""Writes the prepared data set, its label mappings and its record, each atomically."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from utils.core.errors import DataError
from utils.core.files import atomic_path, check_disk_space, sha256_file, write_json
from utils.data.cells import replace_surrogates
from utils.data.dataset_settings import DatasetSettings
from utils.data.files import origin_of, refuse_target_in_source
from utils.data.label_decision import LabelDecision, decide_labels
from utils.data.labels import MISSING_ID, ModelLabels
from utils.data.prepared import (
    decisive_settings,
    known_hashes,
    read_record,
    refuse_foreign_files,
)
from utils.data.reader import BLOCK_ROWS, COLUMNS
from utils.data.sources import DatasetSource, DatasetStats, collect_stats
from utils.pipeline import console
from utils.schema.dataset import DATASET_RECORD_VERSION, PreparedDatasetInfo

MAX_KNOWN_HASHES = 4
"""Hashes recorded for a file: of the present one and of interrupted runs after it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """What the data set is made from."""

    source: DatasetSource
    stats: DatasetStats
    decision: LabelDecision
    model_labels: ModelLabels


def prepare(
    settings: DatasetSettings, source: DatasetSource, model_labels: ModelLabels
) -> Preparation:
    """Read the source once and decide the label ids.

    Raises:
        DataError: the source cannot be read, or its labels do not fit the model.
    """
    stats = collect_stats(source, settings.dataset.hf_name)
    decision = decide_labels(
        stats.label_rows,
        model_labels,
        class_names=source.class_names,
        label_map=settings.dataset.label_map,
        skip_unknown=settings.unknown_labels == "skip",
    )
    return Preparation(source=source, stats=stats, decision=decision, model_labels=model_labels)


def check_target(settings: DatasetSettings) -> None:
    """Refuse to overwrite the source or files that step 01 did not write.

    Raises:
        DataError: one of them would be overwritten.
    """
    refuse_target_in_source(settings.dataset.hf_name, settings.output_files)
    refuse_foreign_files(settings)


def write_dataset(settings: DatasetSettings, preparation: Preparation) -> None:
    """Write the data set, its label mappings and its record.

    An interruption between two of the files leaves all of them replaceable, and a record that does
    not match the data set, so that later steps ask for step 01.

    Raises:
        DataError: a file of the user's would be overwritten, or there is too little disk space.
    """
    check_target(settings)
    file = settings.data_file
    _check_writable(file, preparation.stats)
    written = known_hashes(settings)
    with atomic_path(file) as temporary:
        rows = iter(
            console.progress(
                _output_rows(preparation),
                total=preparation.stats.num_rows,
                what="Writing the data set",
                unit="row",
            )
        )
        if file.suffix == ".parquet":
            _write_parquet(temporary, rows)
        else:
            _write_csv(temporary, rows)
        sha256 = sha256_file(temporary)
        written = _announce(settings, file, sha256, written)
    mapping_file = settings.label_mappings_file
    mapping = preparation.decision.mapping.to_record().to_dict()
    with atomic_path(mapping_file) as temporary:
        text = json.dumps(mapping, indent=2, ensure_ascii=False)
        temporary.write_text(f"{text}\n", encoding="utf-8")
        mapping_sha256 = sha256_file(temporary)
        written = _announce(settings, mapping_file, mapping_sha256, written)
    written[file.name] = (sha256,)
    written[mapping_file.name] = (mapping_sha256,)
    record = describe(settings, preparation, sha256, written)
    write_json(settings.info_file, record.model_dump(mode="json"))


def _check_writable(file: Path, stats: DatasetStats) -> None:
    """Refuse NUL characters on Python 3.10, and more than fits on the disk (DataError)."""
    if file.suffix == ".csv" and sys.version_info < (3, 11) and stats.nul_texts:
        raise DataError(
            "Texts contain NUL characters, which Python 3.10's csv module cannot write.",
            where=file,
            fix="use Python 3.11 or later, or "
            f"--set dataset.local_path={file.with_suffix('.parquet')}",
        )
    check_disk_space(
        file.parent,
        stats.text_bytes,
        "the data set",
        fix="--set dataset.local_path=PATH on another disk",
        kind=DataError,
    )


def describe(
    settings: DatasetSettings,
    preparation: Preparation,
    sha256: str,
    written_files: dict[str, tuple[str, ...]],
) -> PreparedDatasetInfo:
    """The record of a data set; ``sha256`` is that of its file."""
    source = preparation.source
    decision = preparation.decision
    text_column = None
    label_column = None
    if source.columns is not None:
        text_column = source.columns.text
        label_column = source.columns.label
    decisive = decisive_settings(settings)
    return PreparedDatasetInfo(
        file=settings.data_file.name,
        sha256=sha256,
        name=settings.dataset.hf_name,
        origin=origin_of(settings.dataset.hf_name),
        revision=source.revision,
        settings=decisive,
        split=decisive.get("dataset.split"),
        source_text_column=text_column,
        source_label_column=label_column,
        model_label_names=preparation.model_labels.names,
        model_num_labels=preparation.model_labels.num_labels,
        num_rows=preparation.stats.num_rows,
        num_labels=len(decision.mapping.names),
        label_mapping_source=decision.source,
        label_mapping_confidence=decision.confidence,
        label_mapping_note=decision.note,
        warnings=(*preparation.stats.warnings, *decision.warnings),
        written_files=written_files,
    )


def _announce(
    settings: DatasetSettings, file: Path, sha256: str, written: dict[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Record that a file with this hash is about to move into place; returns all hashes."""
    known = (*written.get(file.name, ()), sha256)[-MAX_KNOWN_HASHES:]
    extended = {**written, file.name: known}
    record = {
        **read_record(settings),
        "record_version": DATASET_RECORD_VERSION,
        "written_files": extended,
    }
    write_json(settings.info_file, record)
    return extended


def _output_rows(preparation: Preparation) -> Iterator[tuple[str, str, int]]:
    """Text, label name and label id of each row; a skipped label keeps its name."""
    decision = preparation.decision
    names = decision.mapping.names
    for text, label in preparation.source.rows():
        label_id = MISSING_ID
        if label:
            label_id = decision.ids[label]
        name = ""
        if label_id >= 0:
            name = names[label_id]
        elif label and label_id != MISSING_ID:
            name = label
        yield replace_surrogates(text), name, label_id


def _write_csv(file: Path, rows: Iterator[tuple[str, str, int]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        # All strings are quoted, so that a lone carriage return or an empty text is read as it was.
        table = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(rows)


def _write_parquet(file: Path, rows: Iterator[tuple[str, str, int]]) -> None:
    schema = pa.schema([("text", pa.string()), ("labels", pa.string()), ("label_id", pa.int64())])
    with pq.ParquetWriter(file, schema) as out:
        while True:
            block = list(islice(rows, BLOCK_ROWS))
            if not block:
                return
            arrays = [pa.array(column) for column in zip(*block, strict=True)]
            out.write_batch(pa.record_batch(arrays, schema=schema))
