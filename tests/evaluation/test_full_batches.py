"""A causal model's batches on a simulated CUDA device are full, as are those of a probe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen2ForSequenceClassification

from tests import support
from tests.simulated_cuda.simulate import simulated_cuda
from utils.evaluation.batching import FULL, MIN_FILL, Batching
from utils.evaluation.budget_search import fastest_budget
from utils.evaluation.predictor import Predictor
from utils.evaluation.tokens import TokenChunk
from utils.model.encoding import InputFormat

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
FORMAT = InputFormat(
    names=("input_ids", "attention_mask"),
    pad_values={"input_ids": 0, "attention_mask": 0},
    vocab_size=320,
)
LENGTHS = np.array([100] * 4 + [90] * 4 + [80] * 6)
"""With a budget of 1,000: three batches that end where the length changes, or two full ones."""


class RecordedModel(torch.nn.Module):
    """A model that notes the shape (rows, tokens) of each batch."""

    def __init__(self, *, is_causal: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = support.build_model_config(is_causal=is_causal, initializer_range=0.5)
        config.use_cache = False
        self.model = Qwen2ForSequenceClassification(config).eval()
        self.config = self.model.config
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, *, input_ids: torch.Tensor, attention_mask: Any) -> Any:
        self.shapes.append(tuple(input_ids.shape))
        return self.model(input_ids=input_ids, attention_mask=attention_mask)


def make_chunk(lengths: np.ndarray = LENGTHS) -> TokenChunk:
    rng = np.random.default_rng(0)
    ids = tuple(rng.integers(3, 320, length) for length in lengths)
    return TokenChunk(ids=ids, num_tokens=lengths, num_truncated=0, highest_id=319)


def make_predictor(device: torch.device, *, is_causal: bool = True) -> Predictor:
    model: Any = RecordedModel(is_causal=is_causal).to(device)
    predictor = Predictor(model, FORMAT, device, Batching(kind="token_budget", limit=1000))
    model.shapes.clear()
    return predictor


def test_a_causal_model_on_cuda_has_full_batches_and_the_predictions_of_the_cpu() -> None:
    on_cpu = make_predictor(CPU)
    expected = on_cpu.predict(make_chunk())
    assert sorted(on_cpu.model.shapes) == [(4, 90), (4, 100), (6, 80)]
    with simulated_cuda():
        on_cuda = make_predictor(CUDA)
        got = on_cuda.predict(make_chunk())
    assert on_cuda.model.shapes == [(10, 100), (4, 80)]
    assert got.predicted_ids.tolist() == expected.predicted_ids.tolist()
    assert got.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    assert got.computed_tokens == 10 * 100 + 4 * 80


def test_a_model_that_needs_a_mask_ends_batches_where_the_length_changes() -> None:
    with simulated_cuda():
        predictor = make_predictor(CUDA, is_causal=False)
        predictor.predict(make_chunk())
    assert predictor.min_fill == MIN_FILL
    assert predictor.model.shapes == [(4, 100), (4, 90), (6, 80)]


@pytest.mark.parametrize("is_causal", [True, False])
def test_a_probe_runs_batches_of_the_plan_that_the_evaluation_runs(is_causal: bool) -> None:
    lengths = np.clip(np.random.default_rng(1).lognormal(2.5, 0.8, 2000), 1, 64).astype(np.int64)
    chunk = make_chunk(lengths)
    with simulated_cuda():
        predictor = make_predictor(CUDA, is_causal=is_causal)
        budget = fastest_budget(predictor, chunk)
        tried = set(predictor.model.shapes)
        predictor.model.shapes.clear()
        planned = set()
        for limit in (4096, 8192, 16384, 32768):
            predictor.batching = Batching(kind="token_budget", limit=limit)
            predictor.predict(chunk)
            planned |= set(predictor.model.shapes)
    assert budget in (4096, 8192, 16384, 32768)
    assert tried <= planned
    assert predictor.min_fill == (FULL if is_causal else MIN_FILL)
