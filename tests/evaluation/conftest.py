"""Fixtures of the tests of the evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import support
from tests.evaluation.small_evaluation import Evaluate
from utils.config_loader import load_config
from utils.evaluation import runner
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.model_utils import LoadedModel, load_model
from utils.schema.evaluation import EvaluationMetrics


@pytest.fixture(scope="module")
def loaded(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(support.small_config(tmp_path_factory.mktemp("config"), tiny_model))


@pytest.fixture
def evaluate(tmp_path: Path, tiny_model: Path, loaded: LoadedModel) -> Evaluate:
    """Evaluate the small data set in a folder (default: the test's own) with more settings."""

    def run(*more: str, folder: Path = tmp_path, model: LoadedModel = loaded) -> EvaluationMetrics:
        if not (folder / "data").exists():
            support.write_dataset(folder / "data")
        config = load_config(overrides=[*support.small_overrides(folder, tiny_model), *more])
        return runner.evaluate_dataset(model, EvaluationSettings.of(config))

    return run
