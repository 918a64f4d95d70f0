"""A quotation mark that swallows rows is refused with its line; texts over several lines are left
alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests import support
from utils.config_loader import Config, load_config
from utils.core.errors import DataError
from utils.data.sources import DatasetSource

LABELS = ("good", "bad", "fair")
MARKS_IN_TEXTS = [
    (r'"he said \"yes\" twice",good', "after a closing"),
    ('"quoted" and more,good', "after a closing"),
    (' "in marks",good', "a space before"),
    ('a text, "good"', "a space before"),
    ('"a ""good"" text",good', None),
    ('" ""in marks""",good', None),
    ('"one, ""two""",good', None),
    ('a "good" text,good', None),
]
"""A row, and what its warning says."""
SAFE_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def config_for(file: Path, *more: str) -> Config:
    return load_config(
        "configs/demo.yaml",
        [
            f"dataset.hf_name={file}",
            f"dataset.local_path={file.parent / 'out' / 'val_df.csv'}",
            *more,
        ],
    )


def open_csv(folder: Path, content: str, name: str = "in.csv") -> DatasetSource:
    file = folder / name
    file.write_bytes(content.encode())
    return support.read_configured_source(config_for(file))


def plain_rows(count: int, order: str) -> list[str]:
    """Lines ``text,label`` or ``label,text`` without a quotation mark."""
    pairs = [(f"some text {i}", LABELS[i % 3]) for i in range(count)]
    return [",".join(pair if order == "text,label" else pair[::-1]) for pair in pairs]


def with_mark(line: str, order: str, *, at_end: bool = False) -> str:
    """The line with a quotation mark at the beginning or end of its text."""
    first, second = line.split(",")
    text, label = (first, second) if order == "text,label" else (second, first)
    text = f'{text}"' if at_end else f'"{text}'
    return ",".join((text, label) if order == "text,label" else (label, text))


@pytest.mark.parametrize("order", ["text,label", "label,text"])
@pytest.mark.parametrize("end", ["\n", ""])
@pytest.mark.parametrize("row", [0, 10, 19])
def test_a_file_that_ends_in_a_quoted_field_is_refused_with_its_line(
    tmp_path: Path, order: str, end: str, row: int
) -> None:
    lines = plain_rows(20, order)
    lines[row] = with_mark(lines[row], order)
    with pytest.raises(DataError, match=f"begins at line {row + 2} and never ends"):
        open_csv(tmp_path, "\n".join([order, *lines]) + end)


@pytest.mark.parametrize("order", ["text,label", "label,text"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("closing", [11, 12, 30])
def test_a_quoted_field_that_swallows_rows_is_refused_with_its_line(
    tmp_path: Path, order: str, newline: str, closing: int
) -> None:
    lines = plain_rows(48, order)
    lines[10] = with_mark(lines[10], order)
    lines[closing] = with_mark(lines[closing], order, at_end=True)
    with pytest.raises(DataError, match="line 12 has a quoted field"):
        open_csv(tmp_path, newline.join([order, *lines]) + newline)


def test_swallowed_rows_are_refused_among_many_texts_over_several_lines(tmp_path: Path) -> None:
    lines = [f'"text {i}\nits second line",{LABELS[i % 3]}' for i in range(50)]
    swallowed = ['"begin,good', "one,bad", "two,fair", 'three",good']
    with pytest.raises(DataError, match="line 102 has a quoted field"):
        open_csv(tmp_path, "\n".join(["text,label", *lines, *swallowed]) + "\n")


@pytest.mark.parametrize("order", ["text,label", "label,text"])
def test_texts_over_several_lines_are_read_without_a_word(tmp_path: Path, order: str) -> None:
    texts = [f'Hello all,\n\nline, with commas {i}\n- item, 1\n"quoted"\n' for i in range(40)]
    frame = pd.DataFrame({"text": texts, "label": [LABELS[i % 3] for i in range(40)]})
    frame[order.split(",")].to_csv(tmp_path / "in.csv", index=False)
    source = support.read_configured_source(config_for(tmp_path / "in.csv"))
    assert [text for text, _ in source.rows()] == texts
    assert source.warnings == ()


def test_a_few_lines_like_rows_in_one_of_many_long_texts_are_warned_about(tmp_path: Path) -> None:
    texts = [f"text {i}\nin\nseveral\nlines" for i in range(30)]
    texts[7] = "this is what the file looks like:\nnice,good\nmore of it\nand an end"
    frame = pd.DataFrame({"text": texts, "label": [LABELS[i % 3] for i in range(30)]})
    frame.to_csv(tmp_path / "in.csv", index=False)
    source = support.read_configured_source(config_for(tmp_path / "in.csv"))
    assert [text for text, _ in source.rows()] == texts
    [warning] = source.warnings
    assert "line 30" in warning  # seven rows of four lines and the header before it


UNLABELLED = [("text,id", ()), ("text,label", ("dataset.label_column=null",)), ("text,label", ())]


@pytest.mark.parametrize(("header", "flags"), UNLABELLED)
def test_swallowed_rows_are_refused_without_labels_too(
    tmp_path: Path, header: str, flags: tuple[str, ...]
) -> None:
    """Without a label column, without its use, and with nothing in it."""
    has_values = header == "text,id" or bool(flags)
    lines = [f"some text {i},{i if has_values else ''}" for i in range(48)]
    lines[10] = f'"{lines[10]}'
    lines[14] = lines[14].replace(",", '",')
    file = tmp_path / "in.csv"
    file.write_text("\n".join([header, *lines]) + "\n")
    assert len(pd.read_csv(file)) == 44
    with pytest.raises(DataError, match="line 12 has a quoted field"):
        support.read_configured_source(config_for(file, *flags))


@pytest.mark.parametrize(("header", "flags"), UNLABELLED)
def test_two_lines_like_rows_without_labels_are_warned_about(
    tmp_path: Path, header: str, flags: tuple[str, ...]
) -> None:
    value = "" if header == "text,label" and not flags else "7"
    file = tmp_path / "in.csv"
    file.write_text(f'{header}\nplain,{value}\n"one,{value}\ntwo",{value}\n')
    source = support.read_configured_source(config_for(file, *flags))
    assert len(list(source.rows())) == len(pd.read_csv(file)) == 2
    [warning] = source.warnings
    assert "line 3" in warning


def test_texts_over_several_lines_without_labels_are_read_without_a_warning(
    tmp_path: Path,
) -> None:
    texts = [f"Hello all\n\na line {i}\nanother line\n" for i in range(40)]
    pd.DataFrame({"text": texts, "id": range(40)}).to_csv(tmp_path / "in.csv", index=False)
    source = support.read_configured_source(config_for(tmp_path / "in.csv"))
    assert [text for text, _ in source.rows()] == texts
    assert source.warnings == ()


@pytest.mark.parametrize(
    ("multi_line", "words"),
    [
        ([], None),
        ([3], "1 text spans several lines, at line 5"),
        ([3, 9], "2 texts span several lines, the first at line 5"),
    ],
)
def test_texts_over_several_lines_in_a_single_column_are_counted(
    tmp_path: Path, multi_line: list[int], words: str | None
) -> None:
    texts = [f"text {i}" for i in range(12)]
    for row in multi_line:
        texts[row] += "\nits second line"
    pd.DataFrame({"text": texts}).to_csv(tmp_path / "in.csv", index=False)
    source = support.read_configured_source(config_for(tmp_path / "in.csv"))
    assert [text for text, _ in source.rows()] == texts
    assert [warning.split(":")[0] for warning in source.warnings] == ([words] if words else [])


@pytest.mark.parametrize(("name", "separator"), [("in.csv", ","), ("in.tsv", "\t")])
def test_the_conversions_that_a_refusal_shows_give_the_rows(
    tmp_path: Path, name: str, separator: str
) -> None:
    lines = [f"text {i}{separator}good" for i in range(20)]
    lines[5] = f'"{lines[5]}'
    lines[9] = lines[9].replace(separator, f'"{separator}')
    with pytest.raises(DataError) as caught:
        open_csv(tmp_path, "\n".join([f"text{separator}label", *lines]) + "\n", name)
    commands = re.findall(r"pandas\.read_csv\(.*?\)(?=\.to_parquet)", str(caught.value.fix))
    tables = [eval(text, {"pandas": pd, "PATH": tmp_path / name}) for text in commands]
    assert [len(table) for table in tables] == [20, 16]


@pytest.mark.parametrize(
    ("row", "warning"),
    MARKS_IN_TEXTS,
)
def test_marks_that_change_the_text_are_warned_about(
    tmp_path: Path, row: str, warning: str | None
) -> None:
    source = open_csv(tmp_path, f"text,label\nsome text,bad\n{row}\n")
    if warning is None:
        assert source.warnings == ()
    else:
        [message] = source.warnings
        assert "the row at line 3 has" in message
        assert warning in message


def test_the_conversions_that_a_warning_shows_give_the_texts(tmp_path: Path) -> None:
    content = {
        "backslashes.csv": (r'"he said \"yes\"",good', 'he said "yes"'),
        "raw.csv": ('"yes" he said,good', '"yes" he said'),
        "spaces.csv": ('good, "yes he said"', "yes he said"),
    }
    for name, (row, text) in content.items():
        columns = "label,text" if row.startswith("good") else "text,label"
        source = open_csv(tmp_path, f"{columns}\n{row}\n", name)
        calls = re.findall(r"pandas\.read_csv\(PATH, (.*?)\)\.", source.warnings[0])
        texts = []
        for options in calls:
            options = eval(f"dict({options})")  # noqa: S307 - of our own message
            texts.append(pd.read_csv(tmp_path / name, **options).text[0])
        assert text in texts


def test_tabs_are_read_as_pandas_reads_them_and_checked_alike(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "text": ['with "marks"', "a\tb", "over\nlines", "plain, comma"],
            "label": ["good", "bad"] * 2,
        }
    )
    frame.to_csv(tmp_path / "in.TSV", index=False, sep="\t")
    rows = list(support.read_configured_source(config_for(tmp_path / "in.TSV")).rows())
    assert rows == list(frame.itertuples(index=False, name=None))
    with pytest.raises(DataError, match="begins at line 2 and never ends"):
        open_csv(tmp_path, 'text\tlabel\n"never closed\tgood\nmore\tbad\n', "other.tsv")


@pytest.mark.parametrize(
    ("name", "header", "separator", "fix"),
    [
        ("in.csv", "text;label", "';'", "save it again with commas, or as .tsv with tabs"),
        ("in.csv", "text\tlabel", "tabs", "name the file .tsv"),
        ("in.tsv", "text,label", "','", "name the file .csv"),
    ],
)
def test_another_separator_is_named(
    tmp_path: Path, name: str, header: str, separator: str, fix: str
) -> None:
    with pytest.raises(DataError, match=f"separated by {separator}") as caught:
        open_csv(tmp_path, f"{header}\n", name)
    assert caught.value.fix == fix


def test_utf_16_is_named(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text,label\na,good\n", encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16"):
        support.read_configured_source(config_for(tmp_path / "in.csv"))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_byte_order_mark_is_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "in.csv").write_text("text,label\na,good\n", encoding=encoding)
    with pytest.raises(DataError, match="UTF-16 without a byte order mark") as caught:
        support.read_configured_source(config_for(tmp_path / "in.csv"))
    assert caught.value.fix == "save it as UTF-8"


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(SAFE_TEXT, min_size=1, max_size=6),
    separator=st.sampled_from([",", "\t"]),
    newline=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([0, 1]),
)
def test_rows_equal_what_pandas_reads(
    tmp_path: Path, texts: Sequence[str], separator: str, newline: str, quoting: int
) -> None:
    """Files that pandas wrote, compared with its own reader without words for missing values."""
    assume(
        quoting == 1 or not any("\r" in text for text in texts)
    )  # pandas itself writes and reads those wrongly
    file = tmp_path / ("in.csv" if separator == "," else "in.tsv")
    frame = pd.DataFrame({"text": texts, "label": "good", "number": range(len(texts))})
    options: Any = {"sep": separator, "lineterminator": newline, "quoting": quoting}
    frame.to_csv(file, index=False, **options)
    judge = pd.read_csv(file, sep=separator, keep_default_na=False, dtype=str)
    rows = list(support.read_configured_source(config_for(file)).rows())
    assert [text for text, _ in rows] == list(judge["text"])
