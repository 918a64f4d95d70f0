"""What the present settings do already, which is therefore never suggested."""

from __future__ import annotations

import yaml

from utils.core.rounding import round_value
from utils.diagnosis.findings import PresentSettings
from utils.schema.baseline import EVALUATION_ROAD
from utils.schema.diagnosis import Suggestion, Verification
from utils.schema.evaluation import BatchingComparison, EvaluationMetrics

TOKEN_BUDGET = "evaluation.batching=token_budget"


def is_applied(setting: str | None, settings: PresentSettings) -> bool:
    """Whether ``section.key=VALUE`` is what the settings have."""
    key, _, value = (setting or "").partition("=")
    section, _, name = key.partition(".")
    present = getattr(getattr(settings, section, None), name, None)
    if present is None:
        return False
    suggested = yaml.safe_load(value)
    if isinstance(suggested, list):
        suggested = tuple(suggested)
    return bool(present == suggested)


def describe_applied(
    settings: PresentSettings, evaluation: EvaluationMetrics | None
) -> tuple[str, ...]:
    """Each measure that the optimised evaluation takes already, and what it was measured to bring.

    Args:
        evaluation: that of step 02; None where it has not run, or with another model.
    """
    sentences = []
    if settings.evaluation.batching == "token_budget":
        gain = "what that brings is measured with evaluation.compare_batching=true"
        comparison = None if evaluation is None else evaluation.batching_comparison
        if comparison is not None:
            gain = (
                f"measured: {round_value(comparison.speedup).value} times as fast as batches of "
                f"{comparison.batch_size} in file order"
            )
        sentences.append(
            f"The {EVALUATION_ROAD} groups texts of similar length ({TOKEN_BUDGET}); {gain}."
        )
    if settings.evaluation.compile:
        gain = "what that brings was not measured"
        compiled = None if evaluation is None else evaluation.compile_comparison
        if compiled is not None:
            speedup = round_value(compiled.speedup).value
            gain = f"measured: {speedup} times as fast as not compiled"
        sentences.append(
            f"The {EVALUATION_ROAD} runs the compiled model (evaluation.compile=true); {gain}."
        )
    return tuple(sentences)


def with_measured(suggestion: Suggestion, evaluation: EvaluationMetrics | None) -> Suggestion:
    """The suggestion with what step 02 has measured of it, which replaces the prediction."""
    if suggestion.setting != TOKEN_BUDGET or evaluation is None:
        return suggestion
    comparison = evaluation.batching_comparison
    if comparison is None:
        return suggestion
    verification = _verification(suggestion, comparison)
    return suggestion.model_copy(update={"verification": verification})


def _verification(suggestion: Suggestion, comparison: BatchingComparison) -> Verification:
    return Verification(
        setting=suggestion.setting,
        predicted_speedup=suggestion.predicted_speedup,
        measured_speedup=comparison.speedup,
        label_agreement=comparison.label_agreement,
        num_texts=comparison.num_rows,
        num_rounds=comparison.rounds,
    )
