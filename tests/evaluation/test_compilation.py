"""Compiled models give the model's own results, and equal layers share one program."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    Qwen2ForSequenceClassification,
)

from tests import support
from utils.evaluation.attention import evaluation_attention
from utils.evaluation.batching import Batching
from utils.evaluation.compilation import compile_model, has_equal_layers
from utils.evaluation.predictor import Predictor
from utils.evaluation.tokens import TokenChunk
from utils.model.encoding import InputFormat

CPU = torch.device("cpu")
FORMAT = InputFormat(
    names=("input_ids", "attention_mask"),
    pad_values={"input_ids": 0, "attention_mask": 0},
    vocab_size=320,
)
pytestmark = pytest.mark.skipif(
    torch.__version__ < "2.7", reason="torch 2.6 cannot compile these models, and the step says so"
)


@pytest.fixture(autouse=True)
def backend_without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs are really captured; the backend that runs them needs no C++ compiler."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    counters.clear()


def qwen2(num_layers: int) -> Any:
    config = support.build_model_config(
        num_hidden_layers=num_layers, initializer_range=0.3, use_cache=False
    )
    return Qwen2ForSequenceClassification(config).eval()


def llama() -> Any:
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        pad_token_id=0,
        num_labels=5,
        initializer_range=0.3,
        use_cache=False,
    )
    return LlamaForSequenceClassification(config).eval()


def bert() -> Any:
    config = BertConfig(
        vocab_size=320,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        pad_token_id=0,
    )
    return BertForSequenceClassification(config).eval()


def random_chunk(num_rows: int = 60, max_tokens: int = 12) -> TokenChunk:
    random = np.random.default_rng(0)
    lengths = random.integers(1, max_tokens + 1, num_rows)
    ids = tuple(random.integers(1, 320, length) for length in lengths)
    return TokenChunk(ids=ids, num_tokens=lengths, num_truncated=0)


@pytest.mark.parametrize("make", [lambda: qwen2(3), llama, bert], ids=["qwen2", "llama", "bert"])
def test_a_compiled_model_gives_the_models_own_predictions(make: Any) -> None:
    model = make()
    names = set(model.state_dict())
    chunk = random_chunk()
    batching = Batching(kind="token_budget", limit=64)
    expected = Predictor(model, FORMAT, CPU, batching).predict(chunk)

    predictor = Predictor(model, FORMAT, CPU, batching)
    predictor.compile()
    predictor.warm_up(chunk)
    predictions = predictor.predict(chunk)

    assert counters["stats"]["unique_graphs"] > 0, "something was compiled"
    assert (predictions.predicted_ids == expected.predicted_ids).all()
    np.testing.assert_allclose(predictions.probabilities, expected.probabilities, rtol=1e-4)
    assert set(model.state_dict()) == names, "the model itself stays as it is"


def test_equal_layers_share_a_program() -> None:
    """PyTorch makes at most eight programs of one function; further layers would run uncompiled."""
    predictor = Predictor(qwen2(24), FORMAT, CPU, Batching(kind="token_budget", limit=64))
    chunk = random_chunk()
    predictor.compile()
    predictor.warm_up(chunk)
    num_programs = counters["stats"]["unique_graphs"]
    assert 0 < num_programs <= 8
    predictor.predict(chunk)
    assert counters["stats"]["unique_graphs"] == num_programs, "the warm-up saw all kinds of batch"


def test_only_a_list_of_layers_of_one_class_is_compiled_layer_by_layer() -> None:
    model = qwen2(3)
    assert has_equal_layers(model)
    assert has_equal_layers(llama())
    assert not has_equal_layers(bert()), "its backbone keeps the layers in an encoder"
    assert not has_equal_layers(lambda **_: None), "a function has no layers"
    model.model.layers[1] = torch.nn.Identity()
    assert not has_equal_layers(model)


def test_the_compiled_model_shares_the_weights_of_the_model() -> None:
    model = qwen2(2)
    compiled = compile_model(model)
    assert compiled is not model
    originals = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for parameter in compiled.parameters()} == originals


def test_the_evaluations_attention_on_cuda_does_not_make_programs_again() -> None:
    """In float32 it replaces PyTorch's function for each chunk, which a compiler may notice."""
    model = qwen2(2)
    compiled = compile_model(model)
    programs = []
    with torch.inference_mode():
        for num_rows, num_tokens in ((3, 7), (4, 9), (5, 11), (6, 8)):
            with evaluation_attention(model, torch.device("cuda", 0)):
                ids = torch.ones(num_rows, num_tokens, dtype=torch.int64)
                compiled(input_ids=ids, attention_mask={"full_attention": None})
            programs.append(counters["stats"]["unique_graphs"])
    assert programs[0] > 0
    assert programs == programs[:1] * 4
