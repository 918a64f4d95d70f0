"""The records beside the prepared data set: what it was made from, and its label ids."""

from __future__ import annotations

from typing import Literal

from utils.core.files import JsonObject
from utils.schema.common import (
    Count,
    PositiveCount,
    Record,
    Sha256,
    optional,
    required,
    text,
    warnings,
)

DATASET_RECORD_VERSION: Literal[2] = 2
"""Version of ``dataset_info.json``. A data set of an earlier version is made again."""

Origin = Literal["embedded", "files", "folder", "saved", "hub"]
"""What ``dataset.hf_name`` is."""


class PreparedDatasetInfo(Record):
    """What the data set beside it was made from, and how."""

    record_version: Literal[2] = optional(
        "Version of this file's format.", default=DATASET_RECORD_VERSION
    )
    file: str = text("Name of the data set's file.")
    sha256: Sha256 = text("Hash of that file.")
    name: str = text("`dataset.hf_name`.")
    origin: Origin = text("What that name is.")
    revision: str | None = optional("Commit on the hub.")
    settings: JsonObject = text("The settings that decided the content of the file, by dotted key.")
    split: str | None = optional("Split of the source.")
    source_text_column: str | None = optional("Column of the source with the texts.")
    source_label_column: str | None = optional("Column of the source with the labels.")
    model_label_names: tuple[str, ...] | None = optional(
        "Label names of the model's configuration; null where it has none."
    )
    model_num_labels: PositiveCount = text("Labels that the model predicts.")
    num_rows: Count = required("rows", "Rows of the file.")
    num_labels: Count = text("Labels of the data set.")
    label_mapping_source: str = text("What the label ids were decided by.")
    label_mapping_confidence: str = text("How sure the label ids are.")
    label_mapping_note: str = text("What to know about the label ids.")
    warnings: tuple[str, ...] = warnings()
    written_files: dict[str, tuple[str, ...]] = text(
        "The hashes under which step 01 may replace a file, by file name: of what it wrote, and "
        "after an interruption also of what it was about to write."
    )


class LabelMappings(Record):
    """Which label id stands for which label name."""

    label2id: dict[str, int] = text("Id of each label name.")
    id2label: dict[str, str] = text("Name of each label id, which is written as text.")
    num_labels: Count = text("Number of labels.")
