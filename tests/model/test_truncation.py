"""Truncated texts are counted alike for every kind of tokenizer; the judge tokenizes in full."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import ByT5Tokenizer

from benchmarks.workloads import text_of, word_tokenizer
from tests.small_tokenizers import bert_tokenizer, roberta_tokenizer, xlnet_tokenizer
from utils.model.truncation import count_truncated

MAKERS = (word_tokenizer, bert_tokenizer, roberta_tokenizer, xlnet_tokenizer, ByT5Tokenizer)
TEXTS = [text_of(count) for count in (1, 3, 19, 20, 21, 22, 300)]


class Encoded(dict[str, Any]):
    """What a fast tokenizer returns, with the encodings of tokenizers 0.23.1: no overflow."""

    @property
    def encodings(self) -> list[Any]:
        return [SimpleNamespace(overflowing=[]) for _ in self["input_ids"]]


class WithoutOverflow:
    """A tokenizer that truncates and does not say so."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, texts: list[str], **options: Any) -> Encoded:
        return Encoded(self._inner(texts, **options))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("reports", [True, False])
def test_texts_that_are_longer_than_the_limit_are_counted(make: Any, reports: bool) -> None:
    plain = make()
    lengths = [len(ids) for ids in plain(TEXTS)["input_ids"]]
    tokenizer = plain if reports else WithoutOverflow(plain)
    for max_length in (3, 20, 23, 100, 5000):
        encoded = tokenizer(TEXTS, truncation=True, max_length=max_length)
        expected = sum(length > max_length for length in lengths)
        assert count_truncated(tokenizer, TEXTS, encoded, max_length) == expected
    assert max(lengths) > 100
