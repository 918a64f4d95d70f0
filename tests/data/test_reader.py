"""The data set is read in order, completely, in chunks; damage is named."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests import support
from utils.core.errors import DataError
from utils.data.reader import chunk_offsets, count_rows, iter_rows, sample_texts


@pytest.fixture(params=[".csv", ".parquet"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    source = support.write_dataset(tmp_path)
    if request.param == ".csv":
        return source
    pd.read_csv(source).to_parquet(tmp_path / "val_df.parquet")
    return tmp_path / "val_df.parquet"


def test_chunks_cover_every_row_once_in_order(file: Path) -> None:
    parts = list(iter_rows(file, 7))
    assert [part.start for part in parts] == list(range(0, 60, 7))
    assert [text for part in parts for text in part.texts] == list(support.TEXTS)
    assert [int(i) for part in parts for i in part.label_ids] == [i % 3 for i in range(60)]


def test_max_rows_takes_the_first(file: Path) -> None:
    assert [len(part.texts) for part in iter_rows(file, 7, max_rows=10)] == [7, 3]
    assert count_rows(file) == 60


def test_samples_repeat_with_their_seed_and_without_doubles(file: Path) -> None:
    first = sample_texts(file, 20, seed=1)
    assert first == sample_texts(file, 20, seed=1) != sample_texts(file, 20, seed=2)
    assert len(set(first)) == 20
    assert sample_texts(file, 999, seed=1) == list(support.TEXTS)
    assert sample_texts(file, 7, seed=1, max_rows=7) == list(support.TEXTS[:7])


@pytest.mark.parametrize("name", ["val_df.csv", "val_df.parquet"])
def test_a_missing_file_names_step_01(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="01_download_data"):
        count_rows(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"text,labels\na,b\n", "label_id"),
        (b"text,labels,label_id\na,b\n", "line 2"),
        (b"text,labels,label_id\n", "no rows"),
        (b"text,labels,label_id\na,b,x\n", "line 2"),
        (b"text,labels,label_id\n\xff,b,0\n", "damaged"),
        (b"", "lacks"),
    ],
)
def test_damage_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "val_df.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=words):
        count_rows(file)


def test_what_is_no_utf_8_is_named_by_its_line_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    file = tmp_path / "val_df.csv"
    file.write_bytes(b"text,labels,label_id\n" + b"a,b,0\n" * 50_000 + b"\xff,b,0\n")
    with pytest.raises(DataError, match=r"damaged after line \d{5}: not UTF-8"):
        count_rows(file)
    file.write_text("text,labels,label_id\n\na,x,0\n\nb,x,1\nc,x,2\n")
    offsets = chunk_offsets(file, 2)
    assert (count_rows(file), len(offsets)) == (3, 2)
    assert [rows.texts for rows in iter_rows(file, 2, first=2, offset=offsets[1])] == [["c"]]


def test_a_parquet_file_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "val_df.parquet"
    file.write_bytes(b"not parquet")
    with pytest.raises(DataError):
        list(iter_rows(file, 5))


@pytest.mark.parametrize("kind", ["csv", "csv with \\r\\n", "parquet"])
def test_any_run_of_chunks_is_read_alone(tmp_path: Path, kind: str) -> None:
    """As several workers read: texts over lines, of many bytes, empty, and other row groups."""
    texts = ["plain", 'over\nlines, "quoted"', "é漢字🎲", "", "a\r\nb", "last", "x" * 5000] * 5
    frame = pd.DataFrame(
        {
            "text": texts,
            "labels": "a",
            "label_id": pd.array([0, 1, None, 2, 3, 4, 5] * 5, dtype="Int64"),
        }
    )
    path = tmp_path / ("val_df.parquet" if kind == "parquet" else "val_df.csv")
    if kind == "parquet":
        frame.to_parquet(path, index=False, row_group_size=4)
    else:
        frame.to_csv(path, index=False, lineterminator="\r\n" if "r" in kind[3:] else "\n")
    complete = list(iter_rows(path, 3))
    offsets = chunk_offsets(path, 3)
    assert len(offsets) == len(complete) == 12
    for number, offset in enumerate(offsets):
        part = list(iter_rows(path, 3, 6, first=3 * number, offset=offset))
        same = complete[number : number + 2]
        assert [rows.start for rows in part] == [rows.start for rows in same]
        assert [rows.texts for rows in part] == [rows.texts for rows in same]
        assert [rows.label_ids.tolist() for rows in part] == [
            rows.label_ids.tolist() for rows in same
        ]
