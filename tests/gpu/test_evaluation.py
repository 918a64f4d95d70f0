"""The evaluator on a CUDA device: the predictions of a plain loop, and no row is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import support
from utils.config_loader import Config
from utils.evaluation import runner
from utils.evaluation.batching import Batching
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.evaluation.predictor import Predictor
from utils.evaluation.tokens import tokenize
from utils.model_utils import LoadedModel, load_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
MAX_LENGTH = 64
MIB = 2**20
# A batch limit above what any group of rows reaches.
NO_LIMIT = 10**9


def configured(folder: Path, model: Path, *more: str) -> Config:
    return support.small_config(folder, model, "model.device=cuda:0", "model.dtype=float32", *more)


@pytest.fixture
def loaded(tmp_path: Path, tiny_model: Path) -> LoadedModel:
    return load_model(configured(tmp_path, tiny_model))


def masked_loop(
    loaded: LoadedModel, texts: tuple[str, ...], size: int = 16
) -> torch.return_types.max:
    """Label ids and probabilities of fixed batches in file order, padded and masked."""
    logits = []
    with torch.inference_mode():
        for start in range(0, len(texts), size):
            batch = loaded.tokenizer(
                list(texts[start : start + size]),
                padding=True,
                truncation=True,
                max_length=MAX_LENGTH,
                return_tensors="pt",
            ).to(loaded.device)
            logits.append(
                loaded.model(
                    input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
                ).logits.cpu()
            )
    return torch.cat(logits).float().softmax(-1).max(-1)


def assert_same_predictions(ids: Any, probabilities: Any, expected: torch.return_types.max) -> None:
    assert np.asarray(ids).tolist() == expected.indices.tolist()
    assert np.asarray(probabilities) == pytest.approx(expected.values.numpy(), abs=1e-4)


@pytest.mark.parametrize("batching", ["token_budget", "dataset_order"])
def test_float32_predictions_are_the_plain_masked_loops(
    loaded: LoadedModel, tmp_path: Path, tiny_model: Path, batching: str
) -> None:
    """Through chunk files, with chunks in flight and the budget chosen by trials."""
    metrics = runner.evaluate_dataset(
        loaded,
        EvaluationSettings.of(configured(tmp_path, tiny_model, f"evaluation.batching={batching}")),
    )
    files = sorted((tmp_path / "results" / "predictions").glob("*.parquet"))
    rows = support.read_predictions(tmp_path)
    assert len(files) == 3
    assert rows.row_id.tolist() == list(range(len(support.TEXTS)))
    assert_same_predictions(
        rows.predicted_id, rows.predicted_probability, masked_loop(loaded, support.TEXTS)
    )
    assert metrics.accuracy == pytest.approx((rows.label_id == rows.predicted_id).mean())
    assert metrics.peak_gpu_mem >= metrics.gpu_mem_used > 0


def test_no_batch_waits_for_the_device(loaded: LoadedModel) -> None:
    chunk = tokenize(loaded.tokenizer, support.TEXTS, MAX_LENGTH, loaded.inputs)
    batching = Batching(kind="token_budget", limit=300)
    predictor = Predictor(loaded.model, loaded.inputs, loaded.device, batching)
    expected = predictor.predict(chunk)
    torch.cuda.set_sync_debug_mode("error")
    try:
        pending = predictor.launch(chunk)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert pending.result().predicted_ids.tolist() == expected.predicted_ids.tolist()


@pytest.fixture
def little_memory(loaded: LoadedModel) -> Iterator[int]:
    """The allocator may take 96 MiB above what the model holds, and no more."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    allowed = torch.cuda.memory_reserved(0) + 96 * MIB
    torch.cuda.set_per_process_memory_fraction(allowed / total, 0)
    yield allowed
    torch.cuda.set_per_process_memory_fraction(1.0, 0)
    torch.cuda.empty_cache()


@pytest.mark.parametrize("kind", ["token_budget", "dataset_order"])
def test_at_the_end_of_the_memory_no_row_is_lost(
    loaded: LoadedModel, little_memory: int, kind: Any
) -> None:
    """16,384 rows of 64 tokens in one batch: a hidden state of 128 bytes a token is 128 MiB."""
    many = (support.TEXTS * 274)[:16384]
    texts = tuple(f"{text} {'long ' * (i % 50)}" for i, text in enumerate(many))
    chunk = tokenize(loaded.tokenizer, texts, MAX_LENGTH, loaded.inputs)
    batching = Batching(kind=kind, limit=NO_LIMIT)
    predictor = Predictor(loaded.model, loaded.inputs, loaded.device, batching)
    predictions = predictor.predict(chunk)
    assert predictor.batching.limit < NO_LIMIT, "memory ran out at least once"
    assert torch.cuda.memory_reserved(0) <= little_memory
    assert_same_predictions(
        predictions.predicted_ids, predictions.probabilities, masked_loop(loaded, texts, 128)
    )
