"""Foreign text as readers may see it: what is invisible or reorders a line becomes visible."""

from __future__ import annotations

import re

# Controls other than line feed and tab, marks that reorder or hide the text around them, and halves
# of characters, which no file can hold.
INVISIBLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff"
    r"\ud800-\udfff]"
)
LONGEST_TEXT = 2000
"""Characters of any text on the page; the files have all of it."""
LONGEST_CELL = 800
"""Characters of a cell of a table: a verdict with all its doubts fits."""
LONGEST_EXCERPT = 160
"""Characters of a text of the data set."""
LONGEST_LABEL = 26
"""Characters of a name inside a picture."""


def make_visible(text: str, longest: int = LONGEST_TEXT) -> str:
    """Text without invisible controls, at most about ``longest`` characters long."""
    left_out = len(text) - longest
    if left_out > 0:
        text = f"{text[:longest]}… ({left_out:,} more characters)"
    return INVISIBLE.sub(_code_point, text)


def _code_point(match: re.Match[str]) -> str:
    return f"⟨U+{ord(match[0]):04X}⟩"


def picture_label(text: str, longest: int = LONGEST_LABEL) -> str:
    """A name for a place inside a picture: one short line."""
    line = " ".join(make_visible(text, 10 * longest).split())
    if len(line) <= longest:
        return line
    tail = longest // 3
    return f"{line[: longest - tail - 1]}…{line[-tail:]}"
