"""The file that stores which id stands for which name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from utils.core.errors import UserError
from utils.data.labels import LabelMapping, read_mapping_file


def test_the_mapping_survives_its_file(tmp_path: Path) -> None:
    file = tmp_path / "label_mappings.json"
    mapping = LabelMapping(names=("ä", "b"))
    file.write_text(json.dumps(mapping.to_record().to_dict()))
    assert read_mapping_file(file) == mapping


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"id2label": {"1": "a"}}',
        '{"id2label": {"0": "a"}, "label2id": {"a": 1}, "num_labels": 1}',
    ],
)
def test_a_damaged_mapping_names_the_file_and_step_01(tmp_path: Path, text: str) -> None:
    file = tmp_path / "label_mappings.json"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_mapping_file(file)
    assert caught.value.where == str(file)
    assert "01_download_data.py" in str(caught.value)
