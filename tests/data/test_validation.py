"""The check of a data set: each count by hand, each refusal."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from utils.core.errors import DataError
from utils.data.labels import LabelMapping
from utils.data.validation import validate_dataset

MAPPING = LabelMapping(names=("a", "b", "c"))


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def save(folder: Path, texts: list[str], ids: list[int]) -> Path:
    file = folder / "val_df.parquet"
    pd.DataFrame({"text": texts, "labels": ["x"] * len(ids), "label_id": ids}).to_parquet(file)
    return file


def test_every_count_is_right(tmp_path: Path) -> None:
    texts = ["one", "one", "", " ", "one two three", "bad \ufffd", "nul \0", "one two"]
    findings, warnings = validate_dataset(save(tmp_path, texts, [0, 0, 0, 0, 0, 0, 1, -1]), MAPPING, words, max_length=2)
    assert findings == {
        "Rows": "8", "Empty texts": "2", "Duplicate texts": "1",
        "Labels that occur": "2 of 3; rows without a label: 1",
        "Largest label": "a (6); smallest: c (0)",
        "Encoding": "1 texts with U+FFFD, 1 with NUL",
        "Tokens a text": "p0 0, p10 0, p50 2, p90 3, p99 3, p100 3",
        "Cut at 2 tokens": "1 rows (12.5%)",
    }
    assert len(warnings) == 7
    assert any("labels without a row: c" in warning for warning in warnings)


def test_a_clean_data_set_has_no_warnings(tmp_path: Path) -> None:
    file = save(tmp_path, [f"text {i}" for i in range(9)], [i % 3 for i in range(9)])
    assert validate_dataset(file, MAPPING, words, max_length=8)[1] == ()


def test_imbalance_is_said(tmp_path: Path) -> None:
    file = save(tmp_path, [f"text {i}" for i in range(13)], [0] * 11 + [1, 2])
    assert "F1 (macro)" in validate_dataset(file, MAPPING, words, max_length=8)[1][0]


@pytest.mark.parametrize(
    ("texts", "ids", "message"),
    [(["a"], [3], "label id 3"), (["a"], [-3], "label id -3"), ([], [], "no rows"), (["", "\n"], [0, 0], "empty")],
)
def test_data_that_cannot_be_measured_is_refused(tmp_path: Path, texts: list[str], ids: list[int], message: str) -> None:
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

    def count(texts: list[str]) -> list[int]:
        sizes.append(len(texts))
        return [1] * len(texts)

    validate_dataset(file, MAPPING, count, max_length=8)
    assert max(sizes) <= 1024
    assert sum(sizes) == 3000
