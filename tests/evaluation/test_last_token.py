"""Leaving out what no answer depends on changes no answer, and is not done to a model that is built otherwise."""

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
    Gemma2Config,
    Gemma2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForSequenceClassification,
    Qwen2ForSequenceClassification,
    SmolLM3Config,
    SmolLM3ForSequenceClassification,
)

from tests import support
from utils import costs
from utils.evaluation.batching import Batching
from utils.evaluation.last_token import LastTokenClassifier, last_token_classifier
from utils.evaluation.predictor import Predictor, TokenChunk, said_unmasked
from utils.model.encoding import InputFormat

CPU = torch.device("cpu")
FORMAT = InputFormat(
    names=("input_ids", "attention_mask"), pad_values={"input_ids": 0, "attention_mask": 0}, vocab_size=320
)
SIZES = dict(
    vocab_size=320, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96,
    head_dim=16, pad_token_id=0, num_labels=5, initializer_range=0.3,
)


def qwen2(**more: Any) -> Any:
    config = support.build_model_config(**{"initializer_range": 0.3, **more})
    return Qwen2ForSequenceClassification(config).eval()


def llama(**more: Any) -> Any:
    return LlamaForSequenceClassification(LlamaConfig(**SIZES, **more)).eval()


def mistral(**more: Any) -> Any:
    return MistralForSequenceClassification(MistralConfig(**SIZES, **{"sliding_window": None, **more})).eval()


def rows_of(*rows: list[int]) -> TokenChunk:
    ids = tuple(np.array(row, dtype=np.int64) for row in rows)
    return TokenChunk(ids=ids, num_tokens=np.array([len(row) for row in rows]), num_truncated=0)


def drawn(count: int, longest: int) -> list[list[int]]:
    random = np.random.default_rng(0)
    return [random.integers(1, 320, random.integers(1, longest + 1)).tolist() for _ in range(count)]


@pytest.mark.parametrize("make", [qwen2, lambda: qwen2(num_hidden_layers=1), llama, mistral])
def test_the_answers_are_the_models(make: Any) -> None:
    model = make()
    names = set(model.state_dict())
    ending_in_padding, padding_alone, one = [5, 6, 7, 0, 0], [0, 0, 0], [9]
    chunk = rows_of(*drawn(60, 40), ending_in_padding, padding_alone, one)
    for limit in (1, 100, 10**6):
        plain, short = (
            Predictor(model, FORMAT, CPU, Batching(kind="token_budget", limit=limit), last_token_only=only)
            for only in (False, True)
        )
        assert plain.last_token is None and short.last_token is not None
        expected, got = plain.predict(chunk), short.predict(chunk)
        assert (got.predicted_ids == expected.predicted_ids).all()
        np.testing.assert_allclose(got.probabilities, expected.probabilities, rtol=1e-4)
    assert set(model.state_dict()) == names, "the model itself stays as it is"


def test_the_last_layer_costs_keys_and_values_alone() -> None:
    model = qwen2(num_hidden_layers=2)
    ids, ends = torch.randint(1, 300, (4, 32)), torch.full((4,), 31)
    unmasked = said_unmasked(model, CPU)
    whole, short = (
        sum(part.flops for part in costs.count_op_costs(run) if costs.category(part.name) in ("matrix product", "attention"))
        for run in (lambda: model(input_ids=ids, attention_mask=unmasked), lambda: LastTokenClassifier(model)(ids, unmasked, ends))
    )
    last = model.model.layers[-1]
    every_token = sum(part.weight.numel() for part in (last.self_attn.q_proj, last.self_attn.o_proj))
    every_token += sum(part.weight.numel() for part in (last.mlp.gate_proj, last.mlp.up_proj, last.mlp.down_proj))
    width = last.self_attn.q_proj.out_features
    attention = 4 * 4 * width * (32 * 33 // 2 - 32)  # 4 rows; the triangle, against one line
    assert whole - short == 2 * 4 * 31 * (every_token + model.score.weight.numel()) + attention


def test_a_model_built_otherwise_runs_as_it_is() -> None:
    def short(model: Any) -> Any:
        return last_token_classifier(model.eval(), None, CPU)

    assert short(llama()) is not None
    assert short(mistral(sliding_window=4)) is None, "its last layer does not see all tokens"
    assert short(llama(attn_implementation="eager")) is None
    assert short(Gemma2ForSequenceClassification(Gemma2Config(**SIZES))) is None, "its layers have other parts"
    sizes = {**SIZES, "num_hidden_layers": 4, "dtype": torch.bfloat16}
    assert short(SmolLM3ForSequenceClassification(SmolLM3Config(**sizes))) is None, "its fourth layer rotates nothing"
    bert = BertConfig(vocab_size=320, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    assert short(BertForSequenceClassification(bert)) is None


def test_a_trial_tells_what_the_name_does_not() -> None:
    model = llama()
    layer = model.model.layers[-1]
    forward = layer.forward
    layer.forward = lambda hidden, **given: hidden + 0.5 * (forward(hidden, **given) - hidden)  # a scaled residual
    assert last_token_classifier(model, None, CPU) is None
    layer.forward = forward
    assert last_token_classifier(model, None, CPU) is not None


@pytest.mark.skipif(torch.__version__ < "2.7", reason="torch 2.6 cannot compile this model, and the step says so")
def test_compiled_equal_layers_share_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one piece of code PyTorch makes eight programs at most: with one a layer the last ones would run as they are."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # it captures, and needs no C++ compiler
    chunk = rows_of(*drawn(60, 12))
    predictor = Predictor(qwen2(num_hidden_layers=24), FORMAT, CPU, Batching(kind="token_budget", limit=64), last_token_only=True)
    expected = predictor.predict(chunk)
    torch._dynamo.reset()
    counters.clear()
    predictor.compile()
    predictor.warm_up(chunk)
    made = counters["stats"]["unique_graphs"]
    assert 0 < made < 24
    got = predictor.predict(chunk)
    assert counters["stats"]["unique_graphs"] == made, "the warm-up saw all kinds"
    assert (got.predicted_ids == expected.predicted_ids).all()
    np.testing.assert_allclose(got.probabilities, expected.probabilities, rtol=1e-4)
