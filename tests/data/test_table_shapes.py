"""Tables of shapes that are not read are refused by what they are, with a conversion that works."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests import support
from utils.config_loader import Config, load_config
from utils.core.errors import DataError

FRAME = pd.DataFrame({"text": ["one", "two", "three"], "label": ["b", "a", "b"]})
ROWS = [("one", "b"), ("two", "a"), ("three", "b")]


def config_for(source: Path, *more: str) -> Config:
    target = source.parent / "elsewhere" / "val_df.csv"
    return load_config(
        "configs/demo.yaml", [f"dataset.hf_name={source}", f"dataset.local_path={target}", *more]
    )


def rows_of(source: Path, *more: str) -> list[tuple[str, str | None]]:
    return list(support.read_configured_source(config_for(source, *more)).rows())


def refusal_of(source: Path, *more: str) -> DataError:
    with pytest.raises(DataError) as caught:
        rows_of(source, *more)
    return caught.value


@pytest.mark.parametrize("name", ["in.json", "in.jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("orient", ["columns", "list"])
def test_json_of_columns_is_named_and_converted(
    tmp_path: Path, name: str, indent: int | None, orient: str
) -> None:
    content = json.loads(FRAME.to_json()) if orient == "columns" else FRAME.to_dict(orient="list")
    file = tmp_path / name
    file.write_text(json.dumps(content, indent=indent))
    error = refusal_of(file)
    assert "columns, not records" in error.what
    assert 'orient="records"' in str(error.fix)
    pd.read_json(file).to_json(tmp_path / "new.json", orient="records")
    assert rows_of(tmp_path / "new.json") == ROWS


@pytest.mark.parametrize("indent", [None, 2])
def test_the_key_that_holds_the_list_of_records_is_named(
    tmp_path: Path, indent: int | None
) -> None:
    content: dict[str, Any] = {"version": "1", "data": FRAME.to_dict(orient="records")}
    file = tmp_path / "in.json"
    file.write_text(json.dumps(content, indent=indent))
    error = refusal_of(file)
    assert "in a list under 'data'" in error.what
    assert 'content["data"]' in str(error.fix)
    file.write_text(json.dumps(content["data"], indent=indent))
    assert rows_of(file) == ROWS


def test_a_single_record_is_read(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('{"text": "one", "label": "b"}')
    assert rows_of(tmp_path / "in.json") == ROWS[:1]


@pytest.mark.parametrize("column", ["label", "text"])
def test_a_column_with_spaces_around_its_name_is_named(tmp_path: Path, column: str) -> None:
    file = tmp_path / "in.csv"
    FRAME.rename(columns={column: f" {column}"}).to_csv(file, index=False)
    error = refusal_of(file)
    assert "has spaces around it" in error.what
    words = shlex.split(str(error.fix).replace(";", "").replace(",", ""))
    assert rows_of(file, words[words.index("--set") + 1]) == ROWS


def test_labels_in_the_names_of_folders_are_not_lost(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    FRAME.to_parquet(folder, partition_cols=["label"])
    error = refusal_of(folder)
    assert "The labels are in the folder names ('label=a')" in error.what
    pd.read_parquet(folder).to_parquet(tmp_path / "new.parquet")
    assert sorted(rows_of(tmp_path / "new.parquet")) == sorted(ROWS)
    without = rows_of(folder, "dataset.label_column=null")
    assert sorted(without) == [("one", None), ("three", None), ("two", None)]


def test_folders_that_name_something_else_than_labels_are_read(tmp_path: Path) -> None:
    FRAME.assign(year=2020).to_parquet(tmp_path / "parts", partition_cols=["year"])
    assert rows_of(tmp_path / "parts") == ROWS
