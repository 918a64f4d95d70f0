"""Data sets that change, results that are no numbers, labels that are missing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests import support
from tests.evaluation.small_evaluation import EXACT, Evaluate, count_runs, predictions
from utils.core.errors import DataError, ModelError
from utils.evaluation import runner
from utils.evaluation.chunks import ChunkStore
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.model_utils import LoadedModel, load_model


def test_a_data_set_replaced_meanwhile_is_refused_and_nothing_of_it_kept(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = ChunkStore.save

    def save_and_replace(self: ChunkStore, *values: Any) -> None:
        save(self, *values)
        support.write_dataset(tmp_path / "data", support.TEXTS[:30])

    with (
        monkeypatch.context() as patch,
        pytest.raises(DataError, match="replaced while it was evaluated"),
    ):
        patch.setattr(ChunkStore, "save", save_and_replace)
        evaluate(EXACT)
    assert [
        path.name[:17] for path in sorted((tmp_path / "results" / "predictions").iterdir())
    ] == ["rows-000000000000"]
    assert evaluate(EXACT).num_samples == 30


def test_a_data_set_replaced_since_it_was_hashed_is_refused(
    loaded: LoadedModel, tmp_path: Path, tiny_model: Path
) -> None:
    support.write_dataset(tmp_path / "data")
    config = support.small_config(tmp_path, tiny_model)
    with pytest.raises(DataError, match="replaced while it was evaluated"):
        runner.evaluate_dataset(loaded, EvaluationSettings.of(config), data_sha256="0" * 64)
    assert not list((tmp_path / "results").rglob("*.parquet"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_no_numbers_are_refused(
    evaluate: Evaluate, loaded: LoadedModel, tmp_path: Path, value: float
) -> None:
    def overflowing(*, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> Any:
        logits = torch.zeros(len(input_ids), 3)
        logits[input_ids[:, 0] == loaded.tokenizer("books number 3")["input_ids"][0], 1] = value
        return SimpleNamespace(logits=logits)

    with pytest.raises(ModelError, match="20 of 60 rows") as caught:
        evaluate(
            "evaluation.chunk_rows=60", EXACT, model=dataclasses.replace(loaded, model=overflowing)
        )
    assert "model.dtype=bfloat16" in str(caught.value)
    assert not list((tmp_path / "results" / "predictions").glob("*.parquet"))


def test_odd_texts_and_missing_labels(evaluate: Evaluate, tmp_path: Path) -> None:
    texts = (
        "plain",
        'quoted\n"newline"',
        "a\x00b",
        " \t ",
        "long " * 200_000,
        "<pad>",
        "é漢字🎲",
        "last",
    )
    label_ids = pd.array([0, 1, 2, 0, 1, 2, None, 0], dtype="Int64")
    frame = pd.DataFrame({"text": texts, "labels": "books", "label_id": label_ids})
    support.write_dataset(tmp_path / "data")
    frame.to_parquet(tmp_path / "data" / "val_df.parquet", index=False)
    metrics = evaluate(
        f"dataset.local_path={tmp_path / 'data' / 'val_df.parquet'}", "evaluation.chunk_rows=3"
    )
    rows = predictions(tmp_path)
    assert rows.row_id.tolist() == list(range(8))
    assert rows.label_id.isna().tolist() == [False] * 6 + [True, False]
    assert (metrics.num_missing_labels, metrics.num_labelled, metrics.num_truncated) == (
        1,
        7,
        1,
    )
    assert metrics.accuracy == np.mean(
        [rows.label_id[i] == rows.predicted_id[i] for i in range(8) if i != 6]
    )


def test_label_names_stand_beside_the_ids(evaluate: Evaluate, tmp_path: Path) -> None:
    names = ("图书", "games 🎮", "books, used")
    support.write_dataset(tmp_path / "data", labels=names)
    frame = pd.read_csv(tmp_path / "data" / "val_df.csv").astype({"label_id": "Int64"})
    frame.loc[7, "label_id"] = None
    frame.to_csv(tmp_path / "data" / "val_df.csv", index=False)
    evaluate("evaluation.chunk_rows=7")
    for file in sorted((tmp_path / "results" / "predictions").glob("*.parquet")):
        table = pq.read_table(file)
        assert pa.types.is_dictionary(table.schema.field("label").type)
        assert pa.types.is_dictionary(table.schema.field("predicted_label").type)
        for row in table.to_pylist():
            assert row["label"] == (None if row["label_id"] is None else names[row["label_id"]])
            assert row["predicted_label"] == names[row["predicted_id"]]
    assert predictions(tmp_path).label.isna().sum() == 1


def test_predictions_with_other_label_names_are_made_again(
    evaluate: Evaluate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evaluate()
    mapping = tmp_path / "data" / "label_mappings.json"
    mapping.write_text(mapping.read_text().replace("music", "tunes"))
    seen = count_runs(monkeypatch)
    evaluate()
    assert sum(seen) == 60
    assert "label names: " in capsys.readouterr().out
    assert set(predictions(tmp_path).label) == {"books", "games", "tunes"}


def test_dummy_weights_have_no_accuracy(tmp_path: Path, tiny_model: Path) -> None:
    config = support.small_config(tmp_path, tiny_model, "model.load_format=dummy")
    metrics = runner.evaluate_dataset(load_model(config), EvaluationSettings.of(config))
    names = (
        "accuracy",
        "f1_macro",
        "f1_weighted",
        "accuracy_ci95_low",
        "num_correct",
        "per_class",
        "majority_class_accuracy",
    )
    assert [getattr(metrics, name) for name in names] == [None] * len(names)
    assert "random" in metrics.unavailable["accuracy"]
