"""An error's reason within another message: complete, on one line, bounded."""

from __future__ import annotations

import pytest

from utils.core.errors import reason_of


def test_the_reason_on_the_second_line_is_kept() -> None:
    error = OSError("Can't load the tokenizer.\n  You need to have sentencepiece installed.\n")
    assert reason_of(error) == "Can't load the tokenizer. You need to have sentencepiece installed."


@pytest.mark.parametrize(
    ("error", "expected"),
    [(ValueError(), "ValueError"), (KeyError("a b"), "'a b'"), (OSError(" \n"), "OSError")],
)
def test_an_error_without_a_message_is_named_by_its_class(error: Exception, expected: str) -> None:
    assert reason_of(error) == expected


def test_a_very_long_message_ends_in_an_ellipsis() -> None:
    assert reason_of(ValueError("word " * 10_000)).endswith("word…")
    assert len(reason_of(ValueError("x" * 10_000))) == 1000
    assert reason_of(ValueError("abcdef"), limit=6) == "abcdef"
    assert reason_of(ValueError("abcdef"), limit=5) == "abcd…"
