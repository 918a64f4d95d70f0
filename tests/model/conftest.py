"""Fixtures of the tests of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import builders


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builders.build_bert(tmp_path_factory.mktemp("bert"))
