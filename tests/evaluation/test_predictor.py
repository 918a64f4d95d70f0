"""Predictions equal a plain loop's, whatever the texts, the batches and the memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    Qwen2ForSequenceClassification,
)

from benchmarks import evaluation_scale
from tests import support
from utils.core.errors import ModelError
from utils.evaluation.batching import Batching
from utils.evaluation.budget_search import fastest_budget
from utils.evaluation.masking import is_causal
from utils.evaluation.predictor import Predictor
from utils.evaluation.tokens import tokenize
from utils.model.encoding import InputFormat

CPU = torch.device("cpu")
FORMAT = InputFormat(
    names=("input_ids", "attention_mask"),
    pad_values={"input_ids": 0, "attention_mask": 0},
    vocab_size=320,
)
ODD = (
    "<pad>",
    "ends in padding <pad><pad>",
    "<pad> begins",
    "a\x00b",
    " \n\t ",
    "é漢字🎲",
    "long " * 5000,
    "<eos>",
)
TEXTS = (*support.TEXTS, *ODD)
MAX_LENGTH = 64
BATCHINGS = (
    *(Batching(kind="token_budget", limit=limit) for limit in (256, 1, 10**6)),
    Batching(kind="dataset_order", limit=7),
)


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> tuple[Any, Any]:
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_model, dtype=torch.float32
    ).eval()
    model.config.use_cache = False
    return model, AutoTokenizer.from_pretrained(tiny_model)


def plain_loop(model: Any, tokenizer: Any, texts: tuple[str, ...], size: int) -> torch.Tensor:
    """Logits the way that every tutorial gets them: fixed batches in file order, padded, masked."""
    logits = []
    with torch.inference_mode():
        for start in range(0, len(texts), size):
            batch = list(texts[start : start + size])
            encoded = tokenizer(
                batch, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
            )
            logits.append(
                model(
                    input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]
                ).logits
            )
    return torch.cat(logits)


@pytest.mark.parametrize("batching", BATCHINGS, ids=str)
@pytest.mark.parametrize("size", [1, 16])
def test_predictions_equal_the_plain_loop(
    loaded: tuple[Any, Any], batching: Batching, size: int
) -> None:
    model, tokenizer = loaded
    expected = plain_loop(model, tokenizer, TEXTS, size).softmax(-1).max(-1)
    got = Predictor(model, FORMAT, CPU, batching).predict(
        tokenize(tokenizer, TEXTS, MAX_LENGTH, FORMAT)
    )
    assert got.predicted_ids.tolist() == expected.indices.tolist()
    assert got.probabilities == pytest.approx(expected.values.numpy(), abs=1e-5)


def test_the_largest_logit_decides_where_all_sigmoids_are_one(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    # Above 17 the sigmoid is 1 in float32.
    shift = model.score.register_forward_hook(lambda module, inputs, logits: logits + 40)
    try:
        expected = plain_loop(model, tokenizer, TEXTS, 1)
        predictor = Predictor(model, FORMAT, CPU, BATCHINGS[0], multi_label=True)
        got = predictor.predict(tokenize(tokenizer, TEXTS, MAX_LENGTH, FORMAT))
    finally:
        shift.remove()
    assert len(set(expected.argmax(-1).tolist())) > 1
    assert got.predicted_ids.tolist() == expected.argmax(-1).tolist()
    assert got.probabilities == pytest.approx(1.0)


def test_an_empty_text_is_predicted_as_in_a_padded_batch(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    texts = ("", "books number 1", "")
    expected = plain_loop(model, tokenizer, texts, 3).softmax(-1).max(-1)
    for batching in BATCHINGS:
        chunk = tokenize(tokenizer, texts, MAX_LENGTH, FORMAT)
        got = Predictor(model, FORMAT, CPU, batching).predict(chunk)
        assert got.predicted_ids.tolist() == expected.indices.tolist()
        assert got.probabilities == pytest.approx(expected.values.numpy(), abs=1e-5)
    assert chunk.num_tokens[[0, 2]].tolist() == [0, 0]


def test_tokens_and_truncated_texts_are_counted(loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    chunk = tokenize(tokenizer, ("a", "long " * 5000, "lone \ud800 surrogate"), MAX_LENGTH, FORMAT)
    assert chunk.num_tokens[1] == MAX_LENGTH
    assert chunk.num_truncated == 1
    assert tokenize(evaluation_scale.Tokenizer(), ("a",), MAX_LENGTH, FORMAT).num_truncated == 0
    assert chunk.ids[0].tolist() == tokenizer("a")["input_ids"]


def test_a_mask_is_given_only_where_there_is_padding(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    masks = []

    def spy(**inputs: Any) -> Any:
        masks.append(inputs["attention_mask"])
        return model(**inputs)

    predictor = Predictor(spy, FORMAT, CPU, Batching(kind="dataset_order", limit=2))
    predictor.predict(tokenize(tokenizer, ("aaa", "aaa", "a", "aaa b c d"), MAX_LENGTH, FORMAT))
    assert masks[0] is None
    assert masks[1].tolist()[0].count(0) > 0


def test_a_causal_model_needs_no_mask(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    bert = BertForSequenceClassification(
        BertConfig(
            vocab_size=320,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            pad_token_id=0,
        )
    ).eval()
    assert (is_causal(model), is_causal(bert), is_causal(object())) == (True, False, False)
    expected = plain_loop(bert, tokenizer, TEXTS, 16).softmax(-1).max(-1)
    for classifier, expected_best in (
        (bert, expected),
        (model, plain_loop(model, tokenizer, TEXTS, 16).softmax(-1).max(-1)),
    ):
        chunk = tokenize(tokenizer, TEXTS, MAX_LENGTH, FORMAT)
        got = Predictor(classifier, FORMAT, CPU, Batching(kind="dataset_order", limit=7)).predict(
            chunk
        )
        assert got.probabilities == pytest.approx(expected_best.values.numpy(), abs=1e-5)


def test_a_decoder_made_bidirectional_keeps_its_mask(loaded: tuple[Any, Any]) -> None:
    torch.manual_seed(0)
    model = Qwen2ForSequenceClassification(
        support.build_model_config(is_causal=False, initializer_range=0.5)
    ).eval()
    chunk = tokenize(loaded[1], TEXTS, MAX_LENGTH, FORMAT)
    assert not is_causal(model)
    padded, alone = (
        Predictor(model, FORMAT, CPU, Batching(kind="dataset_order", limit=limit)).predict(chunk)
        for limit in (7, 1)
    )
    assert padded.predicted_ids.tolist() == alone.predicted_ids.tolist()
    assert padded.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
    model.config.is_causal, model.config.use_bidirectional_attention = True, True
    assert not is_causal(model)


def test_the_bytes_do_not_depend_on_the_number_of_cores(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    chunk = tokenize(tokenizer, TEXTS, MAX_LENGTH, FORMAT)
    threads_before = torch.get_num_threads()
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            got = Predictor(model, FORMAT, CPU, Batching(kind="token_budget", limit=300)).predict(
                chunk
            )
            assert torch.get_num_threads() == threads, "it is put back"
        finally:
            torch.set_num_threads(threads_before)
        results.append(got.probabilities.tobytes() + got.predicted_ids.tobytes())
    assert results[0] == results[1]


class Waits(TorchDispatchMode):
    """Counts the operators that read a value off the device, which on CUDA waits for all that was
    launched.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket._qualified_op_name in (
            "aten::_local_scalar_dense",
            "aten::item",
            "aten::is_nonzero",
            "aten::nonzero",
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("limit", [1, 7], ids=["no padding", "padding"])
def test_no_batch_waits_for_the_device(loaded: tuple[Any, Any], limit: int) -> None:
    model, tokenizer = loaded
    predictor = Predictor(model, FORMAT, CPU, Batching(kind="dataset_order", limit=7))
    chunk = tokenize(tokenizer, TEXTS, MAX_LENGTH, FORMAT)
    with Waits() as plain, torch.inference_mode():
        model(input_ids=torch.ones((1, 8), dtype=torch.long), attention_mask=None)
    assert plain.count > 0, "transformers looks for packed texts, and the count sees it"
    with Waits() as ours:
        assert predictor._predict_batch(chunk, np.arange(limit)) is not None
    assert ours.count == 0


def test_only_a_model_that_accepts_it_gets_the_argument_for_no_mask(
    loaded: tuple[Any, Any],
) -> None:
    def no_mask_of(model: Any) -> Any:
        return Predictor(model.eval(), FORMAT, CPU, Batching(kind="dataset_order", limit=7)).no_mask

    sizes = dict(
        vocab_size=320,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        pad_token_id=0,
    )
    assert no_mask_of(loaded[0]) == {"full_attention": None}
    assert no_mask_of(LlamaForSequenceClassification(LlamaConfig(**sizes))) is None
    assert (
        no_mask_of(
            Qwen2ForSequenceClassification(support.build_model_config(attn_implementation="eager"))
        )
        is None
    )
    sliding = support.build_model_config(
        use_sliding_window=True, sliding_window=4, max_window_layers=0
    )
    assert no_mask_of(Qwen2ForSequenceClassification(sliding)) is None
    broken = Qwen2ForSequenceClassification(support.build_model_config())
    broken.model.forward = lambda *_, attention_mask=None, **__: SimpleNamespace(
        last_hidden_state=torch.full(
            (1, 8, broken.config.hidden_size), float(attention_mask is None)
        ),
        past_key_values=None,
        hidden_states=None,
        attentions=None,
    )
    assert no_mask_of(broken) is None, "it gives other logits"


class SmallMemory:
    """A model that runs out of memory above so many computed tokens."""

    def __init__(self, model: Any, tokens: int, error: Exception | None = None) -> None:
        self.model, self.tokens, self.failures = model, tokens, 0
        self.error = error or torch.OutOfMemoryError("CUDA out of memory.")

    def __call__(self, *, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> Any:
        if input_ids.numel() > self.tokens:
            self.failures += 1
            raise self.error
        return self.model(input_ids=input_ids, attention_mask=attention_mask)


@pytest.mark.parametrize(
    "batching",
    [Batching(kind="token_budget", limit=10**6), Batching(kind="dataset_order", limit=50)],
    ids=str,
)
def test_running_out_of_memory_loses_no_row(loaded: tuple[Any, Any], batching: Batching) -> None:
    model, tokenizer = loaded
    chunk = tokenize(tokenizer, TEXTS, MAX_LENGTH, FORMAT)
    expected = Predictor(model, FORMAT, CPU, batching).predict(chunk)
    small = SmallMemory(model, 400)
    predictor = Predictor(small, FORMAT, CPU, batching)
    got = predictor.predict(chunk)
    assert got.predicted_ids.tolist() == expected.predicted_ids.tolist()
    assert small.failures > 0
    assert predictor.batching.limit < batching.limit
    before = small.failures
    predictor.predict(chunk)
    assert small.failures == before or batching.kind == "dataset_order", "the smaller limit stays"


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: out of memory",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
    ],
)
def test_every_way_to_run_out_of_memory_is_one(loaded: tuple[Any, Any], message: str) -> None:
    model, tokenizer = loaded
    small = SmallMemory(model, 400, RuntimeError(message))
    chunk = tokenize(tokenizer, TEXTS, MAX_LENGTH, FORMAT)
    got = Predictor(small, FORMAT, CPU, Batching(kind="token_budget", limit=10**6)).predict(chunk)
    assert small.failures > 0
    assert len(got.predicted_ids) == len(TEXTS)


def test_a_text_too_long_for_the_memory_is_one_clear_message(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    predictor = Predictor(
        SmallMemory(model, 10), FORMAT, CPU, Batching(kind="token_budget", limit=100)
    )
    with pytest.raises(ModelError, match="A single text of 64 tokens") as caught:
        predictor.predict(tokenize(tokenizer, ("a", "long " * 500), MAX_LENGTH, FORMAT))
    assert "profiling.max_length" in str(caught.value)


def test_other_errors_are_not_taken_for_memory(loaded: tuple[Any, Any]) -> None:
    def broken(**_: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered")

    predictor = Predictor(broken, FORMAT, CPU, Batching(kind="token_budget", limit=100))
    with pytest.raises(RuntimeError, match="device-side assert"):
        predictor.predict(tokenize(loaded[1], ("a",), MAX_LENGTH, FORMAT))


def test_the_budget_is_the_one_that_ran_fastest(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in clock: 1 s a batch up to 4,096 tokens, so that larger is faster, and ten times as
    long beyond.
    """
    _, tokenizer = loaded
    now = [0.0]

    def model(*, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> Any:
        now[0] += 0.1 if input_ids.numel() <= 4096 else 1.0
        return SimpleNamespace(logits=torch.zeros(len(input_ids), 3))

    monkeypatch.setattr(
        "utils.evaluation.budget_search.time", SimpleNamespace(perf_counter=lambda: now[0])
    )
    chunk = tokenize(
        tokenizer, tuple(f"text {i}" * (i % 20) for i in range(3000)), MAX_LENGTH, FORMAT
    )
    predictor = Predictor(model, FORMAT, CPU, Batching(kind="token_budget", limit=1))
    assert fastest_budget(predictor, chunk) == 4096
    assert fastest_budget(predictor, tokenize(tokenizer, ("one",), MAX_LENGTH, FORMAT)) == 1024
    out_of_memory = Predictor(
        SmallMemory(model, 2048), FORMAT, CPU, Batching(kind="token_budget", limit=1)
    )
    assert fastest_budget(out_of_memory, chunk) == 2048
    assert np.all(predictor.predict(chunk).predicted_ids == 0)
