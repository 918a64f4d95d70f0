"""Reports drawn once from made-up results, for many tests to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.reporting import fixtures
from utils.reporting.results import Results, read_results

Make = Callable[..., Results]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write made-up files with the given peculiarities and read them."""

    def make_results(**peculiar: Any) -> Results:
        return read_results(fixtures.write_results(tmp_path / "results", **peculiar).files)

    return make_results
