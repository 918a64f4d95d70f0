"""Refuses data sets whose labels are in folder names, as in ``label=positive/part.parquet``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from utils.core.errors import DataError
from utils.data.columns import WITHOUT_LABELS, is_configured, looks_like_labels
from utils.settings import DatasetConfig


def refuse_labels_in_folder_names(
    file: Path, column_names: Sequence[str], settings: DatasetConfig
) -> None:
    """Refuse a file without the label column where one of its folders is called ``label=VALUE``.

    Raises:
        DataError: the labels would be lost.
    """
    configured = settings.label_column
    if configured is None or any(is_configured(name, configured) for name in column_names):
        return
    for folder in file.parents:
        key, equals, _ = folder.name.partition("=")
        if equals and (is_configured(key, configured) or looks_like_labels(key)):
            raise DataError(
                f"The labels are in the folder names ({folder.name!r}): the files have no column "
                f"{key!r}.",
                where=folder.parent,
                fix=f"{_fix(file)}; {WITHOUT_LABELS}",
            )


def _fix(file: Path) -> str:
    if file.suffix.lower() == ".parquet":
        return (
            "write the labels into a file: pandas.read_parquet(FOLDER).to_parquet('NEW.parquet'), "
            "and name it: --set dataset.hf_name=NEW.parquet"
        )
    return "write the labels into a column of the files"
