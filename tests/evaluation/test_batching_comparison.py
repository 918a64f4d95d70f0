"""The speed-ups of grouping and compiling are measured on the same rows, once, and reported."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests import support
from utils.core.errors import ModelError
from utils.evaluation import batching_comparison as comparison
from utils.evaluation import runner
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.evaluation.predictions import Predictions
from utils.evaluation.tokens import TokenChunk, tokenize
from utils.model_utils import LoadedModel, load_model
from utils.reporting.evaluation_facts import comparison_facts
from utils.system import timing


@pytest.fixture
def loaded(tmp_path: Path, tiny_model: Path) -> LoadedModel:
    return load_model(support.small_config(tmp_path, tiny_model))


@pytest.mark.parametrize("batching", ["token_budget", "dataset_order"])
def test_both_variants_run_the_same_rows(
    loaded: LoadedModel,
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    batching: str,
) -> None:
    monkeypatch.setattr(comparison, "MIN_ROWS", 40)
    more = (
        f"evaluation.batching={batching}",
        "evaluation.compare_batching=true",
        "evaluation.batch_size=7",
        "evaluation.max_tokens_per_batch=256",
    )
    config = support.small_config(tmp_path, tiny_model, *more)
    metrics = runner.evaluate_dataset(loaded, EvaluationSettings.of(config))
    measured = metrics.batching_comparison
    assert metrics.compile_comparison is None
    assert (measured.batch_size, measured.label_agreement) == (7, 1.0)
    assert 40 <= measured.num_rows <= 60
    assert measured.token_budget_padding_fraction < measured.dataset_order_padding_fraction
    assert measured.speedup == pytest.approx(
        measured.token_budget_samples_per_sec / measured.dataset_order_samples_per_sec
    )
    assert comparison_facts(metrics)[0][1].startswith(f"{measured.speedup:#.3g} times as fast: ")
    again = runner.evaluate_dataset(loaded, EvaluationSettings.of(config))
    assert again.batching_comparison == measured, "taken over, not measured again"
    assert len(list((tmp_path / "results" / "predictions").iterdir())) == 3, (
        "comparing writes no predictions"
    )
    fewer = runner.evaluate_dataset(
        loaded,
        EvaluationSettings.of(
            support.small_config(tmp_path, tiny_model, *more, "evaluation.max_samples=25")
        ),
    )
    assert fewer.batching_comparison.num_rows == 25, "of other rows: measured again"


def test_each_variant_starts_up_outside_the_rounds(loaded: LoadedModel) -> None:
    """A stand-in that takes three seconds at its first call and one later, by the clock that the
    rounds read.
    """
    chunk = tokenize(loaded.tokenizer, support.TEXTS, 64, loaded.inputs)
    calls: list[tuple[str, int]] = []
    now = [0.0]

    def make_variant(name: str) -> comparison.Variant:
        def run(tokens: TokenChunk) -> Predictions:
            now[0] += 1.0 if any(name == called for called, _ in calls) else 3.0
            calls.append((name, len(tokens.ids)))
            n = len(tokens.ids)
            return Predictions(
                predicted_ids=np.zeros(n, dtype=np.int64),
                probabilities=np.ones(n, dtype=np.float32),
                computed_tokens=int(tokens.lengths.sum()),
            )

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
        first, _, both = comparison.compare_variants(make_variant("a"), make_variant("b"), chunk)
    few, all_rows = comparison.WARM_UP_ROWS, len(support.TEXTS)
    assert calls == [
        ("a", few),
        ("b", few),
        ("a", all_rows),
        ("b", all_rows),
        ("b", all_rows),
        ("a", all_rows),
    ]
    assert (both.speedup, first.samples_per_sec, both.num_rows) == (1.0, all_rows, all_rows)


def test_it_is_left_out_where_it_is_not_asked_for(
    loaded: LoadedModel, tmp_path: Path, tiny_model: Path
) -> None:
    metrics = runner.evaluate_dataset(
        loaded, EvaluationSettings.of(support.small_config(tmp_path, tiny_model))
    )
    assert metrics.batching_comparison is metrics.compile_comparison is None
    assert comparison_facts(metrics) == []


@pytest.mark.skipif(
    torch.__version__ < "2.7", reason="torch 2.6 cannot compile this model, and the step says so"
)
def test_compiling_keeps_the_labels_and_its_speedup_is_reported(
    loaded: LoadedModel, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is really captured; the backend that runs it needs no C++ compiler."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain = runner.evaluate_dataset(
        loaded, EvaluationSettings.of(support.small_config(tmp_path, tiny_model))
    )
    metrics = runner.evaluate_dataset(
        loaded,
        EvaluationSettings.of(
            support.small_config(tmp_path, tiny_model, "evaluation.compile=true")
        ),
    )
    measured = metrics.compile_comparison
    assert metrics.resumed_rows == 0, "compiled bytes are others: chunks are not mixed"
    assert metrics.num_correct == plain.num_correct
    assert measured.label_agreement == 1.0
    assert measured.compile_s > 0
    assert measured.speedup == pytest.approx(
        measured.compiled_samples_per_sec / measured.plain_samples_per_sec
    )
    texts = {fact.name: fact.text for fact in comparison_facts(metrics)}
    assert "compiling took" in texts["Speed-up by compiling"]


def test_a_compiler_that_fails_is_one_clear_message(
    loaded: LoadedModel, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no C++ compiler here\nand a long story")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    with pytest.raises(ModelError, match="torch.compile failed: ") as caught:
        runner.evaluate_dataset(
            loaded,
            EvaluationSettings.of(
                support.small_config(tmp_path, tiny_model, "evaluation.compile=true")
            ),
        )
    assert caught.value.fix == "--set evaluation.compile=false"
