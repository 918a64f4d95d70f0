"""The record of ``change.json``: which change is measured in a folder, and on which machine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from utils.schema.common import Record, optional, read_record, text, write_record

CHANGE_VERSION: Literal[1] = 1
"""Version of ``change.json``."""
STEP_06 = "python scripts/06_measure_change.py"


class ChangedSetting(Record):
    """A setting that the two sides have with different values."""

    key: str = text("Dotted key.")
    before: str = text("Its value in the baseline: text as it is, everything else as JSON.")
    after: str = text("Its value in the candidate.")


class ChangeRecord(Record):
    """The change whose processes are in the folder."""

    schema_version: Literal[1] = optional("Version of this file's format.", default=CHANGE_VERSION)
    settings: tuple[ChangedSetting, ...] = text("The settings that were changed.")
    machine: dict[str, str | None] = text(
        "Host, Python, libraries and environment variables of the finished processes."
    )


def load_change(path: Path) -> ChangeRecord:
    """Read ``change.json``.

    Raises:
        UserError: the file is missing, is not valid JSON or does not fit the record.
    """
    return read_record(path, ChangeRecord, made_by=STEP_06)


def save_change(path: Path, record: ChangeRecord) -> None:
    """Write ``change.json`` atomically.

    Raises:
        UserError: the file cannot be written.
    """
    write_record(path, record)
