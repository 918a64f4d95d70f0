"""Made-up results for the tests of the reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.builders import Scenario, write_results
from utils.reporting.results import Results, read_results

MakeResults = Callable[..., Results]


@pytest.fixture
def make_results(tmp_path: Path) -> MakeResults:
    """A function that writes the files of a scenario, given by its fields, and reads them."""

    def make(**fields: Any) -> Results:
        return read_results(write_results(tmp_path / "results", Scenario(**fields)).files)

    return make
