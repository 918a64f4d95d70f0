"""Suggestions tried for real: the baseline and one changed setting, in turn, on the same texts."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from utils.core.errors import DataError, UserError, reason_of
from utils.diagnosis.applied import TOKEN_BUDGET
from utils.diagnosis.diagnosis_settings import DiagnosisSettings
from utils.diagnosis.headline import main_bottleneck_text, rank
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
from utils.pipeline import console
from utils.schema.diagnosis import (
    Bottleneck,
    Diagnosis,
    Suggestion,
    Verification,
    save_diagnosis,
)
from utils.sweep.bench_stats import MIN_RUNS, compare
from utils.sweep.sample import draw_texts
from utils.system.device import is_out_of_memory
from utils.system.timing import time_interleaved

logger = logging.getLogger(__name__)

MAX_TRIED = 3
SECONDS = 20.0
MAX_ROUNDS = 20
"""Rounds are as many as the seconds allow, at least those from which an interval is usable."""
SECONDS_A_PASS = 2.0
"""With large models a pass takes fewer texts than the sample has, full batches of them."""
NO_SETTING = "no matching setting"

Variant = Callable[[], NDArray[np.int64]]
"""Classifies all texts once, from words to predicted label ids on the host."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Comparison:
    """The present settings and the changed ones, over the same texts."""

    baseline: Variant
    changed: Variant
    num_texts: int


def verify(loaded: LoadedModel, settings: DiagnosisSettings, diagnosis: Diagnosis) -> Diagnosis:
    """Try the first three suggestions whose settings differ, each alone; write the file again.

    A suggestion that fails has the reason in its place.

    Returns:
        The diagnosis with ``verification`` in each suggestion that was tried.
    """
    chosen = _choose(diagnosis.all_suggestions)
    size = diagnosis.detail_batch_size
    verifications: list[Verification | None] = []
    for suggestion in console.progress(
        diagnosis.all_suggestions, what="Trying suggestions", unit="suggestion"
    ):
        if suggestion.setting is None:
            verifications.append(Verification(reason=NO_SETTING))
        elif any(suggestion is one for one in chosen):
            verifications.append(measure_suggestion(loaded, settings, size, suggestion))
        else:
            verifications.append(None)
    verified_diagnosis = _with_verifications(diagnosis, verifications)
    save_diagnosis(settings.files.bottlenecks, verified_diagnosis)
    return verified_diagnosis


def _with_verifications(
    diagnosis: Diagnosis, verifications: Sequence[Verification | None]
) -> Diagnosis:
    """The diagnosis with the result of each of its suggestions."""
    suggestions = []
    for suggestion, verification in zip(diagnosis.all_suggestions, verifications, strict=True):
        result = verification or suggestion.verification
        suggestions.append(suggestion.model_copy(update={"verification": result}))
    # What was measured replaces what was predicted, in the order and in the first sentence.
    suggestions.sort(key=rank)
    shown_first = len(diagnosis.suggestions)
    return diagnosis.model_copy(
        update={
            "suggestions": tuple(suggestions[:shown_first]),
            "further_suggestions": tuple(suggestions[shown_first:]),
            "main_bottleneck": main_bottleneck_text(
                _detail_bottleneck(diagnosis), diagnosis.saturation, suggestions
            ),
            "verified_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
    )


def _detail_bottleneck(diagnosis: Diagnosis) -> Bottleneck:
    """The verdict of the batch size that the suggestions belong to."""
    for item in diagnosis.batch_sizes:
        if item.batch_size == diagnosis.detail_batch_size:
            return item
    return diagnosis.batch_sizes[-1]


def measure_suggestion(
    loaded: LoadedModel, settings: DiagnosisSettings, size: int, suggestion: Suggestion
) -> Verification:
    """What one setting really brings at a batch size, or why that is not known.

    Args:
        suggestion: one that has a setting.
    """
    try:
        with torch.inference_mode():
            return _measure(loaded, settings, size, suggestion)
    except Exception as error:  # noqa: BLE001
        # Whatever a suggestion raises is its result, not the end of the step.
        logger.info("%s could not be tried", suggestion.setting, exc_info=True)
        return Verification(
            setting=suggestion.setting,
            predicted_speedup=suggestion.predicted_speedup,
            reason=_failure(error),
        )
    finally:
        torch.set_float32_matmul_precision(settings.model.matmul_precision)
        # The changed model goes before the next one is loaded.
        gc.collect()
        if loaded.device.type == "cuda":
            torch.cuda.empty_cache()


def is_evaluation_setting(setting: str) -> bool:
    """Whether a setting changes the evaluation, whose own predictor then tries it."""
    return setting in (TOKEN_BUDGET, COMPILE)


def _choose(suggestions: Sequence[Suggestion]) -> list[Suggestion]:
    """The first with a setting; of those with the same setting the larger, which comes first."""
    by_setting: dict[str, Suggestion] = {}
    for suggestion in suggestions:
        if suggestion.setting is not None:
            by_setting.setdefault(suggestion.setting, suggestion)
    return list(by_setting.values())[:MAX_TRIED]


def _measure(
    loaded: LoadedModel, settings: DiagnosisSettings, size: int, suggestion: Suggestion
) -> Verification:
    comparison = _make_variants(loaded, settings, size, suggestion)
    variants = {"baseline": comparison.baseline, "changed": comparison.changed}
    # The warm-up also shows how long a round takes.
    warm_up, _ = time_interleaved(variants, 1)
    round_s = sum(sum(seconds) for seconds in warm_up.values())
    rounds = round(min(MAX_ROUNDS, max(MIN_RUNS, SECONDS / round_s)))
    seconds, labels = time_interleaved(variants, rounds)
    speedup = compare(seconds["changed"], seconds["baseline"])
    assert speedup.ratio is not None, "every pass takes time"
    assert speedup.low is not None and speedup.high is not None, "there are enough rounds"
    prediction_error = None
    predicted = suggestion.predicted_speedup
    if suggestion.prediction == "estimate" and predicted is not None:
        prediction_error = predicted / speedup.ratio - 1
    return Verification(
        setting=suggestion.setting,
        predicted_speedup=predicted,
        measured_speedup=speedup.ratio,
        ci95=(speedup.low, speedup.high),
        label_agreement=float((labels["baseline"] == labels["changed"]).mean()),
        prediction_error=prediction_error,
        num_texts=comparison.num_texts,
        num_rounds=rounds,
    )


def _failure(error: Exception) -> str:
    if is_out_of_memory(error):
        return "it does not fit into memory beside the baseline's model"
    reason = reason_of(error)
    if isinstance(error, UserError):
        reason = error.what
    return f"{type(error).__name__}: {reason}"


def _make_variants(
    loaded: LoadedModel, settings: DiagnosisSettings, size: int, suggestion: Suggestion
) -> _Comparison:
    """Baseline and changed variant, over texts that take about ``SECONDS_A_PASS``."""
    setting = suggestion.setting
    assert setting is not None, "only suggestions with a setting are tried"
    new_settings = settings.with_override(setting)
    new_size = suggestion.batch_size or size
    sample_size = settings.sample_size
    if not is_evaluation_setting(setting):
        sample_size = max(sample_size, new_size)
    sample = draw_texts(loaded, settings.data_file, settings.profiling, sample_size)
    texts = list(sample.texts)
    if len(texts) < new_size and not is_evaluation_setting(setting):
        raise DataError(f"The data set has {len(texts)} texts, a batch would hold {new_size}.")
    texts = _shorten(loaded, settings, size, new_size, texts)
    if is_evaluation_setting(setting):
        return _predictor_variants(loaded, new_settings, size, setting, texts)
    other = loaded
    if setting.startswith("model."):
        other = _load_changed_model(new_settings)
    return _Comparison(
        baseline=_workload_variant(loaded, settings, size, texts),
        changed=_workload_variant(other, new_settings, new_size, texts),
        num_texts=len(texts),
    )


def _load_changed_model(settings: DiagnosisSettings) -> LoadedModel:
    resolver = ModelResolver(settings=settings.model, embedded_model=settings.embedded_model)
    loaded = load_classifier(resolver)
    check_batch_sizes(loaded, settings.profiling.batch_sizes)
    return loaded


def _shorten(
    loaded: LoadedModel, settings: DiagnosisSettings, size: int, new_size: int, texts: Sequence[str]
) -> list[str]:
    """Full batches of the changed size, as many as a pass has time for, one at least."""
    one_batch = {"one": _workload_variant(loaded, settings, size, texts[:size])}
    seconds, _ = time_interleaved(one_batch, 2)
    affordable = int(SECONDS_A_PASS / min(seconds["one"]) * size / new_size)
    batches = max(1, min(affordable, len(texts) // new_size))
    return list(texts[: new_size * batches])


def _workload_variant(
    loaded: LoadedModel, settings: DiagnosisSettings, size: int, texts: Sequence[str]
) -> Variant:
    workload = Workload(loaded, split_into_batches(texts, size), settings.profiling.max_length)

    def run() -> NDArray[np.int64]:
        # The precision belongs to the process, not to the model.
        torch.set_float32_matmul_precision(settings.model.matmul_precision)
        logits = [workload.run(index, nullcontext) for index in range(len(workload.batches))]
        return torch.cat(logits).argmax(dim=-1).numpy()

    return run


def _predictor_variants(
    loaded: LoadedModel, settings: DiagnosisSettings, size: int, setting: str, texts: Sequence[str]
) -> _Comparison:
    """Batches of ``size`` in file order; and the same compiled, or grouped by length."""
    in_order = Batching(kind="dataset_order", limit=size)
    baseline = Predictor(loaded.model, loaded.inputs, loaded.device, in_order)
    other = Predictor(loaded.model, loaded.inputs, loaded.device, in_order)

    def tokens() -> Any:
        return tokenize(loaded.tokenizer, texts, settings.profiling.max_length, loaded.inputs)

    if setting == COMPILE:
        if baseline.needs_mask:
            raise UserError(
                "only batches without padding run compiled; in file order this model's are padded"
            )
        other.compile()
        other.warm_up(tokens())
    else:
        limit = settings.evaluation.max_tokens_per_batch
        if limit == "auto":
            limit = fastest_budget(other, tokens())
        other.batching = Batching(kind="token_budget", limit=limit)
    return _Comparison(
        baseline=lambda: baseline.predict(tokens()).predicted_ids,
        changed=lambda: other.predict(tokens()).predicted_ids,
        num_texts=len(texts),
    )
