"""Every row of a source reaches the data set unchanged, or one message says why not."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tracemalloc
from collections import namedtuple
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

from tests import support
from utils.config_loader import Config, load_config
from utils.core.errors import DataError
from utils.data import writer
from utils.data.dataset_settings import DatasetSettings
from utils.data.labels import ModelLabels
from utils.data.reader import iter_rows
from utils.data.sources import DatasetSource, collect_stats
from utils.pipeline.steps import get_step
from utils.schema.warning_codes import WarningCode, code_of

# Python 3.10's csv module neither writes nor reads NUL.
NUL = "\0" if sys.version_info >= (3, 11) else " "
AWKWARD = (
    "",
    "NA",
    "null",
    "a\nb",
    "a\r\nb",
    "\r",
    f"nul {NUL} here",
    '"',
    "a,b",
    " pad ",
    "é\u2028\U0001f600",
    "\ufeffbom",
)
TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="" if NUL == "\0" else "\0")
)


def config_for(folder: Path, source: Path | str, *more: str, suffix: str = ".csv") -> Config:
    local = folder / "out" / f"val_df{suffix}"
    return load_config(
        "configs/demo.yaml", [f"dataset.hf_name={source}", f"dataset.local_path={local}", *more]
    )


def model(*names: str) -> ModelLabels:
    return ModelLabels(names=names, num_labels=len(names), source="id2label")


def write(
    config: Config, source: DatasetSource, labels: ModelLabels | None = None
) -> list[tuple[str, int]]:
    """The rows as later steps read them.

    Without ``labels`` the model has those of the source, in alphabetical order.
    """
    if labels is None:
        labels = model(*sorted({label for _, label in source.rows() if label} | {"~unused"}))
    settings = DatasetSettings.of(config)
    writer.write_dataset(settings, writer.prepare(settings, source, labels))
    return [
        pair
        for part in iter_rows(config.data_file, 3)
        for pair in zip(part.texts, part.label_ids.tolist(), strict=True)
    ]


def given(texts: Sequence[str], labels: Sequence[str | None]) -> DatasetSource:
    return DatasetSource(rows=lambda: iter(zip(texts, labels, strict=True)))


def as_lists(source: DatasetSource) -> tuple[list[str], list[str | None]]:
    pairs = list(source.rows())
    assert pairs == list(source.rows()), "it can be read again"
    return [text for text, _ in pairs], [label for _, label in pairs]


def save(frame: pd.DataFrame, file: Path) -> Path:
    if file.suffix == ".csv":
        frame.to_csv(file, index=False, lineterminator="\n")
    elif file.suffix == ".jsonl":
        frame.to_json(file, orient="records", lines=True)
    else:
        frame.to_parquet(file)
    return file


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@drawn(texts=st.lists(TEXT, min_size=1, max_size=8))
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_any_text_comes_back_as_it_was(tmp_path: Path, suffix: str, texts: list[str]) -> None:
    # A data set of empty texts alone is refused.
    texts = ["a word", *texts]
    source = given(texts, ["a"] * len(texts))
    assert write(config_for(tmp_path, "x.csv", suffix=suffix), source) == [
        (text, 0) for text in texts
    ]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_awkward_texts_of_a_file_keep_their_rows(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"text": AWKWARD, "labels": ["b", "a"] * 6})
    config = config_for(tmp_path, save(frame, tmp_path / f"in{suffix}"))
    assert write(config, support.read_configured_source(config)) == [
        (text, 1 - i % 2) for i, text in enumerate(AWKWARD)
    ]


def test_a_csv_with_a_bom_and_na_as_a_word(tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_bytes(b"\xef\xbb\xbftext,labels\nNA,a\n,None\n")
    source = support.read_configured_source(config_for(tmp_path, file))
    assert as_lists(source) == (["NA", ""], ["a", "None"])


@pytest.mark.parametrize("columns", [("query", "label"), ("text", "labels"), ("query", "labels")])
def test_synonyms_of_columns_are_understood(tmp_path: Path, columns: tuple[str, str]) -> None:
    file = save(pd.DataFrame([["one", "a"]], columns=list(columns)), tmp_path / "in.csv")
    source = support.read_configured_source(config_for(tmp_path, file))
    assert as_lists(source) == (["one"], ["a"])


def test_numbers_and_missing_labels(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a", "b", "c"], "labels": [1, None, 0]})
    config = config_for(tmp_path, save(frame, tmp_path / "in.parquet"))
    source = support.read_configured_source(config)
    assert as_lists(source)[1] == ["1", None, "0"]
    assert write(config, source, ModelLabels(names=None, num_labels=2)) == [
        ("a", 1),
        ("b", -1),
        ("c", 0),
    ]


def test_texts_that_are_numbers_with_gaps_stay_integers_and_blank_lines_are_no_rows(
    tmp_path: Path,
) -> None:
    frame = pd.DataFrame({"text": pd.array([1, None, 3], dtype="Int64"), "labels": ["a", "b", "a"]})
    assert as_lists(
        support.read_configured_source(config_for(tmp_path, save(frame, tmp_path / "in.parquet")))
    ) == (
        ["1", "", "3"],
        ["a", "b", "a"],
    )
    (tmp_path / "in.csv").write_text("text,labels\n\none,a\n\ntwo,b\n\n")
    assert as_lists(support.read_configured_source(config_for(tmp_path, tmp_path / "in.csv"))) == (
        ["one", "two"],
        ["a", "b"],
    )


def test_lone_surrogates_are_replaced_with_a_warning(tmp_path: Path) -> None:
    source = given(["a\ud800", "b"], ["x", "x"])
    [warning] = collect_stats(source, "here").warnings
    assert warning.startswith("data: 1 texts")
    assert write(config_for(tmp_path, "x.csv"), source) == [("a?", 0), ("b", 0)]


def test_empty_and_missing_texts_are_counted_in_a_warning() -> None:
    stats = collect_stats(given(["", " \n", "a word"], ["a", "b", "a"]), "x")
    assert "2 of 3 texts are empty or missing" in stats.warnings[0]


def test_a_data_set_of_empty_texts_alone_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"text": null, "label": "a"}\n{"label": "b"}\n')
    source = support.read_configured_source(config_for(tmp_path, file))
    with pytest.raises(DataError, match="Every text of the column 'text' is empty"):
        collect_stats(source, str(file))


@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("premise", "hypothesis"),
        ("sentence", "question"),
        ("text1", "text2"),
        ("sentence_B", "sentence_A"),
    ],
)
def test_one_half_of_a_pair_of_texts_is_warned_about(
    tmp_path: Path, column: str, other: str
) -> None:
    frame = pd.DataFrame({column: ["a"], other: ["b"], "label": ["c"]})
    file = save(frame, tmp_path / "in.parquet")
    source = support.read_configured_source(
        config_for(tmp_path, file, f"dataset.text_column={column}")
    )
    assert f"the column '{other}' beside '{column}'" in source.warnings[0]


def test_two_columns_that_could_be_the_labels_are_warned_about_unless_one_is_named(
    tmp_path: Path,
) -> None:
    frame = pd.DataFrame({"text": ["a"], "label": ["b"], "labels": ["c"]})
    file = save(frame, tmp_path / "in.parquet")
    source = support.read_configured_source(config_for(tmp_path, file))
    assert as_lists(source) == (["a"], ["c"])
    assert "'labels' is read; to read the other one" in source.warnings[0]
    named = support.read_configured_source(config_for(tmp_path, file, "dataset.label_column=label"))
    assert as_lists(named) == (["a"], ["b"])
    assert named.warnings == ()


def test_a_data_set_without_the_label_column_says_which_columns_it_has(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a"], "joy": [0], "anger": [1]})
    file = save(frame, tmp_path / "in.parquet")
    source = support.read_configured_source(config_for(tmp_path, file))
    assert "no column 'labels', only 'text', 'joy', 'anger'" in source.warnings[0]
    without = support.read_configured_source(
        config_for(tmp_path, file, "dataset.label_column=null")
    )
    assert without.warnings == ()


def test_a_text_without_its_pair_is_not_warned_about(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a"], "texta": ["b"], "label": ["c"]})
    source = support.read_configured_source(
        config_for(tmp_path, save(frame, tmp_path / "in.parquet"))
    )
    assert source.warnings == ()


def test_the_record_beside_the_data_set(tmp_path: Path) -> None:
    config = config_for(
        tmp_path,
        save(pd.DataFrame({"text": ["a", "b"], "labels": ["x", "y"]}), tmp_path / "in.csv"),
    )
    write(config, support.read_configured_source(config), ModelLabels(names=None, num_labels=2))
    record = json.loads((config.data_file.parent / "dataset_info.json").read_text())
    assert (record["num_rows"], record["num_labels"], record["label_mapping_source"]) == (
        2,
        2,
        "sorted",
    )
    assert (record["label_mapping_confidence"], record["name"]) == (
        "guessed",
        str(tmp_path / "in.csv"),
    )
    assert record["sha256"] == hashlib.sha256(config.data_file.read_bytes()).hexdigest()
    assert any("guess" in warning for warning in record["warnings"])
    assert all(code_of(warning) is WarningCode.LABELS for warning in record["warnings"])
    table = pd.read_csv(config.data_file)
    assert list(table.columns) == ["text", "labels", "label_id"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.csv", None, "no such data file"),
        ("in.csv", b"text,labels\n\xff\xfe,a\n", "not UTF-8"),
        ("in.csv", b"text,labels\n", "no rows"),
        ("in.csv", b"text,intent\na,b\n", "no column 'labels'"),
        ("in.csv", b"words,labels\na,b\n", "no column 'text'"),
        ("in.csv", b"text,labels\na,b,c\n", "row at line 2 has 3"),
        ("in.csv", b"", "file is empty"),
        ("in.csv", b"sep=,\ntext,labels\na,b\n", "for Excel"),
        ("in.jsonl", b"{", "cannot be read"),
        ("in.parquet", b"PAR", "cannot be read"),
    ],
)
def test_sources_that_cannot_be_used(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        collect_stats(support.read_configured_source(config_for(tmp_path, tmp_path / name)), "here")
    assert words in caught.value.what
    assert caught.value.where and caught.value.fix


def write_old_data(config: Config) -> dict[str, bytes]:
    """What an earlier run of step 01 left."""
    write(config, given(["old", "older"], ["x", "y"]))
    return {path.name: path.read_bytes() for path in config.data_file.parent.iterdir()}


def test_too_little_disk_leaves_the_old_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(
        tmp_path, save(pd.DataFrame({"text": ["new"], "labels": ["x"]}), tmp_path / "in.csv")
    )
    before = write_old_data(config)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 0))
    with pytest.raises(DataError, match="Too little disk"):
        write(config, support.read_configured_source(config), model("x", "y"))
    assert {path.name: path.read_bytes() for path in config.data_file.parent.iterdir()} == before


def test_a_write_that_breaks_off_leaves_the_old_data_set(tmp_path: Path) -> None:
    config = config_for(
        tmp_path, save(pd.DataFrame({"text": ["new"], "labels": ["x"]}), tmp_path / "in.csv")
    )
    before = write_old_data(config)
    settings = DatasetSettings.of(config)
    preparation = writer.prepare(settings, given(["a", "b"], ["x", "y"]), model("x", "y"))

    def broken() -> Iterator[tuple[str, str | None]]:
        yield "a", "x"
        raise ValueError("the network went away")

    with pytest.raises(ValueError, match="network"):
        writer.write_dataset(settings, replace(preparation, source=DatasetSource(rows=broken)))
    assert {path.name: path.read_bytes() for path in config.data_file.parent.iterdir()} == before


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_many_files_by_a_pattern_are_one_data_set_in_the_order_of_their_names(
    tmp_path: Path, suffix: str
) -> None:
    for part in (2, 0, 1):
        texts = [f"text {part}-{i}\nsecond line" for i in range(3)]
        save(
            pd.DataFrame({"text": texts, "labels": ["a", "b", "a"]}),
            tmp_path / f"part-{part}{suffix}",
        )
    config = config_for(tmp_path, tmp_path / f"part-*{suffix}")
    expected = [(f"text {part}-{i}\nsecond line", i % 2) for part in range(3) for i in range(3)]
    assert write(config, support.read_configured_source(config)) == expected
    assert len(get_step("01").inputs(config)) == 3, "a changed part makes step 01 run again"
    with pytest.raises(DataError, match="no such data file"):
        collect_stats(
            support.read_configured_source(config_for(tmp_path, tmp_path / f"other-*{suffix}")),
            "here",
        )


def test_labels_that_the_model_does_not_know_are_shown_or_skipped_and_counted(
    tmp_path: Path,
) -> None:
    frame = pd.DataFrame(
        {"text": list("abcdef"), "labels": ["x", "y", "zebra", "zebra", None, "yak"]}
    )
    config = config_for(tmp_path, save(frame, tmp_path / "in.parquet"))
    source = support.read_configured_source(config)
    with pytest.raises(DataError, match=r"3 rows: 'zebra' \(2\), 'yak' \(1\)"):
        writer.prepare(DatasetSettings.of(config), source, model("x", "y"))
    skipping = config_for(tmp_path, tmp_path / "in.parquet", "evaluation.unknown_labels=skip")
    preparation = writer.prepare(DatasetSettings.of(skipping), source, model("x", "y"))
    expected = (
        "3 rows have a label that the model does not know, and are skipped: 'zebra' (2), 'yak' (1)"
    )
    assert expected in preparation.decision.warnings[0]
    writer.write_dataset(DatasetSettings.of(skipping), preparation)
    [rows] = iter_rows(config.data_file, 10)
    assert rows.label_ids.tolist() == [0, 1, -2, -2, -1, -2]
    assert pd.read_csv(config.data_file, keep_default_na=False).labels.tolist() == [
        "x",
        "y",
        "zebra",
        "zebra",
        "",
        "yak",
    ]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_step_01_takes_the_same_memory_for_ten_times_the_rows(tmp_path: Path, suffix: str) -> None:
    """Peak of Python's allocations, which reading a complete table into lists or frames raises."""
    peaks = []
    text = "a text of such a length that both files are longer than what is hashed at once"
    for count in (20_000, 200_000):
        file = save(
            pd.DataFrame({"text": [text] * count, "labels": "x"}), tmp_path / f"{count}{suffix}"
        )
        config = config_for(tmp_path, file, suffix=suffix)
        tracemalloc.start()
        source = support.read_configured_source(config)
        settings = DatasetSettings.of(config)
        writer.write_dataset(settings, writer.prepare(settings, source, model("x", "y")))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
