"""Suggestions tried for real: the baseline and one changed setting, in turn, on the same texts."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from utils.core.errors import UserError, reason_of
from utils.diagnosis.applied import TOKEN_BUDGET
from utils.diagnosis.diagnosis_settings import DiagnosisSettings
from utils.diagnosis.headline import main_bottleneck_text, rank
from utils.diagnosis.kernel_suggestions import COMPILE
from utils.diagnosis.variants import Comparison, is_evaluation_setting, make_variants
from utils.evaluation.classification_metrics import wilson_interval
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
from utils.system.device import is_out_of_memory
from utils.system.timing import time_interleaved

logger = logging.getLogger(__name__)

MAX_TRIED = 3
SECONDS = 20.0
MAX_ROUNDS = 20
"""Rounds are as many as the seconds allow, at least those from which an interval is usable."""
LABEL_SECONDS = 60.0
"""Labels are compared on fewer texts where both sides would take longer."""
ROUNDS_AT_ONCE = 6
"""An even number: each side comes first equally often."""
NARROW_INTERVAL = 0.02
"""The upper end of a speed-up's interval over the lower one, less 1, at which no more is run."""
TRIED_SETTINGS = ("model.", "profiling.batch_sizes=", "profiling.max_length=")
"""Settings that are tried with batches of the sweep."""
NO_SETTING = "no matching setting"


def check_settings(settings: DiagnosisSettings, chosen: Sequence[str]) -> None:
    """Refuse settings that cannot be tried, before anything is loaded.

    Args:
        chosen: ``section.key=VALUE`` each.

    Raises:
        UserError: a setting is none that can be tried, or its value is not allowed.
    """
    for setting in chosen:
        is_known = setting.startswith(TRIED_SETTINGS) and "=" in setting
        if not is_known and not is_evaluation_setting(setting):
            raise UserError(
                f"--verify cannot try {setting!r}.",
                where="--verify",
                fix=f"model.KEY=VALUE, profiling.batch_sizes=[…], profiling.max_length=N, "
                f"{TOKEN_BUDGET} or {COMPILE}",
            )
        settings.with_override(setting)


def verify(
    loaded: LoadedModel,
    settings: DiagnosisSettings,
    diagnosis: Diagnosis,
    chosen_settings: Sequence[str] = (),
) -> Diagnosis:
    """Try settings, each alone; write the file again.

    A setting that fails has the reason in its place.

    Args:
        chosen_settings: settings of the user's choice; where there are none, the first three
            suggestions whose settings differ are tried.

    Returns:
        The diagnosis with ``verification`` in each suggestion that was tried, or with
        ``tried_settings``.
    """
    if chosen_settings:
        return _verify_chosen(loaded, settings, diagnosis, chosen_settings)
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


def _verify_chosen(
    loaded: LoadedModel,
    settings: DiagnosisSettings,
    diagnosis: Diagnosis,
    chosen_settings: Sequence[str],
) -> Diagnosis:
    """Settings of the user's choice, for which nothing was predicted."""
    size = diagnosis.detail_batch_size
    tried = []
    for setting in console.progress(chosen_settings, what="Trying settings", unit="setting"):
        batch_size = None
        if setting.startswith("profiling.batch_sizes"):
            batch_size = max(settings.with_override(setting).profiling.batch_sizes)
        suggestion = Suggestion(
            title="a setting of your choice",
            cause="it was asked for",
            saving_ms=0.0,
            advice=setting,
            setting=setting,
            evidence="nothing was predicted",
            batch_size=batch_size,
            saving_pct=0.0,
        )
        tried.append(measure_suggestion(loaded, settings, size, suggestion))
    verified = diagnosis.model_copy(update={"tried_settings": tuple(tried)})
    save_diagnosis(settings.files.bottlenecks, verified)
    return verified


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
    main_bottleneck = main_bottleneck_text(
        _detail_bottleneck(diagnosis),
        diagnosis.saturation,
        suggestions,
        is_noisy=diagnosis.noise is not None,
    )
    return diagnosis.model_copy(
        update={
            "suggestions": tuple(suggestions[:shown_first]),
            "further_suggestions": tuple(suggestions[shown_first:]),
            "main_bottleneck": main_bottleneck,
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
    comparison = make_variants(loaded, settings, size, suggestion)
    seconds = _time_rounds(comparison)
    speedup = compare(seconds["changed"], seconds["baseline"])
    assert speedup.ratio is not None, "every pass takes time"
    assert speedup.low is not None and speedup.high is not None, "there are enough rounds"
    is_equal = _compare_labels(comparison, min(seconds["baseline"]) + min(seconds["changed"]))
    num_equal = int(is_equal.sum())
    low, high = wilson_interval(num_equal, len(is_equal))
    assert low is not None and high is not None, "there is a text"
    prediction_error = None
    predicted = suggestion.predicted_speedup
    if suggestion.prediction == "estimate" and predicted is not None:
        prediction_error = predicted / speedup.ratio - 1
    return Verification(
        setting=suggestion.setting,
        predicted_speedup=predicted,
        measured_speedup=speedup.ratio,
        ci95=(speedup.low, speedup.high),
        label_agreement=num_equal / len(is_equal),
        label_agreement_ci95=(low, high),
        num_label_texts=len(is_equal),
        prediction_error=prediction_error,
        num_texts=len(comparison.timed_texts),
        num_rounds=len(seconds["changed"]),
    )


def _time_rounds(comparison: Comparison) -> dict[str, list[float]]:
    """Seconds of each round, until the interval is narrow or the time is used up."""
    variants = {
        "baseline": partial(comparison.baseline, comparison.timed_texts),
        "changed": partial(comparison.changed, comparison.timed_texts),
    }
    # The warm-up also shows how long a round takes.
    warm_up, _ = time_interleaved(variants, 1)
    round_s = sum(sum(times) for times in warm_up.values())
    affordable = round(min(MAX_ROUNDS, max(MIN_RUNS, SECONDS / round_s)))
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    while len(seconds["changed"]) < affordable:
        missing = affordable - len(seconds["changed"])
        more, _ = time_interleaved(variants, min(ROUNDS_AT_ONCE, missing))
        for name, times in more.items():
            seconds[name] += times
        speedup = compare(seconds["changed"], seconds["baseline"])
        assert speedup.low is not None and speedup.high is not None, "there are enough rounds"
        if speedup.high / speedup.low - 1 <= NARROW_INTERVAL:
            break
    return seconds


def _compare_labels(comparison: Comparison, round_s: float) -> NDArray[np.bool_]:
    """Which texts keep their label, as many as ``LABEL_SECONDS`` allow, the timed ones at least.

    Args:
        round_s: seconds that both sides take for the timed texts.
    """
    num_timed = len(comparison.timed_texts)
    affordable = max(num_timed, int(LABEL_SECONDS / round_s * num_timed))
    texts = comparison.label_texts[:affordable]
    return comparison.baseline(texts) == comparison.changed(texts)


def _failure(error: Exception) -> str:
    if is_out_of_memory(error):
        return "it does not fit into memory beside the baseline's model"
    reason = reason_of(error)
    if isinstance(error, UserError):
        reason = error.what
    return f"{type(error).__name__}: {reason}"
