"""What tests of the evaluation of a small data set share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from utils.evaluation import predictor
from utils.evaluation.predictions import PendingPredictions
from utils.evaluation.tokens import TokenChunk
from utils.schema.evaluation import EvaluationMetrics

Evaluate = Callable[..., EvaluationMetrics]


EXACT = "evaluation.max_tokens_per_batch=256"


def chunk_bytes(folder: Path) -> dict[str, bytes]:
    return {
        file.name: file.read_bytes()
        for file in sorted((folder / "results" / "predictions").iterdir())
    }


def predictions(folder: Path) -> pd.DataFrame:
    files = sorted((folder / "results" / "predictions").glob("*.parquet"))
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def count_runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every chunk that is really computed from here on."""
    seen: list[int] = []
    real = predictor.Predictor.launch

    def spy(self: predictor.Predictor, chunk: TokenChunk) -> PendingPredictions:
        seen.append(len(chunk.ids))
        return real(self, chunk)

    monkeypatch.setattr(predictor.Predictor, "launch", spy)
    return seen
