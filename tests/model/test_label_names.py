"""Label names are read as transformers' pipeline reads them, or refused in one message."""

from __future__ import annotations

from typing import Any

import pytest

from utils.core.errors import ModelError
from utils.model.label_names import parse_label_names

NAMES = ("positive", "neutral", "negative")
ID2LABEL = {"0": "positive", "1": "neutral", "2": "negative"}
LABEL2ID = {"positive": 0, "neutral": 1, "negative": 2}
GENERIC = {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
GENERIC_NAMES = {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}


@pytest.mark.parametrize(
    "config",
    [
        {"id2label": ID2LABEL, "label2id": LABEL2ID},
        {"id2label": ID2LABEL},
        {"id2label": ID2LABEL, "label2id": None},
        {"id2label": ID2LABEL, "label2id": GENERIC},
        {"id2label": {0: "positive", 1: "neutral", 2: "negative"}},
        {"id2label": ID2LABEL, "label2id": {"positive": "0", "neutral": "1", "negative": "2"}},
        {"id2label": dict(reversed(ID2LABEL.items())), "label2id": LABEL2ID},
        {"id2label": ID2LABEL, "label2id": {**LABEL2ID, "good": 0}},
        {"id2label": ID2LABEL, "label2id": {"POSITIVE": 0, " Neutral": 1, "Negative": 2}},
    ],
)
def test_names_of_id2label(config: dict[str, Any]) -> None:
    labels = parse_label_names(config, "model")
    assert (labels.names, labels.num_labels, labels.source) == (NAMES, 3, "id2label")


@pytest.mark.parametrize(
    "config", [{"label2id": LABEL2ID}, {"label2id": LABEL2ID, "id2label": GENERIC_NAMES}]
)
def test_names_of_label2id_where_id2label_has_none(config: dict[str, Any]) -> None:
    labels = parse_label_names(config, "model")
    assert (labels.names, labels.source) == (NAMES, "label2id")


@pytest.mark.parametrize(
    ("config", "num_labels"),
    [
        ({}, 2),
        ({"num_labels": 5}, 5),
        ({"_num_labels": 4}, 4),
        ({"id2label": GENERIC_NAMES, "label2id": GENERIC}, 3),
        ({"id2label": GENERIC_NAMES}, 3),
    ],
)
def test_no_names(config: dict[str, Any], num_labels: int) -> None:
    labels = parse_label_names(config, "model")
    assert (labels.names, labels.num_labels, labels.source) == (None, num_labels, None)


def test_generic_names_in_another_order_are_names() -> None:
    labels = parse_label_names({"id2label": {"0": "LABEL_1", "1": "LABEL_0"}}, "model")
    assert labels.names == ("LABEL_1", "LABEL_0")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (
            {"id2label": ID2LABEL, "label2id": dict(zip(NAMES, (2, 1, 0), strict=True))},
            "'positive' is 0 in id2label and 2",
        ),
        (
            {"id2label": ID2LABEL, "label2id": {"positive": 0, "neutral": 1, "bad": 2}},
            "'negative' is 2 in id2label and absent",
        ),
        (
            {"id2label": ID2LABEL, "label2id": {"NEGATIVE": 0, "NEUTRAL": 1, "POSITIVE": 2}},
            "'positive' is 0 in id2label and 2",
        ),
        ({"id2label": list(NAMES)}, "id2label is a list"),
        ({"id2label": LABEL2ID}, "maps names to ids; it looks like label2id"),
        ({"label2id": list(NAMES)}, "label2id is a list"),
        ({"label2id": ID2LABEL}, "maps ids to names; it looks like id2label"),
        ({"id2label": {"0": "a", "2": "b"}}, r"gaps or do not begin at 0: \[0, 2\]"),
        ({"id2label": {"1": "a", "2": "b"}}, "do not begin at 0"),
        ({"id2label": {"0": "a", "1": "a"}}, "several ids the same name: 'a'"),
        ({"id2label": {"x": "a", "1": "b"}}, "has keys that are not ids"),
        ({"label2id": {"a": "x", "b": 1}}, "has values that are not ids"),
    ],
)
def test_one_message_for_what_cannot_be_used(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelError, match=problem) as caught:
        parse_label_names(config, "some/model")
    message = str(caught.value)
    assert "where: some/model" in message
    assert "correct config.json" in message
