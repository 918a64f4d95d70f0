"""Foreign text never hides or reorders what stands on the page."""

from __future__ import annotations

import pytest

from utils.reporting.page.visible import make_visible, picture_label


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x00b\x1bc\x7f", "a⟨U+0000⟩b⟨U+001B⟩c⟨U+007F⟩"),
        ("evil\u202egnp.exe", "evil⟨U+202E⟩gnp.exe"),
        ("zero\u200bwidth\ufeff", "zero⟨U+200B⟩width⟨U+FEFF⟩"),
        ("half a pair \ud800", "half a pair ⟨U+D800⟩"),
        ("lines\nand\ttabs stay", "lines\nand\ttabs stay"),
        ("سلام and 日本語 stay", "سلام and 日本語 stay"),
    ],
)
def test_controls_become_visible(text: str, expected: str) -> None:
    assert make_visible(text) == expected


def test_a_long_text_says_how_much_is_left_out() -> None:
    assert make_visible("x" * 10_000, longest=5) == "xxxxx… (9,995 more characters)"


def test_a_label_in_a_picture_is_one_short_line() -> None:
    label = picture_label("first line\n" + "x" * 10_000 + " end")
    assert len(label) == 26
    assert "\n" not in label
    assert picture_label("short") == "short"
