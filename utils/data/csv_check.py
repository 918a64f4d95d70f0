"""Refuses CSV and TSV files in which a quotation mark swallows rows.

A text that begins with a quotation mark which is never closed takes in everything up to the next
one. Neither the csv module nor pandas complains: rows disappear, and the text that is measured is
not the user's.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from utils.core.errors import DataError
from utils.data.csv_quotes import QuotationMarks, conversion

END = "end of file"
"""Given to the parser after the last line: it becomes a row of its own unless a quoted field is
still open.
"""
MIN_SWALLOWED_LINES = 3
"""From this many lines on that look like rows, a quoted field counts as unclosed, even among many
texts over several lines.
"""
MAX_SHOWN = 5
DELIMITERS = (";", "\t", ",", "|")
csv.field_size_limit(sys.maxsize)  # a text may be longer than the default limit of 128 KiB


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspicion:
    """A row over several lines, some of which look like rows themselves.

    Args:
        line: where the row begins, counted from 1.
        labels: labels of those of its lines that have the right number of fields; empty texts where
            the file has no label column.
        num_lines: all of its lines.
    """

    line: int
    labels: tuple[str, ...]
    num_lines: int


def check_csv(
    lines: Iterable[str], delimiter: str, label_column: str | None, where: object
) -> tuple[str, ...]:
    """Read a file to its end and return warnings about its quotation marks.

    Args:
        lines: with their line ends, split at ``\\n``, ``\\r\\n`` and ``\\r`` only.
        label_column: by whose values swallowed rows are recognised; None where there is none, so
            that the number of fields alone decides.

    Raises:
        DataError: a row of another width than the header's, a quoted field that never ends or that
            swallows rows, or lines that are not UTF-8.
    """
    feed = _Feed(lines)
    reader = csv.reader(feed, delimiter=delimiter)
    try:
        return _check(feed, reader, delimiter, label_column, where)
    except UnicodeDecodeError as error:
        # Text is decoded ahead of the line that is parsed, so the place is known only roughly.
        raise DataError(
            f"The data set is damaged after line {feed.count}: not UTF-8, {error.reason}.",
            where=where,
            fix="save the file as UTF-8",
        ) from error
    except csv.Error as error:
        raise DataError(
            f"The data set is damaged at line {feed.count}: {error}.",
            where=where,
            fix="correct that line",
        ) from error


def looks_like_other_delimiter(header: Sequence[str], delimiter: str) -> str | None:
    """The character that seems to separate the columns of a header which has only one, or None."""
    if len(header) != 1:
        return None
    others = [character for character in DELIMITERS if character != delimiter]
    best = max(others, key=header[0].count)
    if best not in header[0]:
        return None
    return best


class _Feed:
    """The lines of a file, then ``END``; remembers the lines of the row that is being parsed."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.row_lines: list[str] = []
        self.count = 0
        self._ended = False
        self.last_line = ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._ended:
            raise StopIteration
        line = next(self._lines, None)
        if line is None:
            self._ended = True
            return END
        self.count += 1
        self.last_line = line
        self.row_lines.append(line)
        return line

    def is_at_end(self) -> bool:
        """Whether ``END`` was handed out."""
        return self._ended


def _check(
    feed: _Feed,
    reader: Iterator[list[str]],
    delimiter: str,
    label_column: str | None,
    where: object,
) -> tuple[str, ...]:
    header = next(reader, [])
    if feed.is_at_end():
        if header != [END]:
            raise _unclosed(header, feed, delimiter, where)
        return ()
    label_index = None
    if label_column is not None:
        label_index = header.index(label_column)
    seen = _SeenRows(width=len(header), label_index=label_index, delimiter=delimiter)
    marks = QuotationMarks(delimiter)
    first_line = feed.count + 1
    feed.row_lines.clear()
    for fields in reader:
        if feed.is_at_end():
            if fields != [END]:
                raise _unclosed(fields, feed, delimiter, where)
            break
        if len(fields) == len(header):
            seen.add(fields, feed.row_lines, first_line)
            marks.add(fields, feed.row_lines, first_line)
        elif any(cell.strip() for cell in fields):
            raise _wrong_width(fields, header, first_line, where)
        first_line = feed.count + 1
        feed.row_lines.clear()
    if len(header) == 1:
        return (*_warn_about_multi_line_texts(seen.multi_line_rows), *marks.warnings())
    possible, certain = _find_swallowing_rows(seen)
    if certain:
        raise _swallowed_rows(min(certain), delimiter, where)
    return (*_warn_about_further_rows(possible), *marks.warnings())


class _SeenRows:
    """What the check collects about the rows that have the header's width."""

    def __init__(self, *, width: int, label_index: int | None, delimiter: str) -> None:
        self.width = width
        self.label_index = label_index
        self.delimiter = delimiter
        self.labels: Counter[str] = Counter()
        self.suspicions: list[Suspicion] = []
        self.multi_line_rows: list[int] = []

    def add(self, fields: Sequence[str], lines: Sequence[str], first_line: int) -> None:
        """Add a row, given by its fields and by the lines that it spans."""
        if self.label_index is not None:
            self.labels[fields[self.label_index]] += 1
        if len(lines) == 1:
            return
        self.multi_line_rows.append(first_line)
        suspicion = self._suspicion(lines, first_line)
        if suspicion is not None:
            self.suspicions.append(suspicion)

    def _suspicion(self, lines: Sequence[str], first_line: int) -> Suspicion | None:
        """The row, if at least two of its lines look like rows.

        One line of a legitimate row may, with its own label.
        """
        if self.width == 1:
            return None
        labels: list[str] = []
        for line in lines:
            fields = line.rstrip("\r\n").split(self.delimiter)
            if len(fields) != self.width:
                fields = next(csv.reader([line], delimiter=self.delimiter), [])
            if len(fields) != self.width:
                continue
            label = ""
            if self.label_index is not None:
                label = fields[self.label_index]
            labels.append(label.strip().strip('"'))
        if len(labels) < 2:
            return None
        num_lines = sum(bool(line.strip()) for line in lines)
        return Suspicion(line=first_line, labels=tuple(labels), num_lines=num_lines)


def _warn_about_multi_line_texts(lines: Sequence[int]) -> tuple[str, ...]:
    """In a file of one column, any line may be a row, so swallowed rows cannot be recognised."""
    if not lines:
        return ()
    count = f"1 text spans several lines, at line {lines[0]}"
    if len(lines) > 1:
        count = f"{len(lines):,} texts span several lines, the first at line {lines[0]}"
    return (f"{count}: check the quotation marks there if each line is a text",)


def _find_swallowing_rows(seen: _SeenRows) -> tuple[list[int], list[int]]:
    """The lines of the rows that may have swallowed others, and of those that certainly did.

    A line looks like a row if it has the right number of fields and, where the file has labels, a
    label of the file. What a row over several lines counts as, with the labels 0 and 1:

    =============  ==============================================  =======================
    counted as     lines that look like rows                       example
    =============  ==============================================  =======================
    possible       2 or more                                       ``a,0 / b,1 / c``
    certain        ``MIN_SWALLOWED_LINES`` or more, at least half  ``a,0 / b,1 / c,0 / d``
    entirely_rows  all lines, but too few to be certain            ``a,0 / b,1``
    =============  ==============================================  =======================

    The last two are possible as well. Rows of ``entirely_rows`` become certain if they are at least
    half of the rows over several lines.
    """
    possible: list[int] = []
    certain: list[int] = []
    entirely_rows: list[int] = []
    has_labels = any(label.strip() for label in seen.labels)
    for suspicion in seen.suspicions:
        like_rows = len(suspicion.labels)
        if has_labels:
            known = [label for label in suspicion.labels if label and label in seen.labels]
            like_rows = len(known)
        if like_rows < 2:
            continue
        possible.append(suspicion.line)
        if like_rows >= MIN_SWALLOWED_LINES and 2 * like_rows >= suspicion.num_lines:
            certain.append(suspicion.line)
        elif like_rows >= suspicion.num_lines and has_labels:
            entirely_rows.append(suspicion.line)
    # Two lines that both look like rows are weak evidence where many texts have line breaks, strong
    # evidence where few do.
    if 2 * len(entirely_rows) >= len(seen.multi_line_rows):
        certain += entirely_rows
    return possible, certain


def _warn_about_further_rows(lines: Sequence[int]) -> tuple[str, ...]:
    if not lines:
        return ()
    shown = ", ".join(map(str, lines[:MAX_SHOWN]))
    return (
        f"{len(lines)} texts over several lines contain what looks like further rows: check the "
        f"quotation marks of the rows at line {shown}",
    )


def _swallowed_rows(line: int, delimiter: str, where: object) -> DataError:
    return DataError(
        f"The row at line {line} has a quoted field that takes in the lines after it, which look "
        "like rows of their own: a quotation mark is not closed.",
        where=where,
        fix=f"{_fix_quotes(delimiter)}. Where the lines do belong to the text, convert the file "
        f"with: {conversion(delimiter)}",
    )


def _fix_quotes(delimiter: str) -> str:
    return (
        "close the quotation mark. Where it belongs to the text, double it and put the text in "
        "quotation marks. Where no field of the file is quoted, convert the file with: "
        f"{conversion(delimiter, 'quoting=3')}"
    )


def _unclosed(fields: Sequence[str], feed: _Feed, delimiter: str, where: object) -> DataError:
    """The error for a quoted field that never ends.

    The last field is everything from its quotation mark to ``END``, so that the number of its line
    ends gives the line where it begins.
    """
    line_ends = len(re.findall(r"\r\n|\r|\n", fields[-1]))
    line = feed.count - line_ends
    if feed.last_line.endswith(("\r", "\n")):
        line += 1
    return DataError(
        f"A quoted field begins at line {line} and never ends: the file ends inside it.",
        where=where,
        fix=_fix_quotes(delimiter),
    )


def _wrong_width(
    fields: Sequence[str], header: Sequence[str], line: int, where: object
) -> DataError:
    return DataError(
        f"The row at line {line} has {len(fields)} fields, the header {len(header)}.",
        where=where,
        fix="put texts with the separator in quotation marks, with no space before the first mark",
    )
