"""Suggestions tried for real: the baseline and one changed setting, in turn, on the same texts."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from utils.config_loader import Config, changed
from utils.core.errors import DataError, UserError, reason_of
from utils.core.files import write_json
from utils.diagnosis.diagnose import Diagnosis
from utils.diagnosis.findings import ESTIMATE, Suggestion, Verification
from utils.diagnosis.suggestions import COMPILE, TOKEN_BUDGET
from utils.diagnosis.workload import Workload
from utils.evaluation.batching import Batching
from utils.evaluation.batching_comparison import time_interleaved
from utils.evaluation.predictor import Predictor
from utils.evaluation.tokens import tokenize
from utils.model_utils import LoadedModel, load_model
from utils.pipeline import console
from utils.sweep.bench_stats import MIN_RUNS, compare
from utils.sweep.sample import draw_texts
from utils.system.device import is_out_of_memory

logger = logging.getLogger(__name__)

MAX_TRIED = 3
SECONDS = 20.0
MAX_ROUNDS = 20
"""Rounds are as many as the seconds allow, at least those from which an interval is usable."""
SECONDS_A_PASS = 2.0
"""With large models a pass takes fewer texts than the sample has, full batches of them."""
NO_SETTING = "no matching setting"

Way = Callable[[], NDArray[np.int64]]
"""Classifies all texts once, from words to predicted label ids on the host."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Comparison:
    """The present way and the changed one, over the same texts."""

    baseline: Way
    changed: Way
    num_texts: int


def verify(loaded: LoadedModel, config: Config, diagnosis: Diagnosis) -> Diagnosis:
    """Try the first three suggestions whose settings differ, each alone; write the file again.

    A suggestion that fails has the reason in its place.

    Returns:
        The diagnosis with ``verification`` in each suggestion that was tried.
    """
    chosen = _choose(diagnosis.suggestions)
    results = {}
    for suggestion in console.progress(chosen, what="Trying suggestions", unit="suggestion"):
        size = diagnosis.detail_batch_size
        results[suggestion.setting] = measure_suggestion(loaded, config, size, suggestion)
    suggestions = []
    for suggestion in diagnosis.suggestions:
        verification = None
        if suggestion.setting is None:
            verification = Verification(reason=NO_SETTING)
        elif any(suggestion is one for one in chosen):
            verification = results[suggestion.setting]
        suggestions.append(replace(suggestion, verification=verification))
    verified_diagnosis = replace(
        diagnosis,
        suggestions=tuple(suggestions),
        verified_at=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
    write_json(config.files.bottlenecks, verified_diagnosis.to_dict())
    return verified_diagnosis


def measure_suggestion(
    loaded: LoadedModel, config: Config, size: int, suggestion: Suggestion
) -> Verification:
    """What one setting really brings at a batch size, or why that is not known.

    Args:
        suggestion: one that has a setting.
    """
    try:
        with torch.inference_mode():
            return _measure(loaded, config, size, suggestion)
    except Exception as error:  # noqa: BLE001
        # Whatever a suggestion raises is its result, not the end of the step.
        logger.info("%s could not be tried", suggestion.setting, exc_info=True)
        return Verification(
            setting=suggestion.setting,
            predicted_speedup=suggestion.predicted_speedup,
            reason=_failure(error),
        )
    finally:
        torch.set_float32_matmul_precision(config.model.matmul_precision)
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
    loaded: LoadedModel, config: Config, size: int, suggestion: Suggestion
) -> Verification:
    comparison = _make_ways(loaded, config, size, suggestion)
    ways = {"baseline": comparison.baseline, "changed": comparison.changed}
    warm_up, _ = time_interleaved(ways, 1)  # also shows how long a round takes
    round_s = sum(sum(seconds) for seconds in warm_up.values())
    rounds = round(min(MAX_ROUNDS, max(MIN_RUNS, SECONDS / round_s)))
    seconds, labels = time_interleaved(ways, rounds)
    speedup = compare(seconds["changed"], seconds["baseline"])
    assert speedup.ratio is not None, "every pass takes time"
    assert speedup.low is not None and speedup.high is not None, "there are enough rounds"
    prediction_error = None
    predicted = suggestion.predicted_speedup
    if suggestion.prediction == ESTIMATE and predicted is not None:
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
    reason = error.what if isinstance(error, UserError) else reason_of(error)
    return f"{type(error).__name__}: {reason}"


def _make_ways(
    loaded: LoadedModel, config: Config, size: int, suggestion: Suggestion
) -> _Comparison:
    """The baseline and the changed way, over texts that take about ``SECONDS_A_PASS``."""
    setting = suggestion.setting
    assert setting is not None, "only suggestions with a setting are tried"
    new_config = changed(config, setting)
    new_size = suggestion.batch_size or size
    sample_size = config.dataset.sample_sizes[0]
    if not is_evaluation_setting(setting):
        sample_size = max(sample_size, new_size)
    texts = list(draw_texts(loaded, config, sample_size).texts)
    if len(texts) < new_size and not is_evaluation_setting(setting):
        raise DataError(f"The data set has {len(texts)} texts, a batch would hold {new_size}.")
    texts = _shorten(loaded, config, size, new_size, texts)
    if is_evaluation_setting(setting):
        return _predictor_ways(loaded, new_config, size, setting, texts)
    other = load_model(new_config) if setting.startswith("model.") else loaded
    return _Comparison(
        baseline=_workload_way(loaded, config, size, texts),
        changed=_workload_way(other, new_config, new_size, texts),
        num_texts=len(texts),
    )


def _shorten(
    loaded: LoadedModel, config: Config, size: int, new_size: int, texts: Sequence[str]
) -> list[str]:
    """Full batches of the changed size, as many as a pass has time for, one at least."""
    one_batch = {"one": _workload_way(loaded, config, size, texts[:size])}
    seconds, _ = time_interleaved(one_batch, 2)
    affordable = int(SECONDS_A_PASS / min(seconds["one"]) * size / new_size)
    batches = max(1, min(affordable, len(texts) // new_size))
    return list(texts[: new_size * batches])


def _workload_way(loaded: LoadedModel, config: Config, size: int, texts: Sequence[str]) -> Way:
    batches = tuple(list(texts[start : start + size]) for start in range(0, len(texts), size))
    workload = Workload(loaded, batches, config.profiling.max_length)

    def run() -> NDArray[np.int64]:
        # The precision belongs to the process, not to the model.
        torch.set_float32_matmul_precision(config.model.matmul_precision)
        logits = [workload.run(index, nullcontext) for index in range(len(batches))]
        return torch.cat(logits).argmax(dim=-1).numpy()

    return run


def _predictor_ways(
    loaded: LoadedModel, config: Config, size: int, setting: str, texts: Sequence[str]
) -> _Comparison:
    """Batches of ``size`` in file order; and the same compiled, or grouped by length."""
    in_order = Batching(kind="dataset_order", limit=size)
    baseline = Predictor(loaded.model, loaded.inputs, loaded.device, in_order)
    other = Predictor(loaded.model, loaded.inputs, loaded.device, in_order)

    def tokens() -> Any:
        return tokenize(loaded.tokenizer, texts, config.profiling.max_length, loaded.inputs)

    if setting == COMPILE:
        if baseline.needs_mask:
            raise UserError(
                "only batches without padding run compiled; in file order this model's are padded"
            )
        other.compile()
        other.warm_up(tokens())
    else:
        budget = config.evaluation.max_tokens_per_batch
        limit = other.fastest_budget(tokens()) if budget == "auto" else budget
        other.batching = Batching(kind="token_budget", limit=limit)
    return _Comparison(
        baseline=lambda: baseline.predict(tokens()).predicted_ids,
        changed=lambda: other.predict(tokens()).predicted_ids,
        num_texts=len(texts),
    )
