"""docs/WARNINGS.md explains every verdict and every kind of warning."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from utils.reporting.warning_causes import CAUSES, OTHER, Cause
from utils.schema.diagnosis import Verdict

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "WARNINGS.md"


@pytest.fixture(scope="module")
def rows() -> dict[str, list[str]]:
    """The cells of each table row by its first one."""
    cells = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            first, *others = [cell.strip() for cell in line.strip("|").split("|")]
            cells[first] = others
    return cells


@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_each_verdict_has_a_meaning_and_what_to_do(
    rows: dict[str, list[str]], verdict: str
) -> None:
    assert all(rows[f"`{verdict}`"])


@pytest.mark.parametrize("cause", (*CAUSES, OTHER), ids=lambda cause: cause.title)
def test_each_warning_has_its_meaning_and_the_remedy_of_the_page(
    rows: dict[str, list[str]], cause: Cause
) -> None:
    code, meaning, serious, remedy = rows[cause.title]
    assert code == ("–" if cause.code is None else f"`{cause.code.value}`")
    assert meaning
    assert serious == ("yes" if cause.serious else "no")
    assert remedy == cause.fix
