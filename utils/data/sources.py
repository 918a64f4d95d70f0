"""Opens what ``dataset.hf_name`` names as a stream of rows.

It is a data set of the hub, local files or the embedded corpus.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.core.errors import DataError
from utils.data.cells import class_name, label_of, replace_surrogates, text_of
from utils.data.columns import Columns, choose_columns, warn_about_other_columns
from utils.data.files import find_files, origin_of, warn_about_file_names
from utils.data.formats import SourceFile, check_source_file, iter_cells, open_source_file
from utils.data.partitions import refuse_labels_in_folder_names
from utils.pipeline import console
from utils.schema.warning_codes import WarningCode, with_code
from utils.settings import DatasetConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSource:
    """Texts and labels of a source as a stream, so that memory does not grow with the rows.

    Args:
        rows: reads from the beginning: a text and its label as text. A missing text is empty, a
            missing label None.
        revision: the commit on the hub, None for local data.
        class_names: ClassLabel names in the order of their ids, None where the labels are not
            ClassLabels. Rows hold the names.
        columns: the columns that were read; None where a source has no columns by name.
        warnings: what the user should know about the source.
    """

    rows: Callable[[], Iterator[tuple[str, str | None]]]
    revision: str | None = None
    class_names: tuple[str, ...] | None = None
    columns: Columns | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetStats:
    """Counts of one reading of a source, and what the user should know about it."""

    num_rows: int
    text_bytes: int
    nul_texts: int
    label_rows: Counter[str]
    warnings: tuple[str, ...]


def read_source(settings: DatasetConfig, embedded_dir: Path) -> DatasetSource:
    """Open what ``dataset.hf_name`` names and choose its columns.

    Args:
        embedded_dir: the folder of the embedded corpus.

    Raises:
        DataError: it does not exist, cannot be read, or lacks the columns (also while it is read).
        UserError: the hub refused or cannot be reached.
    """
    origin = origin_of(settings.hf_name)
    if origin in ("hub", "saved"):
        # The datasets library takes seconds to import and is needed here alone.
        from utils.data.tables import open_hub_table, open_saved_table, rows_of_table

        if origin == "hub":
            table = open_hub_table(settings)
        else:
            table = open_saved_table(settings)
        columns = choose_columns(table.column_names, settings, table.where)
        return DatasetSource(
            rows=rows_of_table(table, columns),
            revision=table.revision,
            class_names=table.class_names(columns.label),
            columns=columns,
            warnings=warn_about_other_columns(table.column_names, columns, settings),
        )
    files = find_files(settings.hf_name, settings.split, embedded_dir)
    return _source_of_files(files, settings)


def collect_stats(source: DatasetSource, where: str) -> DatasetStats:
    """Read the source once and count.

    Raises:
        DataError: there are no rows, every text is empty, or what reading them raises.
    """
    labels: Counter[str] = Counter()
    num_rows = 0
    text_bytes = 0
    nul_texts = 0
    num_replaced = 0
    num_empty = 0
    for text, label in console.progress(source.rows(), what="Reading the source", unit="row"):
        num_rows += 1
        text_bytes += len(text.encode("utf-8", "replace"))
        if "\0" in text:
            nul_texts += 1
        if not text.strip():
            num_empty += 1
        if replace_surrogates(text) != text:
            num_replaced += 1
        if label:
            labels[label] += 1
    if not num_rows:
        raise DataError("The data set has no rows.", where=where, fix="name another file or split")
    if num_empty == num_rows:
        raise _only_empty_texts(source, where)
    sentences = list(source.warnings)
    if num_empty:
        sentences.append(
            f"{num_empty:,} of {num_rows:,} texts are empty or missing: the model classifies them "
            "as empty texts, and they count in accuracy and F1"
        )
    if num_replaced:
        sentences.append(
            f"{num_replaced} texts had lone surrogates, which UTF-8 cannot encode; each became '?'"
        )
    return DatasetStats(
        num_rows=num_rows,
        text_bytes=text_bytes,
        nul_texts=nul_texts,
        label_rows=labels,
        warnings=with_code(WarningCode.DATA, sentences),
    )


def _only_empty_texts(source: DatasetSource, where: str) -> DataError:
    column = "of texts"
    if source.columns is not None:
        column = repr(source.columns.text)
    return DataError(
        f"Every text of the column {column} is empty.",
        where=where,
        fix="name the column of the texts: --set dataset.text_column=NAME",
    )


def _source_of_files(paths: list[Path], settings: DatasetConfig) -> DatasetSource:
    files = [open_source_file(path) for path in paths]
    first = files[0]
    refuse_labels_in_folder_names(first.path, first.column_names, settings)
    columns = choose_columns(first.column_names, settings, first.path)
    _refuse_different_columns(files)
    class_names = _common_class_names(files, columns.label)
    warnings = [
        *warn_about_other_columns(first.column_names, columns, settings),
        *warn_about_file_names(settings.hf_name, paths),
    ]
    for file in files:
        warnings += check_source_file(file, columns)

    def rows() -> Iterator[tuple[str, str | None]]:
        for file in files:
            yield from _rows_of_file(file, columns, class_names)

    return DatasetSource(
        rows=rows, class_names=class_names, columns=columns, warnings=tuple(warnings)
    )


def _rows_of_file(
    file: SourceFile, columns: Columns, class_names: tuple[str, ...] | None
) -> Iterator[tuple[str, str | None]]:
    label_column = columns.label or ""
    for text, label in iter_cells(file, columns):
        if class_names is not None:
            label = class_name(label, class_names, file.path)
        yield text_of(text, file.path, columns.text), label_of(label, file.path, label_column)


def _refuse_different_columns(files: list[SourceFile]) -> None:
    first = files[0]
    for file in files[1:]:
        if set(file.column_names) != set(first.column_names):
            raise DataError(
                f"The files have different columns: {first.path.name} has "
                f"{', '.join(map(repr, first.column_names))}; "
                f"{file.path.name} has {', '.join(map(repr, file.column_names))}.",
                where=file.path,
                fix="name files of one data set only, with --set dataset.hf_name=PATH or a pattern",
            )


def _common_class_names(
    files: list[SourceFile], label_column: str | None
) -> tuple[str, ...] | None:
    if label_column is None:
        return None
    first = files[0].class_names.get(label_column)
    for file in files[1:]:
        if file.class_names.get(label_column) != first:
            raise DataError(
                f"The files have different class names in the column {label_column!r}: "
                f"{files[0].path.name} and {file.path.name}.",
                where=file.path,
                fix="save the labels as names (text) in all files",
            )
    return first
