"""Notices quotation marks that the csv module and pandas read in another way than they are meant.

Neither complains about ``"he said \\"yes\\""`` or ``"quoted" text``: marks are lost or moved, and
the model reads other texts than the file's author wrote.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence

SPACED_QUOTE = re.compile(r' +"(?:[^"]|"")*" *')
"""A field whose quotation marks stay in its text, because a space stands before the first one."""
BACKSLASH = r"escapechar='\\'"


class QuotationMarks:
    """Counts the rows of a file whose quotation marks are not those of a CSV file."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter
        # As it stands in the file: within a quoted field the mark would be doubled.
        self._space_in_file = re.compile(f'(?:^|{re.escape(delimiter)}) +"(?!")')
        self._lines_with_rest: list[int] = []
        self._lines_with_space: list[int] = []

    def add(self, fields: Sequence[str], lines: Sequence[str], first_line: int) -> None:
        """Add a row, given by its fields and by the lines that it spans."""
        if not any('"' in line for line in lines):
            return
        if self._has_text_after_quote(lines):
            self._lines_with_rest.append(first_line)
        has_space = any(self._space_in_file.search(line) for line in lines)
        if has_space and any(SPACED_QUOTE.fullmatch(field) for field in fields):
            self._lines_with_space.append(first_line)

    def _has_text_after_quote(self, lines: Sequence[str]) -> bool:
        """Whether text follows a closing quotation mark, which a strict reader refuses."""
        try:
            list(csv.reader(lines, delimiter=self._delimiter, strict=True))
        except csv.Error:
            return True
        return False

    def warnings(self) -> tuple[str, ...]:
        """What to know about the marks."""
        warnings = []
        if self._lines_with_rest:
            warnings.append(
                f"{_rows(self._lines_with_rest)} text after a closing quotation mark, so that "
                "marks are lost: where backslashes escape quotation marks, convert the file with "
                f"{self._conversion('doublequote=False', BACKSLASH)}; where no field is quoted, "
                f"with {self._conversion('quoting=3')}"
            )
        if self._lines_with_space:
            warnings.append(
                f"{_rows(self._lines_with_space)} a space before a quotation mark, so that the "
                "marks stay in the text: convert the file with "
                f"{self._conversion('skipinitialspace=True')}"
            )
        return tuple(warnings)

    def _conversion(self, *options: str) -> str:
        return conversion(self._delimiter, *options)


def conversion(delimiter: str, *options: str) -> str:
    """The call of pandas that reads a file with these options and saves it as Parquet."""
    arguments = ["PATH", *options]
    if delimiter == "\t":
        arguments.append(r"sep='\t'")
    return f"pandas.read_csv({', '.join(arguments)}).to_parquet('NEW.parquet')"


def _rows(lines: Sequence[int]) -> str:
    """How many rows there are, and where the first one begins."""
    if len(lines) == 1:
        return f"the row at line {lines[0]} has"
    return f"{len(lines):,} rows, the first at line {lines[0]}, have"
