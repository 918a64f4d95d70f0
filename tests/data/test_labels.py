"""Label ids come from the model; nothing is guessed in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from utils.core.errors import DataError, UserError
from utils.data.labels import LabelMapping, decide_mapping, read_mapping_file

MODEL = {"music": 0, "books": 1, "games": 2}


def test_the_models_ids_win_over_sorted_names() -> None:
    mapping, source, warnings = decide_mapping({"books", "games", "music"}, MODEL)
    assert (mapping.label2id, source, warnings) == (MODEL, "model", ())


def test_fewer_labels_than_the_model_keep_the_models_ids() -> None:
    mapping, _, warnings = decide_mapping({"games"}, MODEL)
    assert mapping.label2id == MODEL
    assert "2 of the model's 3 labels do not occur" in warnings[0]


def test_sorted_names_only_where_the_model_has_none_and_with_a_warning() -> None:
    mapping, source, warnings = decide_mapping({"b", "a", "c"}, None)
    assert (mapping.names, source) == (("a", "b", "c"), "sorted")
    assert "no label names" in warnings[0]


def test_numbers_sort_by_value() -> None:
    assert decide_mapping({str(i) for i in range(12)}, None)[0].names == tuple(str(i) for i in range(12))


def test_unnamed_labels_sort_by_their_number() -> None:
    names = tuple(f"LABEL_{i}" for i in range(12))
    assert decide_mapping(set(names), None)[0].names == names


def test_a_model_whose_ids_have_gaps_is_refused() -> None:
    with pytest.raises(DataError, match="gaps"):
        decide_mapping({"a"}, {"a": 0, "b": 2})


def test_numbers_are_the_models_ids_with_a_warning() -> None:
    mapping, _, warnings = decide_mapping({"0", "2"}, MODEL)
    assert mapping.label2id == MODEL
    assert "label ids" in warnings[0]


@pytest.mark.parametrize("labels", [{"books", "films"}, {"books", "games", "music", "films"}, {"0", "3"}, {"films"}])
def test_labels_that_the_model_does_not_know_are_listed(labels: set[str]) -> None:
    with pytest.raises(DataError) as caught:
        decide_mapping(labels, MODEL)
    assert all(repr(name) in caught.value.what for name in labels - set(MODEL))
    assert "only in the model" in caught.value.what
    assert caught.value.fix


def test_no_labels_at_all_are_refused() -> None:
    with pytest.raises(DataError, match="no labels"):
        decide_mapping(set(), MODEL)


def test_the_mapping_survives_its_file(tmp_path: Path) -> None:
    file = tmp_path / "label_mappings.json"
    mapping = LabelMapping(names=("ä", "b"))
    file.write_text(json.dumps(mapping.to_json()))
    assert read_mapping_file(file) == mapping


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"id2label": {"1": "a"}}', '{"id2label": {"0": "a"}, "label2id": {"a": 1}, "num_labels": 1}'],
)
def test_a_damaged_mapping_names_the_file_and_step_01(tmp_path: Path, text: str) -> None:
    file = tmp_path / "label_mappings.json"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_mapping_file(file)
    assert caught.value.where == str(file)
    assert "01_download_data.py" in str(caught.value)
