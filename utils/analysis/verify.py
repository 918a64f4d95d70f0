"""Suggestions tried for real: the baseline and one changed setting, in turn, on the same texts."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from utils.analysis.runner import Workload
from utils.analysis.wins import COMPILE, ESTIMATE, TOKEN_BUDGET, Win
from utils.bench_stats import MIN_RUNS, compare
from utils.config_loader import Config, changed
from utils.core import console
from utils.core.artifacts import write_json
from utils.core.device import is_out_of_memory
from utils.core.errors import DataError, UserError, reason_of
from utils.evaluation.batching import Batching
from utils.evaluation.comparison import take_turns
from utils.evaluation.predictor import Predictor, tokenize
from utils.model_utils import LoadedModel, load_model
from utils.sample import draw_texts

logger = logging.getLogger(__name__)

MOST_TRIED = 3
SECONDS, MOST_ROUNDS = 20.0, 20  # rounds are as many as the seconds hold, at least those from which an interval says something
SECONDS_A_PASS = 2.0  # with large models a pass takes fewer texts than the sample has, whole batches of them

Way = Callable[[], NDArray[np.int64]]  # all texts once, from words to predicted label ids on the host


def verify(loaded: LoadedModel, config: Config, found: Mapping[str, Any]) -> dict[str, Any]:
    """Try the first three wins whose settings differ, each alone, for wins overlap; write ``bottlenecks.json`` again.

    A suggestion that fails has the reason in its place; what was found before stays.

    Returns:
        ``found`` with ``verified`` in each win that was tried: predicted and measured speed-up, the measured one's 95% interval,
        label agreement with the baseline, or a reason.
    """
    first: dict[str, Win] = {}
    for win in (*found["wins"], *found["further_wins"]):  # of wins with the same setting the larger, which comes first
        if win["setting"]:
            first.setdefault(win["setting"], win)
    tried = console.progress(list(first.values())[:MOST_TRIED], what="Trying suggestions", unit="suggestion")
    results = {win["setting"]: try_win(loaded, config, found["detail_batch_size"], win) for win in tried}

    def with_result(win: Win) -> Win:
        if win["setting"] is None:
            return {**win, "verified": _result(reason="no setting of ours tries it")}
        return {**win, "verified": results.get(win["setting"]) if win is first[win["setting"]] else None}

    tested = {name: [with_result(win) for win in found[name]] for name in ("wins", "further_wins")}
    verified = {**found, **tested, "verified_at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    write_json(config.files.bottlenecks, verified)
    return verified


def try_win(loaded: LoadedModel, config: Config, size: int, win: Win) -> dict[str, Any]:
    """What one setting really brings at a batch size, or why that cannot be told."""
    try:
        with torch.inference_mode():
            baseline, other, num_texts = _ways(loaded, config, size, win)
            ways = {"baseline": baseline, "changed": other}
            del baseline, other
            warm, _ = take_turns(ways, 1)  # warms up, and tells how long a round takes
            rounds = round(min(MOST_ROUNDS, max(MIN_RUNS, SECONDS / sum(map(sum, warm.values())))))
            seconds, labels = take_turns(ways, rounds)
    except Exception as error:  # noqa: BLE001 - whatever a suggestion raises is its result, not the step's end
        logger.info("%s could not be tried", win["setting"], exc_info=True)
        memory = "it does not fit into memory beside the baseline's model" if is_out_of_memory(error) else None
        reason = error.what if isinstance(error, UserError) else reason_of(error)
        return _result(win, reason=memory or f"{type(error).__name__}: {reason}")
    finally:
        torch.set_float32_matmul_precision(config.model.matmul_precision)
        ways = {}  # the changed model goes before the next one is loaded
        gc.collect()
        if loaded.device.type == "cuda":
            torch.cuda.empty_cache()
    found = compare(seconds["changed"], seconds["baseline"])
    assert found.ratio is not None, "every pass takes time"
    predicted = win["predicted_speedup"] if win["prediction"] == ESTIMATE else None
    return _result(
        win, measured_speedup=found.ratio, ci95=[found.low, found.high], num_texts=num_texts, rounds=rounds,
        label_agreement=float((labels["baseline"] == labels["changed"]).mean()),
        prediction_error=predicted and predicted / found.ratio - 1,
    )


def _result(win: Mapping[str, Any] | None = None, **known: Any) -> dict[str, Any]:
    names = ("measured_speedup", "ci95", "label_agreement", "prediction_error", "num_texts", "rounds", "reason")
    return {name: (win or {}).get(name) for name in ("setting", "predicted_speedup")} | dict.fromkeys(names) | known


def _ways(loaded: LoadedModel, config: Config, size: int, win: Win) -> tuple[Way, Way, int]:
    """The baseline, the changed way, and how many texts both take."""
    setting, sample = win["setting"], config.dataset.sample_sizes[0]
    new, new_size = changed(config, setting), win.get("batch_size") or size
    of_evaluation = setting in (TOKEN_BUDGET, COMPILE)  # tried with its predictor
    drawn = draw_texts(loaded, config, sample if of_evaluation else max(sample, new_size))
    texts = list(drawn.texts)
    if len(texts) < new_size and not of_evaluation:
        raise DataError(f"The data set has {len(texts)} texts, a batch would hold {new_size}.")
    seconds, _ = take_turns({"one": _way(loaded, config, size, texts[:size])}, 2)
    batches = int(SECONDS_A_PASS / min(seconds["one"]) * size / new_size)
    texts = texts[: new_size * max(1, min(batches, len(texts) // new_size))]
    if of_evaluation:
        return (*_predictor_ways(loaded, new, size, setting, texts), len(texts))
    other = load_model(new) if setting.startswith("model.") else loaded
    return _way(loaded, config, size, texts), _way(other, new, new_size, texts), len(texts)


def _way(loaded: LoadedModel, config: Config, size: int, texts: Sequence[str]) -> Way:
    batches = tuple(list(texts[start : start + size]) for start in range(0, len(texts), size))
    workload = Workload(loaded, batches, config.profiling.max_length)

    def run() -> NDArray[np.int64]:
        torch.set_float32_matmul_precision(config.model.matmul_precision)  # of the process, not of the model
        return torch.cat([workload.run(index, nullcontext) for index in range(len(batches))]).argmax(dim=-1).numpy()

    return run


def _predictor_ways(loaded: LoadedModel, config: Config, size: int, setting: str, texts: Sequence[str]) -> tuple[Way, Way]:
    """Batches of ``size`` in file order; and the same compiled, or batches of like length under a token budget."""
    in_order = Batching(kind="dataset_order", limit=size)
    baseline, other = (Predictor(loaded.model, loaded.inputs, loaded.device, in_order) for _ in range(2))
    chunk = tokenize(loaded.tokenizer, texts, config.profiling.max_length, loaded.inputs)
    if setting == COMPILE:
        if baseline.needs_mask:
            raise UserError("only batches without padding run compiled, and this model's are padded in file order")
        other.compile()
        other.warm_up(chunk)
    else:
        wanted = config.evaluation.max_tokens_per_batch
        other.batching = Batching(kind="token_budget", limit=other.fastest_budget(chunk) if wanted == "auto" else wanted)

    def way(predictor: Predictor) -> Way:
        return lambda: predictor.predict(
            tokenize(loaded.tokenizer, texts, config.profiling.max_length, loaded.inputs)
        ).predicted_ids

    return way(baseline), way(other)
