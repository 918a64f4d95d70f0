"""Opens what ``dataset.hf_name`` names: a data set of the hub, local files or the embedded corpus,
as a stream of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.config_loader import Config
from utils.core.errors import DataError
from utils.data.cells import class_name, encodable, label_of, text_of
from utils.data.columns import Columns, choose_columns
from utils.data.files import find_files, origin_of
from utils.data.formats import SourceFile, check_source_file, iter_cells, open_source_file
from utils.data.partitions import refuse_labels_in_folder_names


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Texts and labels as they stand in the source, in a stream: memory does not grow with the
    rows.

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


def read_source(config: Config) -> Source:
    """Open what ``dataset.hf_name`` names and choose its columns.

    Raises:
        DataError: it is not there, not readable, or has not the columns (also while it is read).
        UserError: the hub refused or cannot be reached.
    """
    origin = origin_of(config)
    if origin in ("hub", "saved"):
        # The datasets library takes seconds to import and is needed here alone.
        from utils.data.tables import open_hub_table, open_saved_table, rows_of_table

        table = open_hub_table(config) if origin == "hub" else open_saved_table(config)
        columns = choose_columns(table.column_names, config.dataset, table.where)
        return Source(
            rows=rows_of_table(table, columns),
            revision=table.revision,
            class_names=table.class_names(columns.label),
            columns=columns,
        )
    return _source_of_files(find_files(config), config)


def scan(source: Source, where: str) -> DatasetStats:
    """Read the source once and count.

    Raises:
        DataError: there are no rows, or what reading them raises.
    """
    labels: Counter[str] = Counter()
    rows = text_bytes = nul_texts = replaced = 0
    for text, label in source.rows():
        rows += 1
        text_bytes += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        nul_texts += "\0" in text
        replaced += encodable(text) != text
        if label:
            labels[label] += 1
    if not rows:
        raise DataError("The data set has no rows.", where=where, fix="name another file or split")
    warnings = list(source.warnings)
    if replaced:
        warnings.append(
            f"{replaced} texts held lone surrogates, which UTF-8 cannot hold; each became '?'"
        )
    return DatasetStats(
        num_rows=rows,
        text_bytes=text_bytes,
        nul_texts=nul_texts,
        label_rows=labels,
        warnings=tuple(warnings),
    )


def _source_of_files(paths: list[Path], config: Config) -> Source:
    files = [open_source_file(path) for path in paths]
    first = files[0]
    refuse_labels_in_folder_names(first.path, first.column_names, config.dataset)
    columns = choose_columns(first.column_names, config.dataset, first.path)
    _refuse_different_columns(files)
    class_names = _common_class_names(files, columns.label)
    warnings = [warning for file in files for warning in check_source_file(file, columns)]

    def rows() -> Iterator[tuple[str, str | None]]:
        for file in files:
            yield from _rows_of_file(file, columns, class_names)

    return Source(rows=rows, class_names=class_names, columns=columns, warnings=tuple(warnings))


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
