"""What the sections about speed say of how they were measured."""

from __future__ import annotations

from typing import Any

import pytest

from tests.reporting.conftest import MakeResults
from utils.reporting.page.speed_sections import speed_section


@pytest.mark.parametrize(
    ("variables", "is_said"),
    [
        ({"TOKENIZERS_PARALLELISM": "false"}, True),
        ({"TOKENIZERS_PARALLELISM": "true"}, False),
        ({"TOKENIZERS_PARALLELISM": None}, False),
        ({}, False),
    ],
)
def test_a_sweep_without_the_tokenizers_threads_says_so(
    make_results: MakeResults, variables: dict[str, Any], is_said: bool
) -> None:
    results = make_results(sections={"environment": {"variables": variables}})
    measured = " ".join(speed_section(results).measured)
    assert ("the tokenizer used no threads of its own" in measured) == is_said
