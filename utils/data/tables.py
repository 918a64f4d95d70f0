"""Data sets of the datasets library: from the hub, or from a folder that ``save_to_disk`` wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, DatasetDict, Value, load_dataset, load_from_disk
from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationCastError, DatasetsError

from utils.config_loader import Config, project_path
from utils.core.errors import DataError
from utils.data.cells import class_name, label_of, nested_label, nested_text, text_of
from utils.data.columns import Columns
from utils.data.formats import BLOCK_ROWS
from utils.data.hints import setting_flag
from utils.hub.errors import hub_errors, translate_hub_error
from utils.hub.repository import resolve


@dataclass(frozen=True, kw_only=True)
class Table:
    """A data set of the datasets library, of one split.

    Args:
        data: the ``datasets.Dataset``.
        where: its name on the hub or its folder, for messages.
        revision: the commit on the hub, None for a folder.
    """

    data: Any
    where: str
    revision: str | None = None

    @property
    def column_names(self) -> list[str]:
        return list(self.data.column_names)

    def class_names(self, column: str | None) -> tuple[str, ...] | None:
        """ClassLabel names of a column in the order of their ids; None for any other column."""
        if column is None:
            return None
        kind = self.data.features[column]
        return tuple(kind.names) if isinstance(kind, ClassLabel) else None


def open_hub_table(config: Config) -> Table:
    """Download a data set of the hub, or take it from the cache.

    Raises:
        DataError: there is no such data set, configuration or split, or the library cannot read it.
        UserError: the hub refused or cannot be reached.
    """
    settings = config.dataset
    name = settings.hf_name
    place = resolve(name, settings.revision, "dataset")
    with _library_errors(name), hub_errors("data set", name, DataError):
        data: Any = load_dataset(name, settings.config, revision=place.commit, split=settings.split)
    return Table(data=data, where=name, revision=place.commit)


def open_saved_table(config: Config) -> Table:
    """Open a folder that ``save_to_disk`` wrote, with one data set or one for each split.

    Raises:
        DataError: the folder is damaged or lacks the split.
    """
    folder = project_path(config.dataset.hf_name)
    try:
        data: Any = load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, DatasetsError) as error:
        raise DataError(
            f"The folder cannot be read as a saved data set: {error}",
            where=folder,
            fix="save it again with save_to_disk",
        ) from error
    if isinstance(data, DatasetDict):
        split = config.dataset.split
        if split not in data:
            raise DataError(
                f"The data set has no split {split!r}; it has {', '.join(map(repr, data))}.",
                where=folder,
                fix=setting_flag("dataset.split", str(next(iter(data), "NAME"))),
            )
        data = data[split]
    return Table(data=data, where=str(folder))


def rows_of_table(table: Table, columns: Columns) -> Callable[[], Iterator[tuple[str, str | None]]]:
    """A function that reads the rows from the beginning.

    Raises:
        DataError: a column holds nested values, images or the like; also while rows are read.
    """
    text_kind = table.data.features[columns.text]
    if not isinstance(text_kind, (Value, ClassLabel)):
        raise nested_text(_kind_name(text_kind), table.where, columns.text)
    if columns.label is not None:
        label_kind = table.data.features[columns.label]
        if not isinstance(label_kind, (Value, ClassLabel)):
            raise nested_label(_kind_name(label_kind), table.where, columns.label)
    names = [columns.text] if columns.label is None else [columns.text, columns.label]
    data = table.data.select_columns(names)
    class_names = table.class_names(columns.label)

    def rows() -> Iterator[tuple[str, str | None]]:
        for part in data.iter(batch_size=BLOCK_ROWS):
            texts = part[columns.text]
            labels = [None] * len(texts) if columns.label is None else part[columns.label]
            for text, label in zip(texts, labels, strict=True):
                if class_names is not None:
                    label = class_name(label, class_names, table.where)
                yield (
                    text_of(text, table.where, columns.text),
                    label_of(label, table.where, columns.label or ""),
                )

    return rows


@contextmanager
def _library_errors(name: str) -> Iterator[None]:
    """Turn what the datasets library raises about a data set into one message that keeps the
    library's whole reason."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, DatasetsError) as error:
        problem = translate_hub_error(error, "data set", name)
        if problem is not None:
            raise DataError(problem.message, where=name, fix=problem.fix) from error
        what, fix = _what_and_fix(error)
        raise DataError(f"{what}\n  reason: {_full_reason(error)}", where=name, fix=fix) from error


def _what_and_fix(error: Exception) -> tuple[str, str]:
    """What is wrong in our words and what to do, by the error of the datasets library 3 to 5."""
    text = str(error)
    if "Config name is missing" in text:
        names = _names_in(text)
        fix = (
            f"{setting_flag('dataset.config', names[0])}, or another one of these"
            if names
            else "--set dataset.config=NAME"
        )
        return f"The data set has several configurations: {', '.join(names)}.", fix
    if re.search(r"BuilderConfig .* not found", text):
        names = _names_in(text)
        fix = (
            f"{setting_flag('dataset.config', names[0])}, or another one of these"
            if names
            else "--set dataset.config=null"
        )
        return f"The data set has no such configuration; it has {', '.join(names)}.", fix
    if "scripts are no longer supported" in text:
        return (
            "The data set is made by a loading script, which the datasets library no longer runs.",
            "try the hub's own conversion, --set dataset.revision=refs/convert/parquet, or "
            "download its files and name them: "
            "--set dataset.hf_name=PATH",
        )
    if re.search(r"(unknown|bad) split", text, re.IGNORECASE):
        return (
            "The data set has no such split.",
            "--set dataset.split=NAME, with one of the names below",
        )
    if (
        isinstance(error, DataFilesNotFoundError)
        or "any data files" in text
        or "any (supported) data files" in text
    ):
        return (
            "The data set's repository has no data files that can be read.",
            "check the name on the hub, or download its files, convert them and name them: --set "
            "dataset.hf_name=PATH",
        )
    if isinstance(error, DatasetGenerationCastError) or re.search(
        r"schema .*was different", _full_reason(error), re.IGNORECASE
    ):
        return (
            "The data set's files have different columns.",
            "download the files that belong together and name them: --set "
            "dataset.hf_name='FOLDER/*.parquet'; or, where it has "
            "several configurations, --set dataset.config=NAME",
        )
    return (
        "The data set cannot be read.",
        "check the data set on the hub, or download its files: --set dataset.hf_name=PATH",
    )


def _names_in(text: str) -> list[str]:
    """The names of the first list in a message."""
    match = re.search(r"\[(.*?)\]", text, re.DOTALL)
    return re.findall(r"'([^']*)'", match[1]) if match else []


def _full_reason(error: BaseException) -> str:
    """The messages of an error and of its causes, all their lines."""
    reasons: list[str] = []
    step: BaseException | None = error
    while step is not None:
        text = str(step).strip()
        if text and text not in reasons:
            reasons.append(text)
        step = step.__cause__
    lines = "\n".join(reasons).splitlines()
    return "\n    ".join(line for line in lines if line.strip())


def _kind_name(kind: Any) -> str:
    return type(kind).__name__.lower()
