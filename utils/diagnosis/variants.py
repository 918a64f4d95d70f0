"""The present settings and a changed one as two ways to classify the same texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from utils.core.errors import DataError, UserError
from utils.diagnosis.applied import TOKEN_BUDGET
from utils.diagnosis.diagnosis_settings import DiagnosisSettings
from utils.diagnosis.kernel_suggestions import COMPILE
from utils.diagnosis.workload import Workload, split_into_batches
from utils.evaluation.batching import Batching
from utils.evaluation.budget_search import fastest_budget
from utils.evaluation.predictor import Predictor
from utils.evaluation.tokens import tokenize
from utils.model.load import load_classifier
from utils.model.resolution import ModelResolver
from utils.model.text_checks import check_batch_sizes
from utils.model_utils import LoadedModel
from utils.schema.diagnosis import Suggestion
from utils.sweep.sample import draw_texts
from utils.system.process import use_tokenizer_threads_of_sweep
from utils.system.timing import time_interleaved

SECONDS_A_PASS = 2.0
"""With large models a pass takes fewer texts than the sample has, full batches of them."""
MIN_LABEL_TEXTS = 500
"""Fewer texts leave the share of equal labels uncertain by more than a percent."""

Variant = Callable[[Sequence[str]], NDArray[np.int64]]
"""Classifies texts once, from words to predicted label ids on the host."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The present settings and the changed ones, over the same texts.

    Args:
        timed_texts: what a round classifies.
        label_texts: what labels are compared on.
    """

    baseline: Variant
    changed: Variant
    timed_texts: Sequence[str]
    label_texts: Sequence[str]


def is_evaluation_setting(setting: str) -> bool:
    """Whether a setting changes the evaluation, whose own predictor then tries it."""
    return setting in (TOKEN_BUDGET, COMPILE)


def make_variants(
    loaded: LoadedModel, settings: DiagnosisSettings, size: int, suggestion: Suggestion
) -> Comparison:
    """Baseline and changed variant, over texts that take about ``SECONDS_A_PASS``."""
    setting = suggestion.setting
    assert setting is not None, "only suggestions with a setting are tried"
    new_settings = settings.with_override(setting)
    new_size = suggestion.batch_size or size
    sample_size = settings.sample_size
    if not is_evaluation_setting(setting):
        sample_size = max(sample_size, new_size)
    texts = _draw(loaded, settings, sample_size)
    label_texts = _draw(loaded, settings, max(sample_size, MIN_LABEL_TEXTS))
    if len(texts) < new_size and not is_evaluation_setting(setting):
        raise DataError(f"The data set has {len(texts)} texts, a batch would hold {new_size}.")
    texts = _shorten(loaded, settings, size, new_size, texts)
    if is_evaluation_setting(setting):
        baseline, changed = _predictor_variants(loaded, new_settings, size, setting, texts)
        return Comparison(
            baseline=baseline, changed=changed, timed_texts=texts, label_texts=label_texts
        )
    other = loaded
    if setting.startswith("model."):
        other = _load_changed_model(new_settings)
    return Comparison(
        baseline=_workload_variant(loaded, settings, size),
        changed=_workload_variant(other, new_settings, new_size),
        timed_texts=texts,
        label_texts=label_texts,
    )


def _draw(loaded: LoadedModel, settings: DiagnosisSettings, sample_size: int) -> list[str]:
    """So many texts of the data set, or all of them."""
    return list(draw_texts(loaded, settings.data_file, settings.profiling, sample_size).texts)


def _load_changed_model(settings: DiagnosisSettings) -> LoadedModel:
    resolver = ModelResolver(settings=settings.model, embedded_model=settings.embedded_model)
    loaded = load_classifier(resolver)
    check_batch_sizes(loaded, settings.profiling.batch_sizes)
    return loaded


def _shorten(
    loaded: LoadedModel, settings: DiagnosisSettings, size: int, new_size: int, texts: Sequence[str]
) -> list[str]:
    """Full batches of the changed size, as many as a pass has time for, one at least."""
    one_batch = {"one": partial(_workload_variant(loaded, settings, size), texts[:size])}
    seconds, _ = time_interleaved(one_batch, 2)
    affordable = int(SECONDS_A_PASS / min(seconds["one"]) * size / new_size)
    batches = max(1, min(affordable, len(texts) // new_size))
    return list(texts[: new_size * batches])


def _workload_variant(loaded: LoadedModel, settings: DiagnosisSettings, size: int) -> Variant:
    def run(texts: Sequence[str]) -> NDArray[np.int64]:
        batches = split_into_batches(texts, size)
        workload = Workload(loaded, batches, settings.profiling.max_length)
        # The precision belongs to the process, not to the model.
        torch.set_float32_matmul_precision(settings.model.matmul_precision)
        with use_tokenizer_threads_of_sweep(loaded.device.type):
            logits = [workload.run(index, nullcontext) for index in range(len(workload.batches))]
        return torch.cat(logits).argmax(dim=-1).numpy()

    return run


def _predictor_variants(
    loaded: LoadedModel, settings: DiagnosisSettings, size: int, setting: str, texts: Sequence[str]
) -> tuple[Variant, Variant]:
    """Batches of ``size`` in file order; and the same compiled, or grouped by length."""
    in_order = Batching(kind="dataset_order", limit=size)
    baseline = Predictor(loaded.model, loaded.inputs, loaded.device, in_order)
    other = Predictor(loaded.model, loaded.inputs, loaded.device, in_order)

    def tokens(texts: Sequence[str]) -> Any:
        return tokenize(loaded.tokenizer, texts, settings.profiling.max_length, loaded.inputs)

    def predict_in_order(texts: Sequence[str]) -> NDArray[np.int64]:
        return baseline.predict(tokens(texts)).predicted_ids

    def predict_changed(texts: Sequence[str]) -> NDArray[np.int64]:
        return other.predict(tokens(texts)).predicted_ids

    if setting == COMPILE:
        if baseline.needs_mask:
            raise UserError(
                "only batches without padding run compiled; in file order this model's are padded"
            )
        other.compile()
        other.warm_up(tokens(texts))
    else:
        limit = settings.evaluation.max_tokens_per_batch
        if limit == "auto":
            limit = fastest_budget(other, tokens(texts))
        other.batching = Batching(kind="token_budget", limit=limit)
    return predict_in_order, predict_changed
