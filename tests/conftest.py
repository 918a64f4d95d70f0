"""Fixtures that every test may use."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# No test may reach a real hub; the tests that need one serve it on loopback.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tests import support  # noqa: E402

# A busy machine exceeds hypothesis' limit of 0.2 s for an example; pytest-timeout ends what hangs.
hypothesis.settings.register_profile("without deadline", deadline=None)
hypothesis.settings.load_profile("without deadline")

# pytest-xdist gives a worker all tests of a file. These files start first, so that the workers end
# at about the same time.
LONGEST_FILES = (
    "tests/evaluation/test_distributed.py",
    "tests/test_docs.py",
    "tests/simulated_cuda/test_steps.py",
    "tests/evaluation/test_killed.py",
    "tests/scripts/test_published_kinds.py",
    "tests/scripts/test_00_test_model_loading.py",
    "tests/scripts/test_04_visualize.py",
    "tests/scripts/test_run_week1.py",
    "tests/scripts/test_data_scripts.py",
    "tests/scripts/test_hub_path.py",
    "tests/golden/test_small_run.py",
    "tests/pipeline/test_console.py",
    "tests/scripts/test_06_measure_change.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests of ``LONGEST_FILES`` first, in their order; the others stay where they are."""
    places = {config.rootpath / file: place for place, file in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    """Spare the garbage collector the libraries and the tests themselves, which all stay."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def environment_is_restored() -> Iterator[None]:
    """A script that runs in this process sets variables, which are not for the tests after it."""
    before = dict(os.environ)
    yield
    for name in set(os.environ).difference(before):
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Qwen2 classifier with three labels and its tokenizer."""
    return support.build_tiny_model(tmp_path_factory.mktemp("tiny_model"))
