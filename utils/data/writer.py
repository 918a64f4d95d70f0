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

from utils.config_loader import Config
from utils.core.errors import DataError
from utils.core.files import atomic_path, check_disk_space, sha256_file, write_json
from utils.data.cells import replace_surrogates
from utils.data.files import origin_of, refuse_target_in_source
from utils.data.label_decision import LabelDecision, decide_labels
from utils.data.labels import MISSING_ID, ModelLabels
from utils.data.prepared import (
    RECORD_VERSION,
    DatasetInfo,
    decisive_settings,
    info_file,
    known_hashes,
    output_files,
    read_record,
    refuse_foreign_files,
)
from utils.data.reader import BLOCK_ROWS, COLUMNS
from utils.data.sources import DatasetSource, DatasetStats, collect_stats

MAX_KNOWN_HASHES = 4
"""Hashes recorded for a file: of the present one and of interrupted runs after it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """What the data set is made from."""

    source: DatasetSource
    stats: DatasetStats
    decision: LabelDecision
    model_labels: ModelLabels


def prepare(config: Config, source: DatasetSource, model_labels: ModelLabels) -> Preparation:
    """Read the source once and decide the label ids.

    Raises:
        DataError: the source cannot be read, or its labels do not fit the model.
    """
    stats = collect_stats(source, config.dataset.hf_name)
    decision = decide_labels(
        stats.label_rows,
        model_labels,
        class_names=source.class_names,
        label_map=config.dataset.label_map,
        skip_unknown=config.evaluation.unknown_labels == "skip",
    )
    return Preparation(source=source, stats=stats, decision=decision, model_labels=model_labels)


def check_target(config: Config) -> None:
    """Refuse to overwrite the source or files that step 01 did not write.

    Raises:
        DataError: one of them would be overwritten.
    """
    refuse_target_in_source(config.dataset.hf_name, output_files(config))
    refuse_foreign_files(config)


def write_dataset(config: Config, preparation: Preparation) -> None:
    """Write the data set, its label mappings and its record.

    An interruption between two of the files leaves all of them replaceable, and a record that does
    not match the data set, so that later steps ask for step 01.

    Raises:
        DataError: a file of the user's would be overwritten, or there is too little disk space.
    """
    check_target(config)
    file = config.data_file
    _check_writable(file, preparation.stats)
    written = known_hashes(config)
    with atomic_path(file) as temporary:
        rows = _output_rows(preparation)
        if file.suffix == ".parquet":
            _write_parquet(temporary, rows)
        else:
            _write_csv(temporary, rows)
        sha256 = sha256_file(temporary)
        written = _announce(config, file, sha256, written)
    mapping_file = config.label_mappings_file
    mapping = preparation.decision.mapping.to_json()
    with atomic_path(mapping_file) as temporary:
        text = json.dumps(mapping, indent=2, ensure_ascii=False)
        temporary.write_text(f"{text}\n", encoding="utf-8")
        mapping_sha256 = sha256_file(temporary)
        written = _announce(config, mapping_file, mapping_sha256, written)
    written[file.name] = (sha256,)
    written[mapping_file.name] = (mapping_sha256,)
    record = describe(config, preparation, sha256, written)
    write_json(info_file(config), record.model_dump(mode="json"))


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
    config: Config, preparation: Preparation, sha256: str, written_files: dict[str, tuple[str, ...]]
) -> DatasetInfo:
    """The record of a data set; ``sha256`` is that of its file."""
    source = preparation.source
    decision = preparation.decision
    text_column = None
    label_column = None
    if source.columns is not None:
        text_column = source.columns.text
        label_column = source.columns.label
    settings = decisive_settings(config)
    return DatasetInfo(
        file=config.data_file.name,
        sha256=sha256,
        name=config.dataset.hf_name,
        origin=origin_of(config.dataset.hf_name),
        revision=source.revision,
        settings=settings,
        split=settings.get("dataset.split"),
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
    config: Config, file: Path, sha256: str, written: dict[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Record that a file with this hash is about to move into place; returns all hashes."""
    known = (*written.get(file.name, ()), sha256)[-MAX_KNOWN_HASHES:]
    extended = {**written, file.name: known}
    record = {**read_record(config), "record_version": RECORD_VERSION, "written_files": extended}
    write_json(info_file(config), record)
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
