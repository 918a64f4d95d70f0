"""The one run that the golden tests share."""

from __future__ import annotations

import pytest

from tests.golden.small_run import SmallRun, make_small_run


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """All steps on the golden model, once."""
    return make_small_run(tmp_path_factory.mktemp("golden"))
