"""The check of a data set: each count by hand, each refusal."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from utils.core.errors import DataError
from utils.data.labels import LabelMapping
from utils.data.validation import TokenCounts, count_tokens, validate_dataset

MAPPING = LabelMapping(names=("a", "b", "c"))


def words(texts: list[str]) -> TokenCounts:
    """Every word is a token; "???" is the unknown one."""
    split = [text.split() for text in texts]
    return TokenCounts(
        lengths=tuple(map(len, split)),
        num_ordinary=sum(map(len, split)),
        num_unknown=sum(tokens.count("???") for tokens in split),
        num_lost_texts=sum(bool(tokens) and set(tokens) == {"???"} for tokens in split),
    )


def save(folder: Path, texts: list[str], ids: list[int]) -> Path:
    file = folder / "val_df.parquet"
    pd.DataFrame({"text": texts, "labels": ["x"] * len(ids), "label_id": ids}).to_parquet(file)
    return file


def test_every_count_is_right(tmp_path: Path) -> None:
    texts = ["one", "one", "", " ", "one two three", "bad \ufffd", "nul \0", "one two"]
    findings, warnings = validate_dataset(
        save(tmp_path, texts, [0, 0, 0, 0, 0, 0, 1, -1]), MAPPING, words, max_length=2
    )
    assert findings == {
        "Rows": "8",
        "Empty texts": "2",
        "Duplicate texts": "1",
        "Labels that occur": "2 of 3; rows without a label: 1",
        "Largest label": "a (6); smallest: c (0)",
        "Encoding": "1 texts with U+FFFD, 1 with NUL",
        "Tokens a text": "p0 0, p10 0, p50 2, p90 3, p99 3, p100 3",
        "Unknown tokens": "0.0% of 11; texts of nothing else: 0 (0.0%)",
        "Truncated at 2 tokens": "1 rows (12.5%)",
    }
    assert len(warnings) == 7
    assert any("labels without a row: c" in warning for warning in warnings)


def test_a_clean_data_set_has_no_warnings(tmp_path: Path) -> None:
    file = save(tmp_path, [f"text {i}" for i in range(9)], [i % 3 for i in range(9)])
    assert validate_dataset(file, MAPPING, words, max_length=8)[1] == ()


def test_imbalance_causes_a_warning(tmp_path: Path) -> None:
    file = save(tmp_path, [f"text {i}" for i in range(13)], [0] * 11 + [1, 2])
    assert "F1 (macro)" in validate_dataset(file, MAPPING, words, max_length=8)[1][0]


@pytest.mark.parametrize(
    ("texts", "ids", "message"),
    [
        (["a"], [3], "label id 3"),
        (["a"], [-3], "label id -3"),
        ([], [], "no rows"),
        (["", "\n"], [0, 0], "empty"),
    ],
)
def test_data_that_cannot_be_measured_is_refused(
    tmp_path: Path, texts: list[str], ids: list[int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        validate_dataset(save(tmp_path, texts, ids), MAPPING, words, max_length=8)


def test_a_surrogate_in_the_bytes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "val_df.csv"
    file.write_bytes(b"text,labels,label_id\n\xed\xa0\x80,a,0\n")
    with pytest.raises(DataError, match="damaged"):
        validate_dataset(file, MAPPING, words, max_length=8)


def test_it_is_read_in_blocks(tmp_path: Path) -> None:
    file = save(tmp_path, [f"{i} " + "x" * 2000 for i in range(3000)], [0] * 3000)
    sizes: list[int] = []

    def count(texts: list[str]) -> TokenCounts:
        sizes.append(len(texts))
        return words(texts)

    validate_dataset(file, MAPPING, count, max_length=8)
    assert max(sizes) <= 1024
    assert sum(sizes) == 3000


def test_unknown_tokens_are_counted_and_warned_about(tmp_path: Path) -> None:
    file = save(tmp_path, ["one ???", "??? ???", "two three four five"], [0, 1, 2])
    findings, warnings = validate_dataset(file, MAPPING, words, max_length=8)
    assert findings["Unknown tokens"] == "37.5% of 8; texts of nothing else: 1 (33.3%)"
    assert any("37.5% of the tokens are unknown" in warning for warning in warnings)
    assert any("1 texts become nothing but" in warning for warning in warnings)


def test_a_data_set_without_labels_has_one_warning_about_it(tmp_path: Path) -> None:
    file = save(tmp_path, ["one", "two"], [-1, -1])
    _, warnings = validate_dataset(file, MAPPING, words, max_length=8)
    assert warnings == ("labels: no row has a label: accuracy and F1 will not be measured",)


def wordpiece(template: str, unknown: str) -> PreTrainedTokenizerFast:
    """Knows "good" and "day"; ``unknown`` is its unknown token, ``[END]`` ends every text."""
    vocabulary = {"[UNK]": 0, "[END]": 1, "good": 2, "day": 3}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("[END]", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token=unknown, eos_token="[END]")


@pytest.mark.parametrize("unknown", ["[UNK]", "[END]"])
def test_tokens_are_counted_whatever_the_unknown_token_is(unknown: str) -> None:
    """By hand: 2 known, 2 unknown tokens; the third text is lost; each ends in a special token."""
    counts = count_tokens(wordpiece("$A [END]", unknown), ["good day", "", "xyzzy quux", " "])
    assert counts == TokenCounts(
        lengths=(3, 1, 3, 1), num_ordinary=4, num_unknown=2, num_lost_texts=1
    )


def test_texts_that_become_nothing_are_lost() -> None:
    empty = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    empty.pre_tokenizer = pre_tokenizers.Split(Regex(".+"), "removed")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=empty, unk_token="[UNK]")
    assert count_tokens(tokenizer, ["some text", ""]).num_lost_texts == 1
    assert count_tokens(tokenizer, []).lengths == ()
