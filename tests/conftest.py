"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# No test may reach a real hub; the tests that need one serve it on loopback.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tests import support  # noqa: E402


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Qwen2 classifier with three labels and its tokenizer."""
    return support.build_tiny_model(tmp_path_factory.mktemp("tiny_model"))
