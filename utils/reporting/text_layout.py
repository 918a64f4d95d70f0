"""Text of a fixed width: paragraphs, lists, named values and tables."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from utils.reporting.formatting import Fact
from utils.reporting.tables import Table

GAP = "  "
PAGE_COLUMNS = 80
COPY_INDENT = " " * 6
GLUE = "\N{NO-BREAK SPACE}"
INSEPARABLE = re.compile(r"(?<=--set) | (?=scripts/)|(?<=\d) (?=(?:s|ms|us|MB|GB|W)\b)")
"""Spaces at which no line ends: in a command, and between a number and its unit."""
MIN_COLUMN_WIDTH = 8
"""Characters that a shortened column keeps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextLayout:
    """Lines of at most ``width`` columns; only a value to copy may be longer."""

    width: int

    def wrap(self, text: str, first_indent: str = "", further_indent: str = "") -> list[str]:
        """The lines of a paragraph."""
        lines = textwrap.wrap(
            INSEPARABLE.sub(GLUE, one_line(text)),
            self.width,
            initial_indent=first_indent,
            subsequent_indent=further_indent,
            # Options such as --log-level and names of files stay in one piece.
            break_on_hyphens=False,
        )
        lines = [line.replace(GLUE, " ") for line in lines]
        return lines or [first_indent.rstrip()]

    def bullets(self, texts: Iterable[str]) -> list[str]:
        """A list, one item a text."""
        lines = []
        for text in texts:
            lines += self.wrap(text, "- ", "  ")
        return lines

    def facts(self, facts: Iterable[Fact], name_columns: int = 20) -> list[str]:
        """``name: value`` lines, with the values in one column.

        A value to copy stands on a line of its own, however long it is.
        """
        lines = []
        for fact in facts:
            start = f"{fact.name}:"
            if fact.is_verbatim:
                lines += [start, verbatim(fact.text)]
            else:
                indent = " " * (name_columns + 1)
                lines += self.wrap(fact.text, f"{start:<{name_columns}} ", indent)
        return lines

    def table(self, table: Table) -> list[str]:
        """Caption, header, rule and rows in aligned columns."""
        rows = [table.header]
        for row in table.rows:
            rows.append(tuple(one_line(cell) for cell in row))
        widths = self._column_widths(rows)
        header, *body = [_row_line(row, widths, table.num_text_columns) for row in rows]
        rule = "-" * _table_width(widths)
        return [*self.wrap(f"{table.caption}:"), header, rule, *body]

    def _column_widths(self, rows: Sequence[Sequence[str]]) -> list[int]:
        """A width for each column; the widest shrink until the table fits onto the page."""
        widths = []
        for column in zip(*rows, strict=True):
            widths.append(max(len(cell) for cell in column))
        while _table_width(widths) > self.width and max(widths) > MIN_COLUMN_WIDTH:
            widths[widths.index(max(widths))] -= 1
        return widths


PAGE = TextLayout(width=PAGE_COLUMNS)
"""The layout of the text report and of what the terminal shows of it."""


def section(title: str, lines: Sequence[str]) -> str:
    """A title, underlined, with its lines."""
    return "\n".join([title, "-" * len(title), *lines])


def verbatim(text: str) -> str:
    """A line to copy: it is indented, and no width breaks it."""
    return f"{COPY_INDENT}{one_line(text)}"


def one_line(text: str) -> str:
    """The text on one line, for a terminal: control characters, which it would obey, become �."""
    characters = []
    for character in " ".join(text.split()):
        characters.append(character if character.isprintable() else "�")
    return "".join(characters)


def _table_width(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _row_line(row: Sequence[str], widths: Sequence[int], num_text_columns: int) -> str:
    """Text to the left, numbers to the right; a cell that is too long loses its middle."""
    cells = []
    for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
        if len(cell) > width:
            # Both ends stay, because paths often differ in their last part.
            num_last = (width - 1) // 2
            cell = f"{cell[: width - 1 - num_last]}…{cell[len(cell) - num_last :]}"
        is_text = index < num_text_columns
        cells.append(cell.ljust(width) if is_text else cell.rjust(width))
    return GAP.join(cells).rstrip()
