"""The evaluation's attention on a simulated CUDA device: which kernels it asks PyTorch for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
import torch
from transformers import Qwen2ForSequenceClassification

from tests import support
from tests.simulated_cuda.simulate import simulated_cuda
from utils.evaluation.attention import attention_kernels, evaluation_attention
from utils.evaluation.batching import Batching
from utils.evaluation.budget_search import fastest_budget
from utils.evaluation.predictions import Predictions
from utils.evaluation.predictor import Predictor
from utils.evaluation.tokens import TokenChunk, tokenize
from utils.model.encoding import InputFormat

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
FORMAT = InputFormat(
    names=("input_ids", "attention_mask"),
    pad_values={"input_ids": 0, "attention_mask": 0},
    vocab_size=320,
)


@dataclass(frozen=True, kw_only=True)
class AttentionCall:
    """What one call of PyTorch's attention was given, and what it could choose from."""

    is_grouped: bool
    has_mask: bool
    query_heads: int
    key_heads: int
    allows_cudnn: bool


@pytest.fixture
def calls() -> Iterator[list[AttentionCall]]:
    """Every call that reaches PyTorch's own attention, in order."""
    stock = torch.nn.functional.scaled_dot_product_attention
    recorded: list[AttentionCall] = []

    def record(query: Any, key: Any, value: Any, **options: Any) -> Any:
        assert key.shape == value.shape
        call = AttentionCall(
            is_grouped=options.get("enable_gqa", False),
            has_mask=options.get("attn_mask") is not None,
            query_heads=query.shape[1],
            key_heads=key.shape[1],
            allows_cudnn=torch.backends.cuda.cudnn_sdp_enabled(),
        )
        recorded.append(call)
        return stock(query, key, value, **options)

    with mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", record):
        yield recorded


def make_model(dtype: torch.dtype = torch.float32) -> Any:
    """A decoder with four query heads over two key-value heads."""
    torch.manual_seed(0)
    config = support.build_model_config(attn_implementation="sdpa", initializer_range=0.5)
    config.use_cache = False
    return Qwen2ForSequenceClassification(config).eval().to(dtype)


def make_chunk() -> TokenChunk:
    return tokenize(support.build_tokenizer(), support.TEXTS, 64, FORMAT)


def predict(model: Any, device: torch.device) -> Predictions:
    predictor = Predictor(model, FORMAT, device, Batching(kind="token_budget", limit=256))
    return predictor.predict(make_chunk())


def test_float32_on_cuda_repeats_heads_and_results_are_those_of_the_stock_path(
    calls: list[AttentionCall],
) -> None:
    expected = predict(make_model(), CPU)
    assert {call.is_grouped for call in calls} == {True}, "transformers asks for grouped heads"
    calls.clear()
    with simulated_cuda():
        got = predict(make_model().to(CUDA), CUDA)
    assert {(call.is_grouped, call.has_mask, call.key_heads) for call in calls} == {
        (False, False, 4)
    }
    assert got.predicted_ids.tolist() == expected.predicted_ids.tolist()
    assert got.probabilities == pytest.approx(expected.probabilities, abs=1e-5)


def test_bfloat16_keeps_grouped_heads_which_flash_takes(calls: list[AttentionCall]) -> None:
    with simulated_cuda():
        predict(make_model(torch.bfloat16).to(CUDA), CUDA)
    assert {(call.is_grouped, call.key_heads) for call in calls} == {(True, 2)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_forward_on_cuda_may_use_cudnn(calls: list[AttentionCall], dtype: torch.dtype) -> None:
    with simulated_cuda():
        model = make_model(dtype).to(CUDA)
        predictor = Predictor(model, FORMAT, CUDA, Batching(kind="token_budget", limit=1))
        fastest_budget(predictor, make_chunk())
        predictor.run_first_batch(make_chunk())
        predictor.predict(make_chunk())
        assert calls
        assert not any(call.allows_cudnn for call in calls)
        calls.clear()
        model(input_ids=torch.arange(1, 9, device=CUDA)[None])
    assert all(call.allows_cudnn and call.is_grouped for call in calls), "stock again"


def test_a_cpu_keeps_the_stock_attention(calls: list[AttentionCall]) -> None:
    predict(make_model(), CPU)
    assert all(call.allows_cudnn and call.is_grouped for call in calls)


def test_the_process_is_as_before_after_an_error() -> None:
    stock = torch.nn.functional.scaled_dot_product_attention
    with pytest.raises(KeyError), evaluation_attention(make_model(), CUDA):
        raise KeyError
    assert torch.nn.functional.scaled_dot_product_attention is stock
    assert torch.backends.cuda.cudnn_sdp_enabled()


def test_the_record_names_the_kernels_of_both_roads() -> None:
    kernels = attention_kernels(make_model())
    assert kernels.batch_size_sweep == ("flash", "memory_efficient", "cudnn", "math")
    assert kernels.evaluation == ("flash", "memory_efficient", "math")
    assert kernels.repeats_key_value_heads
    assert not attention_kernels(make_model(torch.bfloat16)).repeats_key_value_heads


def test_what_the_process_forbids_stays_forbidden() -> None:
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert attention_kernels(make_model()).evaluation == ("math",)
        with evaluation_attention(make_model(), CUDA):
            assert not torch.backends.cuda.flash_sdp_enabled()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.CUDNN_ATTENTION):
        assert attention_kernels(make_model()).evaluation == ("cudnn",), "there is no other"


def test_repeated_heads_are_the_same_attention() -> None:
    """Query head ``h`` of 6 reads key-value head ``h // 3`` of 2, as with ``enable_gqa``."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 6, 5, 8, generator=generator)
    key, value = torch.randn(2, 2, 2, 5, 8, generator=generator)
    attention = torch.nn.functional.scaled_dot_product_attention
    expected = attention(query, key, value, None, 0.0, True, enable_gqa=True)
    with evaluation_attention(make_model(), CUDA):
        functional = torch.nn.functional
        got = functional.scaled_dot_product_attention(
            query, key, value, None, 0.0, True, enable_gqa=True
        )
        ungrouped = functional.scaled_dot_product_attention(query, query, query, is_causal=True)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ungrouped, attention(query, query, query, is_causal=True))
