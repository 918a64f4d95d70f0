"""Files of every kind that people bring hold the same rows; what is not read is refused by name."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from tests import support
from utils.config_loader import Config, load_config
from utils.core.errors import DataError
from utils.data.dataset_settings import DatasetSettings
from utils.data.files import warn_about_file_names
from utils.data.writer import check_target

FRAME = pd.DataFrame(
    {"text": ["one", 'two, "quoted"', "drei ä\nund mehr"], "label": ["b", "a", "b"]}
)
ROWS = list(FRAME.itertuples(index=False, name=None))
ORDER = ["neutral", "negative", "positive"]


def config_for(source: Path | str, *more: str, target: Path | None = None) -> Config:
    local = target or Path(str(source)).parent.parent / "out-of-the-way" / "val_df.csv"
    return load_config(
        "configs/demo.yaml", [f"dataset.hf_name={source}", f"dataset.local_path={local}", *more]
    )


def rows_of(source: Path | str, *more: str) -> list[tuple[str, str | None]]:
    return list(support.read_configured_source(config_for(source, *more)).rows())


def write_lines(file: Path, encoding: str = "utf-8") -> None:
    lines = [json.dumps(record, ensure_ascii=False) for record in FRAME.to_dict("records")]
    file.write_text("\n".join(lines) + "\n\n", encoding=encoding)


def write_list(file: Path, encoding: str = "utf-8") -> None:
    file.write_text("\n " + json.dumps(FRAME.to_dict("records"), indent=1), encoding=encoding)


WRITERS: dict[str, Callable[[Path], object]] = {
    "in.csv": lambda file: FRAME.to_csv(file, index=False),
    "IN.CSV": lambda file: FRAME.to_csv(file, index=False),
    "in.csv.gz": lambda file: FRAME.to_csv(file, index=False),
    "bom.csv": lambda file: FRAME.to_csv(file, index=False, encoding="utf-8-sig"),
    "in.tsv": lambda file: FRAME.to_csv(file, index=False, sep="\t"),
    "in.tsv.gz": lambda file: FRAME.to_csv(file, index=False, sep="\t"),
    "in.parquet": lambda file: FRAME.to_parquet(file),
    "In.Parquet": lambda file: FRAME.to_parquet(file),
    "in.jsonl": write_lines,
    "bom.jsonl": lambda file: write_lines(file, "utf-8-sig"),
    "lines.json": write_lines,
    "list.json": write_list,
    "bom.json": lambda file: write_list(file, "utf-8-sig"),
    "in.jsonl.gz": lambda file: FRAME.to_json(file, orient="records", lines=True),
    "in.json.gz": lambda file: FRAME.to_json(file, orient="records"),
    "categories.parquet": lambda file: FRAME.astype({"label": "category"}).to_parquet(file),
    "bytes.parquet": lambda file: FRAME.map(str.encode).to_parquet(file),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_any_kind_holds_the_same_rows(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    assert rows_of(tmp_path / name) == ROWS


@pytest.mark.parametrize("name", ["in.xlsx", "in.txt", "in.csv.zip", "in.parquet.gz"])
def test_files_of_other_kinds_are_refused_and_the_kinds_listed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(DataError, match="not read") as caught:
        rows_of(tmp_path / name)
    assert all(
        kind in str(caught.value.fix)
        for kind in (".csv", ".tsv", ".json", ".jsonl", ".gz", ".parquet", "save_to_disk")
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("in.csv.gz", b"not packed", "cannot be read"),
        ("in.csv.gz", gzip.compress(b"text,label\na,b\n")[:-6], "cannot be read"),
        ("in.json", b'[{"text": "a"}, 3]', "Item 2"),
        ("in.jsonl", b'{"text": "a"}\n[1]\n', "Line 2"),
        ("in.json", b'{\n"text": ["a"]\n', "line 1 is not JSON"),
        ("in.json", b'{\n"text": "a"\n}', "line 1 is not JSON"),
        ("in.jsonl", b'{"text": "a"}\n{"text": \n', "line 2"),
        ("in.jsonl", b'{"text": "\xff"}\n', "not UTF-8"),
        ("in.json", b"", "no column 'text'"),
    ],
)
def test_damaged_files_are_refused_in_one_message(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        rows_of(tmp_path / name)
    assert words in caught.value.what
    assert caught.value.where and caught.value.fix


def test_bytes_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": pa.array([b"caf\xe9"]), "label": ["a"]}), tmp_path / "in.parquet"
    )
    with pytest.raises(DataError, match="bytes that are not UTF-8"):
        rows_of(tmp_path / "in.parquet")


@pytest.mark.parametrize("name", ["in.parquet", "in.jsonl", "in.json"])
@pytest.mark.parametrize(
    "value", [[{"role": "user", "content": "hello"}], ["hello", "there"], {"a": "b"}]
)
@pytest.mark.parametrize("column", ["text", "label"])
def test_nested_values_are_refused_by_the_name_of_their_column(
    tmp_path: Path, name: str, value: object, column: str
) -> None:
    records = [{"text": "a", "label": "x", column: value}] * 2
    file = tmp_path / name
    if name == "in.parquet":
        pq.write_table(pa.Table.from_pylist(records), file)
    else:
        file.write_text(
            json.dumps(records) if name == "in.json" else "\n".join(map(json.dumps, records))
        )
    with pytest.raises(DataError, match=f"'{column}'.*nested values") as caught:
        rows_of(file)
    assert "column" in str(caught.value.fix)


def test_keys_that_some_records_lack_are_missing_values(tmp_path: Path) -> None:
    records = [{"text": "a"}] * 9000 + [{"text": "b", "label": 1}, {"label": 2.0}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, records)))
    rows = rows_of(tmp_path / "in.jsonl")
    assert (rows[0], rows[-2:]) == (("a", None), [("b", "1"), ("", "2")])


def test_labels_are_optional_only_where_no_column_looks_like_one(tmp_path: Path) -> None:
    FRAME[["text"]].to_csv(tmp_path / "none.csv", index=False)
    assert [label for _, label in rows_of(tmp_path / "none.csv")] == [None] * 3
    for name in ("intent", "Label", "label_id", "category", "target", "y"):
        FRAME.rename(columns={"label": name}).to_csv(tmp_path / "other.csv", index=False)
        with pytest.raises(DataError, match=f"'{name}' looks like its labels") as caught:
            rows_of(tmp_path / "other.csv")
        assert "--set dataset.label_column=" in str(caught.value.fix)
        assert "--set dataset.label_column=null" in str(caught.value.fix)
        assert rows_of(tmp_path / "other.csv", f"dataset.label_column='{name}'") == ROWS
        assert {
            label for _, label in rows_of(tmp_path / "other.csv", "dataset.label_column=null")
        } == {None}
    with pytest.raises(DataError, match="no column 'mine'"):
        rows_of(tmp_path / "none.csv", "dataset.label_column=mine")


def test_ids_with_class_names_in_the_schema_become_names(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=ORDER)})
    table = Dataset.from_dict(
        {"text": ["a", "b", "c", "d"], "label": [2, 0, -1, None]}, features=features
    )
    table.to_parquet(tmp_path / "in.parquet")
    table.save_to_disk(str(tmp_path / "saved"))
    for place in ("in.parquet", "saved"):
        source = support.read_configured_source(config_for(tmp_path / place))
        assert list(source.rows()) == [
            ("a", "positive"),
            ("b", "neutral"),
            ("c", None),
            ("d", None),
        ]
        assert source.class_names == tuple(ORDER)


def test_parts_with_other_columns_or_class_names_are_refused_by_the_files_name(
    tmp_path: Path,
) -> None:
    FRAME.to_parquet(tmp_path / "part-0.parquet")
    FRAME.rename(columns={"label": "intent"}).to_parquet(tmp_path / "part-1.parquet")
    with pytest.raises(DataError, match="different columns") as caught:
        rows_of(tmp_path / "part-*.parquet")
    assert "part-1.parquet" in str(caught.value.where)
    for i, names in enumerate((ORDER, ORDER[::-1])):
        features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
        Dataset.from_dict({"text": ["a"], "label": [0]}, features=features).to_parquet(
            tmp_path / f"part-{i}.parquet"
        )
    with pytest.raises(DataError, match="different class names") as caught:
        rows_of(tmp_path / "part-*.parquet")
    assert caught.value.fix == "save the labels as names (text) in all files"


def folder_of(place: Path, *names: str) -> Path:
    """A folder of CSV files, each with one row whose text is the file's name."""
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(
            f"text,label\n{name},a\n" if name.endswith("csv") else "something else"
        )
    return place


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (("b.csv", "a.csv", "README.md"), "test", ["a.csv", "b.csv"]),
        (("train.csv", "test.csv", "dev.csv"), "test", ["test.csv"]),
        (("train.csv", "test.csv", "dev.csv"), "validation", ["dev.csv"]),
        (
            ("data/train-0.csv", "data/test-00000-of-00002.csv", "data/test-00001-of-00002.csv"),
            "test",
            ["data/test-00000-of-00002.csv", "data/test-00001-of-00002.csv"],
        ),
        (("train/a.csv", "test/a.csv"), "train", ["train/a.csv"]),
        (("contest.csv", "latest.csv"), "test", ["contest.csv", "latest.csv"]),
    ],
)
def test_a_folder_gives_the_files_of_the_split(
    tmp_path: Path, names: tuple[str, ...], split: str, expected: list[str]
) -> None:
    folder = folder_of(tmp_path / "in", *names)
    assert [text for text, _ in rows_of(folder, f"dataset.split={split}")] == expected


@pytest.mark.parametrize(
    ("names", "is_warned_about"),
    [
        (("test.csv", "test_old.csv"), True),
        (("test-00000-of-00002.csv", "test-00001-of-00002.csv"), False),
        (("test-00000-of-00002-0f3a9b1c.csv", "test-00001-of-00002-9d8e7f6a.csv"), False),
    ],
)
def test_files_of_a_folder_that_are_not_parts_of_one_are_warned_about(
    tmp_path: Path, names: tuple[str, ...], is_warned_about: bool
) -> None:
    for name in names:
        (tmp_path / name).write_text("text,label\na,b\n")
    warnings = warn_about_file_names(str(tmp_path), [tmp_path / name for name in names])
    assert bool(warnings) == is_warned_about


def test_what_describes_a_downloaded_data_set_is_not_read(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "in",
        "rows.csv",
        "dataset_infos.json",
        ".cache/huggingface/other.csv",
        "README.md",
    )
    assert [text for text, _ in rows_of(folder)] == ["rows.csv"]


def test_a_folder_without_the_split_or_of_several_kinds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no files of the split 'test'") as caught:
        rows_of(folder_of(tmp_path / "splits", "train.csv", "dev.csv"))
    assert "--set dataset.split=train" in str(caught.value.fix)
    folder = folder_of(tmp_path / "mixed", "a.csv")
    write_lines(folder / "b.jsonl")
    with pytest.raises(DataError, match="several kinds"):
        rows_of(folder)
    with pytest.raises(DataError, match="None of these files can be read"):
        rows_of(folder_of(tmp_path / "other", "a.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no data files in this folder"):
        rows_of(tmp_path / "empty")


def test_a_saved_data_set_gives_its_split(tmp_path: Path) -> None:
    splits = {
        name: Dataset.from_dict({"text": [name], "label": ["a"]}) for name in ("train", "test")
    }
    DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    assert rows_of(tmp_path / "saved") == [("test", "a")]
    with pytest.raises(DataError, match="no split 'dev'; it has 'train', 'test'"):
        rows_of(tmp_path / "saved", "dataset.split=dev")


def write_csv(file: Path) -> Path:
    file.parent.mkdir(exist_ok=True)
    FRAME.to_csv(file, index=False)
    return file


def test_the_source_is_never_the_target(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "in" / "val_df.csv")
    before = file.read_bytes()
    os.link(file, tmp_path / "hard.csv")
    os.symlink(file, tmp_path / "soft.csv")
    os.symlink(tmp_path / "in", tmp_path / "other_folder")
    pairs = [
        (file, file),
        (tmp_path / "soft.csv", file),
        (file, tmp_path / "soft.csv"),
        (tmp_path / "hard.csv", file),
        (tmp_path / "in" / "*.csv", file),
        (tmp_path / "in", file),
        (tmp_path / "in", tmp_path / "in" / "new.csv"),
        (tmp_path / "in" / "*", tmp_path / "in" / "new.csv"),
        (tmp_path / "in", tmp_path / "other_folder" / "new.csv"),
    ]
    for source, target in pairs:
        with pytest.raises(DataError, match="overwrite or extend its own source"):
            check_target(DatasetSettings.of(config_for(source, target=target)))
    assert file.read_bytes() == before
    check_target(DatasetSettings.of(config_for(file, target=tmp_path / "out" / "val_df.csv")))
