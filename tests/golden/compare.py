"""Differences between what is expected and what is there, as lines that name the key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

PROBABILITY_TOLERANCE = 1e-5
# Columns of predictions.csv that must be equal; the probabilities may differ in their last digits.
EXACT_COLUMNS = ("row_id", "label_id", "predicted_id", "num_tokens")
MOST_ROWS_SHOWN = 10


def list_differences(expected: Sequence[str], actual: Sequence[str]) -> list[str]:
    """The entries that are missing (``-``), new (``+``) or at another place (both)."""
    lines = difflib.ndiff(list(expected), list(actual))
    return [line for line in lines if line.startswith(("- ", "+ "))]


def differences_by_key(
    expected: Mapping[str, Sequence[str]], actual: Mapping[str, Sequence[str]]
) -> list[str]:
    """The differences of the lists under each key; a missing key counts as an empty list."""
    lines = []
    for key in sorted({*expected, *actual}):
        for line in list_differences(expected.get(key, []), actual.get(key, [])):
            lines.append(f"{key}: {line}")
    return lines


def prediction_differences(expected: pd.DataFrame, actual: pd.DataFrame) -> list[str]:
    """One line for each row of which a label, an id or the number of tokens differs, or the
    probability by more than ``PROBABILITY_TOLERANCE``."""
    if len(expected) != len(actual):
        return [f"{len(expected)} rows are expected, there are {len(actual)}"]
    lines = []
    for column in EXACT_COLUMNS:
        for row in np.flatnonzero(expected[column].to_numpy() != actual[column].to_numpy()):
            lines.append(_row_line(row, column, expected, actual))
    column = "predicted_probability"
    distance = np.abs(expected[column].to_numpy() - actual[column].to_numpy())
    # Written so that NaN counts as different.
    for row in np.flatnonzero(~(distance <= PROBABILITY_TOLERANCE)):
        lines.append(_row_line(row, column, expected, actual))
    hidden = len(lines) - MOST_ROWS_SHOWN
    if hidden > 0:
        lines = [*lines[:MOST_ROWS_SHOWN], f"and {hidden} more"]
    return lines


def _row_line(row: Any, column: str, expected: pd.DataFrame, actual: pd.DataFrame) -> str:
    values = f"{expected[column][row]} is expected, {actual[column][row]} is there"
    return f"row {row}, {column}: {values}"


def message(file: str, lines: Sequence[str]) -> str:
    """What a failing test shows: the differences, and what to do if they are intended."""
    head = f"What users rely on has changed (tests/golden/expected/{file}):"
    fix = f"If this is intended: python -m tests.golden.regenerate {file}, then check the diff."
    return "\n".join([head, *(f"  {line}" for line in lines), fix])
