"""What a cell of a source file is as a text and as a label."""

from __future__ import annotations

import math
from typing import Any

from utils.core.errors import DataError


def is_missing(value: Any) -> bool:
    """Whether a cell is null, or NaN in a column of numbers."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def text_of(value: Any, where: object, column: str) -> str:
    """A text as it is in the file; a missing one is empty, bytes are decoded.

    Raises:
        DataError: a nested value, or bytes that are not UTF-8.
    """
    if is_missing(value):
        return ""
    if isinstance(value, bytes):
        return _decoded(value, where, column)
    if is_nested(value):
        raise nested_text(type(value).__name__, where, column)
    return str(value)


def label_of(value: Any, where: object, column: str) -> str | None:
    """A label as text, or None if it is missing.

    3.0 becomes 3, because a column of ids with gaps is read as floats.

    Raises:
        DataError: a nested value, or bytes that are not UTF-8.
    """
    if is_missing(value):
        return None
    if is_nested(value):
        raise nested_label(type(value).__name__, where, column)
    if isinstance(value, bytes):
        value = _decoded(value, where, column)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    label = replace_surrogates(str(value))
    if not label.strip():
        return None
    return label


def replace_surrogates(text: str) -> str:
    """The text with question marks for lone surrogates, which UTF-8 and tokenizers refuse."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def is_nested(value: Any) -> bool:
    return isinstance(value, (list, tuple, dict, set))


def nested_text(kind: str, where: object, column: str) -> DataError:
    return DataError(
        f"The column {column!r} has nested values instead of texts ({kind}), such as chat "
        "turns or tokens.",
        where=where,
        fix="join each row's parts into one string column first, as the model's training data was "
        "joined, and name it with --set dataset.text_column=NAME",
    )


def nested_label(kind: str, where: object, column: str) -> DataError:
    return DataError(
        f"The column {column!r} has nested values instead of one label a row ({kind}), such as "
        "several labels or a vector.",
        where=where,
        fix="make a column with one label a row and name it with --set dataset.label_column=NAME; "
        "or measure without accuracy: --set dataset.label_column=null",
    )


def _decoded(value: bytes, where: object, column: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"The column {column!r} has bytes that are not UTF-8 ({error.reason}): {value[:20]!r}.",
            where=where,
            fix="decode the column to strings before you save the file",
        ) from error


def class_name(number: int | None, names: tuple[str, ...], where: object) -> str | None:
    """The name of a ClassLabel id; -1 and null are no label.

    Raises:
        DataError: an id that has no name.
    """
    if number is None or number == -1:
        return None
    if not 0 <= number < len(names):
        raise DataError(
            f"The data set has the label id {number}, but only {len(names)} class names.",
            where=where,
            fix="correct the data set's class names, or save its labels as text",
        )
    return names[number]
