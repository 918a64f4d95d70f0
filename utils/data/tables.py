"""Data sets of the datasets library: from the hub, or from a folder that ``save_to_disk`` wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, DatasetDict, Value, load_dataset, load_from_disk
from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationCastError, DatasetsError

from utils.core.errors import DataError
from utils.core.paths import project_path
from utils.data.cells import class_name, label_of, nested_label, nested_text, text_of
from utils.data.columns import Columns
from utils.data.formats import BLOCK_ROWS
from utils.data.hints import setting_flag
from utils.hub.errors import hub_errors, translate_hub_error
from utils.hub.repository import resolve
from utils.settings import DatasetConfig

NO_DATA_FILES = re.compile(r"any (\(supported\) )?data files")
OTHER_SCHEMA = re.compile(r"schema .*was different", re.IGNORECASE)

# What is wrong, and what to do.
LOADING_SCRIPT = (
    "The data set is made by a loading script, which the datasets library no longer runs.",
    "try the hub's own conversion, --set dataset.revision=refs/convert/parquet, or download its "
    "files and name them: --set dataset.hf_name=PATH",
)
NO_SUCH_SPLIT = (
    "The data set has no such split.",
    "--set dataset.split=NAME, with one of the names below",
)
NO_READABLE_FILES = (
    "The data set's repository has no data files that can be read.",
    "check the name on the hub, or download its files, convert them and name them: --set "
    "dataset.hf_name=PATH",
)
DIFFERENT_COLUMNS = (
    "The data set's files have different columns.",
    "download the files that belong together and name them: --set "
    "dataset.hf_name='FOLDER/*.parquet'; or, where it has several configurations, --set "
    "dataset.config=NAME",
)
CANNOT_BE_READ = (
    "The data set cannot be read.",
    "check the data set on the hub, or download its files: --set dataset.hf_name=PATH",
)


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


def open_hub_table(settings: DatasetConfig) -> Table:
    """Download a data set of the hub, or take it from the cache.

    Raises:
        DataError: there is no such data set, configuration or split, or the library cannot read it.
        UserError: the hub refused or cannot be reached.
    """
    name = settings.hf_name
    place = resolve(name, settings.revision, "dataset")
    with _library_errors(name), hub_errors("data set", name, DataError):
        data: Any = load_dataset(name, settings.config, revision=place.commit, split=settings.split)
    return Table(data=data, where=name, revision=place.commit)


def open_saved_table(settings: DatasetConfig) -> Table:
    """Open a folder that ``save_to_disk`` wrote, with one data set or one for each split.

    Raises:
        DataError: the folder is damaged or lacks the split.
    """
    folder = project_path(settings.hf_name)
    try:
        data: Any = load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, DatasetsError) as error:
        raise DataError(
            f"The folder cannot be read as a saved data set: {error}",
            where=folder,
            fix="save it again with save_to_disk",
        ) from error
    if isinstance(data, DatasetDict):
        split = settings.split
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
        DataError: a column has nested values, images or the like; also while rows are read.
    """
    text_kind = table.data.features[columns.text]
    if not isinstance(text_kind, (Value, ClassLabel)):
        raise nested_text(_kind_name(text_kind), table.where, columns.text)
    if columns.label is not None:
        label_kind = table.data.features[columns.label]
        if not isinstance(label_kind, (Value, ClassLabel)):
            raise nested_label(_kind_name(label_kind), table.where, columns.label)
    names = [columns.text]
    if columns.label is not None:
        names.append(columns.label)
    data = table.data.select_columns(names)
    class_names = table.class_names(columns.label)

    def rows() -> Iterator[tuple[str, str | None]]:
        for part in data.iter(batch_size=BLOCK_ROWS):
            texts = part[columns.text]
            labels = [None] * len(texts)
            if columns.label is not None:
                labels = part[columns.label]
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
    """Turn what the datasets library raises into a DataError with the library's full reason."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, DatasetsError) as error:
        problem = translate_hub_error(error, "data set", name)
        if problem is not None:
            raise DataError(problem.message, where=name, fix=problem.fix) from error
        what, fix = _describe_library_error(error)
        raise DataError(f"{what}\n  reason: {_full_reason(error)}", where=name, fix=fix) from error


def _describe_library_error(error: Exception) -> tuple[str, str]:
    """What is wrong and what to do, by the error of the datasets library 3 to 5."""
    text = str(error)
    if "Config name is missing" in text:
        names = _names_in(text)
        what = f"The data set has several configurations: {', '.join(names)}."
        return what, _suggest_configuration(names, fallback="NAME")
    if re.search(r"BuilderConfig .* not found", text):
        names = _names_in(text)
        what = f"The data set has no such configuration; it has {', '.join(names)}."
        return what, _suggest_configuration(names, fallback="null")
    if "scripts are no longer supported" in text:
        return LOADING_SCRIPT
    if re.search(r"(unknown|bad) split", text, re.IGNORECASE):
        return NO_SUCH_SPLIT
    if isinstance(error, DataFilesNotFoundError) or NO_DATA_FILES.search(text):
        return NO_READABLE_FILES
    if isinstance(error, DatasetGenerationCastError) or OTHER_SCHEMA.search(_full_reason(error)):
        return DIFFERENT_COLUMNS
    return CANNOT_BE_READ


def _suggest_configuration(names: list[str], *, fallback: str) -> str:
    if names:
        return f"{setting_flag('dataset.config', names[0])}, or another one of these"
    return f"--set dataset.config={fallback}"


def _names_in(text: str) -> list[str]:
    """The names of the first list in a message."""
    match = re.search(r"\[(.*?)\]", text, re.DOTALL)
    if match is None:
        return []
    return re.findall(r"'([^']*)'", match[1])


def _full_reason(error: BaseException) -> str:
    """The messages of an error and of its causes, all their lines."""
    reasons: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).strip()
        if text and text not in reasons:
            reasons.append(text)
        cause = cause.__cause__
    lines = "\n".join(reasons).splitlines()
    return "\n    ".join(line for line in lines if line.strip())


def _kind_name(kind: Any) -> str:
    return type(kind).__name__.lower()
