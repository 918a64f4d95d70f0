"""The golden tests can fail: each kind of change is shown by its key."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from tests.golden import compare, json_structure

DOCUMENT: dict[str, Any] = {
    "run": {"seed": 0, "warnings": ["slow"]},
    "rows": [{"ms": 1.5, "mfu": None}, {"ms": 2, "mfu": 0.25}],
    "kernels": {"busy_ms": 1.0},
    "unavailable": {"gpu_util": "no GPU"},
}
STRUCTURE = {
    "run": "object",
    "run.seed": "integer",
    "run.warnings": "array",
    "run.warnings[]": "string",
    "rows": "array",
    "rows[]": "object",
    "rows[].ms": "number",
    "rows[].mfu": "null or number",
    "kernels": "null or object",
    "kernels.busy_ms": "number",
    "unavailable": "object",
    "unavailable.*": "string",
}


def differences(**changes: Any) -> list[str]:
    """What is shown where the document has other values at its top."""
    actual = json_structure.structure_of({**DOCUMENT, **changes})
    return json_structure.differences(STRUCTURE, actual)


def test_structure_names_every_path_with_its_types() -> None:
    shown = json_structure.structure_of(DOCUMENT)
    assert shown == {**STRUCTURE, "kernels": "object"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"run": {"warnings": []}}, "- run.seed: integer is expected, the key is missing"),
        ({"run": {"seed": 0, "id": "a", "warnings": []}}, "+ run.id: string is new"),
        (
            {"run": {"seed": "0", "warnings": []}},
            "! run.seed: integer is expected, the file has string",
        ),
        (
            {"run": {"seed": 0.5, "warnings": []}},
            "! run.seed: integer is expected, the file has number",
        ),
        (
            {"rows": [{"ms": None, "mfu": None}]},
            "! rows[].ms: number is expected, the file has null",
        ),
        (
            {"rows": [{"ms": 1.5, "mfu": None}, {"mfu": None}]},
            "! rows[].ms: number is expected, the file has absent or number",
        ),
        ({"unavailable": {"mfu": 1}}, "! unavailable.*: string is expected, the file has integer"),
    ],
)
def test_a_changed_key_is_shown(changes: dict[str, Any], line: str) -> None:
    assert differences(**changes) == [line]


@pytest.mark.parametrize(
    "changes",
    [
        {"run": {"seed": 7, "warnings": []}},
        {"rows": []},
        {"rows": [{"ms": 3, "mfu": 1}]},
        {"kernels": None},
        {"unavailable": {}},
        {"unavailable": {"mfu": "no ceiling", "gpu_util": "no GPU"}},
    ],
)
def test_what_may_differ_between_runs_is_no_difference(changes: dict[str, Any]) -> None:
    assert differences(**changes) == []


def test_merging_keeps_what_was_widened_and_drops_what_is_gone() -> None:
    committed = {**STRUCTURE, "run.old": "string"}
    changed = {
        **DOCUMENT,
        "run": {"seed": 0, "warnings": [], "id": "a"},
        "rows": [{"ms": 1.5, "mfu": None}],
        "kernels": None,
    }
    merged = json_structure.merge(committed, json_structure.structure_of(changed))
    assert merged == {**STRUCTURE, "run.id": "string"}
    assert [path for path in merged if path in STRUCTURE] == list(STRUCTURE)


def test_lists_show_missing_new_and_moved_entries() -> None:
    assert compare.list_differences(["a", "b"], ["a", "c"]) == ["- b", "+ c"]
    assert len(compare.list_differences(["a", "b"], ["b", "a"])) == 2
    assert compare.differences_by_key({"02": ["--config"]}, {"02": [], "05": ["--with"]}) == [
        "02: - --config",
        "05: + --with",
    ]


@pytest.mark.parametrize(
    ("column", "value", "number_of_lines"),
    [
        ("predicted_id", 2, 1),
        ("num_tokens", 4, 1),
        ("predicted_probability", 0.500009, 0),
        ("predicted_probability", 0.500011, 1),
        ("predicted_probability", float("nan"), 1),
    ],
)
def test_predictions_are_compared(column: str, value: float, number_of_lines: int) -> None:
    expected = pd.DataFrame(
        {
            "row_id": [0, 1],
            "label_id": [0, 1],
            "predicted_id": [1, 1],
            "predicted_probability": [0.5, 0.9],
            "num_tokens": [3, 3],
        }
    )
    actual = expected.copy()
    actual.loc[0, column] = value
    lines = compare.prediction_differences(expected, actual)
    assert len(lines) == number_of_lines
    assert all(column in line for line in lines)
    assert compare.prediction_differences(expected, actual[:1]) == [
        "2 rows are expected, there are 1"
    ]
