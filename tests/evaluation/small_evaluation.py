"""What tests of the evaluation of a small data set share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from utils.evaluation.batching import Indices
from utils.evaluation.chunks import ChunkStore
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
    real = ChunkStore.save

    def spy(self: ChunkStore, start: int, label_ids: Indices, *others: Any) -> None:
        real(self, start, label_ids, *others)
        seen.append(len(label_ids))

    monkeypatch.setattr(ChunkStore, "save", spy)
    return seen
