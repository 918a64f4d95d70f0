"""The evidence of one batch size, on the tiny model."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import support
from utils.diagnosis import measurement, roofline
from utils.diagnosis.bottleneck import classify_bottleneck
from utils.diagnosis.measurement import measure_batch_size
from utils.diagnosis.workload import MAX_BATCHES, make_batches
from utils.model import costs
from utils.model_utils import LoadedModel, load_model
from utils.schema.ceilings import Ceilings


@pytest.fixture(scope="module")
def loaded(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(support.small_config(tmp_path_factory.mktemp("load"), tiny_model))


@pytest.fixture(scope="module")
def ceilings() -> Ceilings:
    return roofline.measure_ceilings(torch.device("cpu"), torch.float32)


def test_batches() -> None:
    assert make_batches(list("abcde"), 2) == (["a", "b"], ["c", "d"])
    assert len(make_batches(list("a" * 50), 1)) == MAX_BATCHES
    assert make_batches(list("abc"), 8) == (["a", "b", "c"],)


def test_a_sample_smaller_than_a_batch_is_warned_of(
    loaded: LoadedModel, ceilings: Ceilings
) -> None:
    with torch.inference_mode():
        measured = measure_batch_size(loaded, support.TEXTS[:2], 8, 64, ceilings)
    assert "profiled on 2 texts" in measured.warnings[0]


def test_a_tokenizer_that_sleeps(loaded: LoadedModel, ceilings: Ceilings) -> None:
    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.05)  # the workload itself
        return loaded.tokenizer(*args, **kwargs)

    sleepy = replace(loaded, tokenizer=slow)
    with torch.inference_mode():
        evidence = measure_batch_size(sleepy, support.TEXTS[:2], 2, 64, ceilings).evidence
    assert evidence.tokenize_ms >= 50
    assert classify_bottleneck(evidence).verdict == "input-bound"


def test_padding_is_counted(loaded: LoadedModel, ceilings: Ceilings) -> None:
    texts = ["books", "books number 1 " * 20]
    lengths = [
        len(ids) for ids in loaded.tokenizer(texts, truncation=True, max_length=64)["input_ids"]
    ]
    with torch.inference_mode():
        evidence = measure_batch_size(loaded, texts, 2, 64, ceilings).evidence
    assert evidence.padding_fraction == pytest.approx((lengths[1] - lengths[0]) / (2 * lengths[1]))


def test_doubling_is_tried_on_a_typical_batch(
    loaded: LoadedModel, ceilings: Ceilings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short first text alone would make every text look like overhead."""
    seen = []
    monkeypatch.setattr(
        measurement,
        "_growth_when_doubled",
        lambda _, inputs: seen.append(inputs["input_ids"].shape[1]),
    )
    sound = loaded.model.forward

    def by_tokens(*args: Any, **kwargs: Any) -> Any:
        time.sleep(kwargs["input_ids"].numel() * 2e-4)  # the workload itself
        return sound(*args, **kwargs)

    monkeypatch.setattr(loaded.model, "forward", by_tokens)
    texts = ["a", *(f"books number {i} " * 4 for i in range(5))]
    with torch.inference_mode():
        measure_batch_size(loaded, texts, 1, 64, ceilings)
    assert seen[0] > 10


def test_a_batch_of_empty_texts(loaded: LoadedModel, ceilings: Ceilings) -> None:
    with torch.inference_mode():
        evidence = measure_batch_size(loaded, ["", "books"], 1, 64, ceilings).evidence
    assert (
        evidence.forward_ms > 0
        and evidence.padding_fraction is not None
        and 0 < evidence.padding_fraction < 1
    )


def test_an_operator_without_a_formula_is_no_operator_without_flops(
    loaded: LoadedModel, ceilings: Ceilings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = costs.count_flops

    def no_formula(func: Any, *rest: Any) -> int | None:
        return None if func._schema.name == "aten::silu" else sound(func, *rest)

    monkeypatch.setattr(costs, "count_flops", no_formula)
    with torch.inference_mode():
        evidence = measure_batch_size(loaded, support.TEXTS[:4], 4, 64, ceilings).evidence
    assert evidence.unknown_operators == ("aten::silu",)
    assert evidence.flops > 0 and evidence.bytes_moved > 0
    assert classify_bottleneck(evidence).confidence == "low", "what it computes is not known"
    exact = {"unknown_operators": (), "time_spread": 0.0, "ceiling_spread": 0.0}
    known = evidence.model_copy(update=exact)
    assert classify_bottleneck(known).confidence == "high"
