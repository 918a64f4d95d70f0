"""The embedded corpus: 23 labels, no text twice, the same split for the same seed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from utils.core.errors import DataError
from utils.demo import corpus


@pytest.fixture(scope="module")
def full_corpus() -> pd.DataFrame:
    return corpus.collect_corpus()


def test_there_are_23_labels_each_with_at_least_100_texts(full_corpus: pd.DataFrame) -> None:
    counts = full_corpus["labels"].value_counts()
    assert len(counts) == 23
    assert counts.min() >= 100
    assert counts.max() <= corpus.MAX_PER_LIBRARY


def test_no_text_is_in_both_parts_and_4000_are_left(full_corpus: pd.DataFrame) -> None:
    training, evaluation = corpus.split_corpus(full_corpus, 12_000, seed=0)
    assert full_corpus["text"].is_unique
    assert len(training) == 12_000
    assert len(evaluation) >= 4_000
    assert not set(training["text"]) & set(evaluation["text"])
    assert set(evaluation["labels"]) == set(training["labels"])


def test_lengths_reach_from_a_few_words_to_hundreds(full_corpus: pd.DataFrame) -> None:
    words = full_corpus["text"].str.split().str.len()
    assert (words < 8).sum() > 100
    assert (words > 600).sum() > 10


def test_the_split_follows_the_seed_and_not_the_order(full_corpus: pd.DataFrame) -> None:
    training, _ = corpus.split_corpus(full_corpus, 500, seed=1)
    again, _ = corpus.split_corpus(full_corpus.sample(frac=1, random_state=3), 500, seed=1)
    other, _ = corpus.split_corpus(full_corpus, 500, seed=2)
    assert training.equals(again)
    assert not training.equals(other)


def test_libraries_are_parsed_without_importing_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "fakelibrary"
    package.mkdir()
    (package / "__init__.py").write_text(
        '"""A docstring of sufficient length."""\nraise SystemExit("imported")\n'
    )
    (package / "broken.py").write_text("def (:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert corpus._library_docstrings("fakelibrary") == ["A docstring of sufficient length."]


def test_a_library_that_is_not_installed_is_named() -> None:
    with pytest.raises(DataError, match="nosuchlibrary"):
        corpus._root("nosuchlibrary")
