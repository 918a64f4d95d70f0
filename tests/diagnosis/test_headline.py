"""The diagnosis in a few sentences, and what the settings do already."""

from __future__ import annotations

from typing import Any

from tests.diagnosis.builders import make_evidence
from utils.config_loader import Config
from utils.diagnosis.applied import describe_applied, is_applied
from utils.diagnosis.bottleneck import classify_bottleneck
from utils.diagnosis.findings import PresentSettings
from utils.diagnosis.headline import main_bottleneck_text, rank
from utils.diagnosis.suggestions import make_suggestion
from utils.schema.diagnosis import Proposal, Suggestion, Verification
from utils.settings import EvaluationConfig, ProfilingConfig

VERDICT = classify_bottleneck(make_evidence())


def suggestion(title: str, saving_ms: float = 1.0, **changes: Any) -> Suggestion:
    proposal = Proposal(
        title=title, cause="why", saving_ms=saving_ms, advice=f"do {title}", evidence="", **changes
    )
    return make_suggestion(proposal, 10.0)


def measured(title: str, speedup: float, ci95: tuple[float, float]) -> Suggestion:
    verification = Verification(measured_speedup=speedup, ci95=ci95)
    return suggestion(title).model_copy(update={"verification": verification})


def test_what_is_worth_a_try_comes_first() -> None:
    suggestions = [
        measured("in vain", 1.02, (0.98, 1.06)),
        suggestion("rough", 9.0, caution="too few calls"),
        suggestion("bound", 8.0, prediction="upper-bound"),
        suggestion("estimate", 2.0),
        suggestion("larger estimate", 3.0),
        measured("faster", 1.4, (1.3, 1.5)),
    ]
    assert [one.title for one in sorted(suggestions, key=rank)] == [
        "faster",
        "larger estimate",
        "estimate",
        "bound",
        "rough",
        "in vain",
    ]


def test_the_first_suggestion_is_the_first_to_try() -> None:
    text = main_bottleneck_text(VERDICT, None, [suggestion("one", 2.0), suggestion("two", 9.0)])
    assert text.startswith("In the batch-size sweep: Batch size 4 ")
    assert "First to try: do one (predicted to save about 20% of the time of a batch)." in text


def test_what_was_measured_replaces_what_was_predicted() -> None:
    faster = measured("one", 1.4, (1.3, 1.5))
    text = main_bottleneck_text(VERDICT, None, [faster])
    assert "measured: 1.40 times as fast" in text and "predicted" not in text
    vain = measured("one", 1.02, (0.9, 1.1))
    assert "made nothing measurably faster" in main_bottleneck_text(VERDICT, None, [vain])


def test_on_a_noisy_machine_measuring_again_comes_before_a_prediction() -> None:
    text = main_bottleneck_text(VERDICT, None, [suggestion("one", 2.0)], is_noisy=True)
    assert "Measure again first, because no time is stable; then try: do one (predicted" in text
    faster = measured("one", 1.4, (1.3, 1.5))
    assert "First to try" in main_bottleneck_text(VERDICT, None, [faster], is_noisy=True)


def test_doubts_stand_beside_the_confidence() -> None:
    doubted = VERDICT.model_copy(update={"confidence": "low", "doubts": ("a", "b")})
    assert "Confidence: low, because a; b." in main_bottleneck_text(doubted, None, [])


def test_what_the_settings_do_already_is_known() -> None:
    settings = PresentSettings.of(
        Config(
            profiling=ProfilingConfig(batch_sizes=(1, 4)), evaluation=EvaluationConfig(compile=True)
        )
    )
    assert is_applied("evaluation.batching=token_budget", settings)
    assert is_applied("profiling.batch_sizes=[1,4]", settings)
    assert not is_applied("profiling.batch_sizes=[1,4,8]", settings)
    assert not is_applied("model.dtype=bfloat16", settings)
    assert not is_applied(None, settings)
    grouping, compiling = describe_applied(settings, None)
    assert "groups texts of similar length" in grouping and "compiled model" in compiling
