"""Data sets of a hub that cannot be read: one message each, with the library's reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from tests.hub_server import HubServer
from utils.core.files import PROJECT_ROOT

DATA_ID = "someone/some_data"
PROGRAM = """
import json, sys
from utils.config_loader import load_config
from utils.core.errors import UserError
from utils.data.sources import read_source

try:
    config = load_config("configs/demo.yaml", sys.argv[1:])
    source = read_source(config.dataset, config.embedded_dir)
    seen = {"class_names": source.class_names, "revision": source.revision}
    print(json.dumps({"rows": list(source.rows()), **seen}))
except UserError as error:
    print(json.dumps({"what": error.what, "where": error.where, "fix": error.fix}))
"""
CONFIGS = """---
configs:
- config_name: plain
  data_files: [{split: test, path: plain_*.csv}]
- config_name: other
  data_files: [{split: test, path: other_*.csv}]
---
"""


def read_from_hub(served: Path, cache: Path, *settings: str) -> dict[str, object]:
    """What a process that sees only this hub reads, or the parts of its message."""
    with HubServer() as hub:
        repo = hub.add_dataset(DATA_ID, served)
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                PROGRAM,
                f"dataset.hf_name={DATA_ID}",
                "dataset.local_path=/nowhere/val_df.csv",
                *settings,
            ],
            capture_output=True,
            text=True,
            cwd=PROJECT_ROOT,
            timeout=300,
            env={"PATH": "/usr/bin:/bin", "HOME": str(cache), **hub.env(cache)},
        )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    if "rows" in result:
        assert result["revision"] == repo.commit
    return result


def write_csv(file: Path, **columns: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_csv(file, index=False)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    (tmp_path / "served").mkdir()
    return tmp_path / "served"


def test_a_configuration_is_passed_on_and_asked_for_where_there_are_several(
    served: Path, tmp_path: Path
) -> None:
    (served / "README.md").write_text(CONFIGS)
    for name in ("plain", "other"):
        write_csv(served / f"{name}_rows.csv", text=[f"of {name}"], label=["a"])
    cache = tmp_path / "cache"
    message = read_from_hub(served, cache)
    expected = "The data set has several configurations: plain, other."
    assert str(message["what"]).startswith(expected)
    assert message["fix"] == "--set dataset.config=plain, or another one of these"
    assert read_from_hub(served, cache, "dataset.config=other")["rows"] == [["of other", "a"]]
    unknown = read_from_hub(served, cache, "dataset.config=third")
    assert "no such configuration; it has plain, other" in str(unknown["what"])


def test_class_names_of_the_hub_are_the_labels(served: Path, tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["z", "a"])})
    table = Dataset.from_dict(
        {"text": ["one", "two", "three"], "label": [1, 0, -1]}, features=features
    )
    table.to_parquet(served / "test-00000-of-00001.parquet")
    result = read_from_hub(served, tmp_path / "cache")
    assert result["rows"] == [["one", "a"], ["two", "z"], ["three", None]]
    assert result["class_names"] == ["z", "a"]


def test_a_loading_script_is_named(served: Path, tmp_path: Path) -> None:
    (served / "some_data.py").write_text("import datasets\n")
    message = read_from_hub(served, tmp_path / "cache")
    assert "loading script" in str(message["what"]) and "some_data.py" in str(message["what"])
    assert "refs/convert/parquet" in str(message["fix"])


def test_a_repository_without_data_files_is_named(served: Path, tmp_path: Path) -> None:
    (served / "README.md").write_text("nothing here")
    message = read_from_hub(served, tmp_path / "cache")
    assert "no data files" in str(message["what"])
    assert message["fix"]


def test_files_of_different_columns_are_named_with_the_full_reason(
    served: Path, tmp_path: Path
) -> None:
    write_csv(served / "test-0.csv", text=["a"], label=["x"])
    write_csv(served / "test-1.csv", words=["a"], intent=["x"])
    message = read_from_hub(served, tmp_path / "cache")
    assert "different columns" in str(message["what"])
    assert "words" in str(message["what"]) and "intent" in str(message["what"]), (
        "the reason is below its first line"
    )


def test_a_split_that_is_not_there_lists_those_that_are(served: Path, tmp_path: Path) -> None:
    write_csv(served / "train.csv", text=["a"], label=["x"])
    message = read_from_hub(served, tmp_path / "cache")
    assert "no such split" in str(message["what"]) and "train" in str(message["what"])
    assert "dataset.split" in str(message["fix"])


def test_nested_texts_of_the_hub_are_refused(served: Path, tmp_path: Path) -> None:
    turns = [[{"role": "user", "content": "hello"}]]
    Dataset.from_dict({"text": turns, "label": ["x"]}).to_parquet(served / "test.parquet")
    message = read_from_hub(served, tmp_path / "cache")
    assert "'text'" in str(message["what"]) and "nested values" in str(message["what"])
