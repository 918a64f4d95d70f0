"""Sweep and evaluation give each text what transformers gives it alone, whatever the model is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import builders
from utils.config_loader import Config, load_config
from utils.core.errors import ModelError
from utils.evaluation.batching import Batching
from utils.evaluation.predictor import Predictor
from utils.evaluation.tokens import tokenize
from utils.model_utils import LoadedModel, check_on_texts, classify, load_model

BATCHINGS = (
    Batching(kind="token_budget", limit=256),
    Batching(kind="token_budget", limit=10**6),
    Batching(kind="dataset_order", limit=7),
)
ENDS = ("ends in the end token </s>", "</s>", "<s>", "a <s> b </s> c", "<s> </s> </s>")
"""Texts that contain a decoder's special tokens.

A padding token of the vocabulary would be read as padding there.
"""

Builder = Callable[[Path], Path]
MODELS: dict[str, Builder] = {
    "bert": builders.build_bert,
    "roberta": builders.build_roberta,
    "xlnet, padded on the left, with token types": builders.build_xlnet,
    "t5": builders.build_t5,
    "bart": builders.build_bart,
    "gpt2 without a padding token": builders.build_gpt2,
    "gemma3, whose padding token stands in text_config": builders.build_gemma3,
    "llama that ends texts in its end token": partial(builders.build_llama, template="<s> $A </s>"),
    "llama that ends texts in a word": partial(builders.build_llama, template="<s> $A"),
    "llama padded with its end token": partial(
        builders.build_llama, template="<s> $A </s>", pad_token="</s>"
    ),
    "llama whose padding token is the end token": partial(
        builders.build_llama, template="<s> $A </s>", pad_token="</s>", pad_token_id=0
    ),
    "llama whose padding token is not the tokenizer's": partial(
        builders.build_llama, template="<s> $A </s>", pad_token="</s>", pad_token_id=1
    ),
    "llama with padding token -1": lambda folder: builders.edit_config(
        builders.build_llama(folder, template="<s> $A"),
        lambda config: config.update(pad_token_id=-1),
    ),
}


def config_of(folder: Path, *more: str) -> Config:
    settings = [f"model.name={folder}", "model.device=cpu", "profiling.max_length=64"]
    return load_config(overrides=[*settings, *more])


def evaluate(loaded: LoadedModel, texts: list[str], batching: Batching) -> Any:
    predictor = Predictor(loaded.model, loaded.inputs, loaded.device, batching)
    return predictor.predict(tokenize(loaded.tokenizer, texts, builders.MAX_LENGTH, loaded.inputs))


@pytest.fixture(scope="module", params=list(MODELS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODELS[request.param](tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    return load_model(config_of(folder))


def test_every_label_occurs_so_that_a_wrong_token_shows(folder: Path) -> None:
    labels = builders.judge(folder, builders.TEXTS).argmax(-1)
    assert set(labels.tolist()) == {0, 1, 2}


def test_sweep(folder: Path, loaded: LoadedModel) -> None:
    expected = builders.judge(folder, builders.TEXTS)
    for size in (1, 4, 32):
        rows = []
        for start in range(0, len(builders.TEXTS), size):
            rows.append(classify(loaded, builders.TEXTS[start : start + size], builders.MAX_LENGTH))
        torch.testing.assert_close(torch.cat(rows), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("batching", BATCHINGS, ids=str)
def test_evaluation(folder: Path, loaded: LoadedModel, batching: Batching) -> None:
    expected = builders.judge(folder, builders.TEXTS).softmax(-1).max(-1)
    got = evaluate(loaded, builders.TEXTS, batching)
    assert got.predicted_ids.tolist() == expected.indices.tolist()
    assert got.probabilities == pytest.approx(expected.values.numpy(), abs=1e-3)


def test_evaluation_of_texts_that_hold_special_tokens(folder: Path, loaded: LoadedModel) -> None:
    # Alone, T5 and BART cannot classify a text that is truncated before its end token, and others
    # no text without any token.
    texts = [*builders.TEXTS[:8], *ENDS]
    expected = builders.judge(folder, texts).softmax(-1).max(-1)
    got = evaluate(loaded, texts, Batching(kind="token_budget", limit=10**6))
    assert got.predicted_ids.tolist() == expected.indices.tolist()
    assert got.probabilities == pytest.approx(expected.values.numpy(), abs=1e-3)


def test_data_set_texts_pass_the_check(loaded: LoadedModel) -> None:
    assert check_on_texts(loaded, builders.TEXTS, builders.MAX_LENGTH) == ()


@pytest.fixture(scope="module")
def fnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builders.build_fnet(tmp_path_factory.mktemp("fnet"))


class TestModelThatSeesPadding:
    """FNet takes no mask and mixes all tokens of a row."""

    def test_is_refused_where_batches_would_be_padded(self, fnet: Path) -> None:
        with pytest.raises(ModelError, match="Padding changes this model's results") as caught:
            load_model(config_of(fnet))
        assert "--set profiling.batch_sizes=[1]" in str(caught.value)

    @pytest.mark.parametrize("batching", BATCHINGS, ids=str)
    def test_is_evaluated_in_batches_of_one_length(self, fnet: Path, batching: Batching) -> None:
        loaded = load_model(config_of(fnet, "profiling.batch_sizes=[1]"))
        assert loaded.info.padding_side is None
        expected = builders.judge(fnet, builders.TEXTS).argmax(-1)
        got = evaluate(loaded, builders.TEXTS, batching)
        assert got.predicted_ids.tolist() == expected.tolist()


def test_multi_label_probabilities_are_sigmoids(tmp_path: Path) -> None:
    folder = builders.build_bert(tmp_path, problem_type="multi_label_classification")
    loaded = load_model(config_of(folder))
    assert loaded.info.problem_type == "multi_label"
    predictor = Predictor(
        loaded.model, loaded.inputs, loaded.device, BATCHINGS[0], multi_label=True
    )
    chunk = tokenize(loaded.tokenizer, builders.TEXTS, builders.MAX_LENGTH, loaded.inputs)
    got = predictor.predict(chunk)
    expected = builders.judge(folder, builders.TEXTS).sigmoid().max(-1)
    assert got.predicted_ids.tolist() == expected.indices.tolist()
    assert got.probabilities == pytest.approx(expected.values.numpy(), abs=1e-4)


def test_a_batch_that_changes_results_is_refused(tmp_path: Path) -> None:
    """The check on the data set's texts finds a model that counts its rows; loading does not."""
    loaded = load_model(config_of(builders.build_bert(tmp_path)))

    def add_rows(module: Any, arguments: Any, output: Any) -> Any:
        output.logits = output.logits + len(output.logits) * torch.tensor([1.0, -1.0, 0.0])
        return output

    loaded.model.register_forward_hook(add_rows)
    with pytest.raises(ModelError, match="other results in a batch than alone"):
        check_on_texts(loaded, builders.TEXTS, builders.MAX_LENGTH)


def test_rows_are_grouped_by_their_number_of_end_tokens(tmp_path: Path) -> None:
    loaded = load_model(config_of(builders.build_t5(tmp_path)))
    chunk = tokenize(loaded.tokenizer, ["one", "two </s> tokens", "three"], 64, loaded.inputs)
    assert chunk.groups is not None
    assert np.array_equal(chunk.groups, [1, 2, 1])
