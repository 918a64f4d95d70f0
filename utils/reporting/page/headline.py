"""The first sentences of the page: what was measured, how fast, how accurate, and what to try."""

from __future__ import annotations

from utils.core.rounding import round_value
from utils.reporting import roads
from utils.reporting.page.cards import accuracy_percent, main_diagnosis
from utils.reporting.page.trials import (
    first_suggestion,
    is_faster,
    measured_text,
    prediction_text,
)
from utils.reporting.page.verdicts import VERDICTS
from utils.reporting.page.visible import make_visible
from utils.reporting.results import Results
from utils.reporting.run_facts import model_title
from utils.schema.diagnosis import Suggestion

LONGEST_NAME = 80


def headline(results: Results) -> str:
    """What a reader should know who reads nothing else."""
    sentences = [_speed_sentence(results)]
    sentences += _limit_sentences(results)
    return " ".join(sentences)


def _speed_sentence(results: Results) -> str:
    model = results.metrics.model_info
    name = make_visible(model_title(model, LONGEST_NAME), LONGEST_NAME)
    place = "the GPU" if results.on_gpu else "the CPU"
    subject = f"On {place}, {name} ({model.dtype})"
    fastest = roads.fastest_speed(results)
    if fastest is None:
        return f"{subject} was not measured: no batch size finished."
    rate = round_value(fastest.samples_per_s, fastest.low, fastest.high).value
    text = f"{subject} classifies up to {rate} texts a second ({fastest.road})"
    one_text_ms = results.batch1_p50_ms
    if one_text_ms is not None:
        text += f" and takes {round_value(one_text_ms).value} ms for one text alone"
        row = roads.row_of(results, 1)
        if row is not None and row.stable is False:
            text += " (not stable)"
    return f"{text}{_accuracy_clause(results)}."


def _accuracy_clause(results: Results) -> str:
    evaluation = results.evaluation
    if evaluation is None or evaluation.accuracy is None:
        return ""
    return f"; {accuracy_percent(evaluation).value}% of its predictions are right"


def _limit_sentences(results: Results) -> list[str]:
    diagnosis = results.diagnosis
    if diagnosis is None:
        return ["What limits it was not measured: step 03 has not run."]
    sentences = []
    item = main_diagnosis(results, diagnosis)
    if item is not None:
        meaning = VERDICTS[item.verdict].meaning
        sentences.append(f"At batch size {item.batch_size} it is limited by {meaning}.")
    suggestion = first_suggestion(results)
    if suggestion is not None:
        start = "Try first"
        # What was measured in turn with the present settings holds all the same.
        if roads.is_noisy(results) and not is_faster(suggestion):
            start = "Measure again first, because no time is stable; then try"
        sentences.append(f"{start}: {suggestion.advice} ({_gain(results, suggestion)}).")
    return sentences


def _gain(results: Results, suggestion: Suggestion) -> str:
    """What a suggestion brings: what was measured replaces what was predicted."""
    if is_faster(suggestion):
        return f"measured: {measured_text(suggestion)}"
    text = prediction_text(suggestion)
    if roads.is_noisy(results):
        text += "; a rough estimate, because the times are not stable"
    return text
