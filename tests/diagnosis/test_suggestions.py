"""Suggestions from numbers whose savings were calculated independently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.diagnosis.builders import make_evidence
from utils.config_loader import Config
from utils.diagnosis.findings import Findings, OperatorGroup, PresentSettings
from utils.diagnosis.forecast import Forecast, TimeModel
from utils.diagnosis.suggestions import overhead_evidence, rank_suggestions
from utils.evaluation.batching import MIN_FILL
from utils.schema.diagnosis import Suggestion
from utils.schema.profile import AttentionUse
from utils.settings import EvaluationConfig, ModelConfig, ProfilingConfig

CONFIG = Config(
    profiling=ProfilingConfig(batch_sizes=(1, 4)),
    evaluation=EvaluationConfig(batching="dataset_order"),
)


def make_forecast(lengths: list[int], batch_size: int = 4, **changes: Any) -> Forecast:
    model = {
        "fixed_ms": 1.0,
        "ms_per_token": 0.01,
        "ms_per_pair": 0.0,
        "overlapped": False,
        "error": 0.0,
        "longest_tokens": 4096,
    }
    return Forecast(
        model=TimeModel(**{**model, **changes}),
        lengths=np.array(lengths),
        batch_size=batch_size,
        budgets=(1024,),
        min_fill=MIN_FILL,
    )


def suggest(
    evidence: dict[str, Any], config: Config = CONFIG, **findings: Any
) -> tuple[Suggestion, ...]:
    known = Findings(evidence=make_evidence(**evidence), **findings)
    return rank_suggestions(known, PresentSettings.of(config))


def titles(suggestions: Sequence[Suggestion]) -> list[str]:
    return [suggestion.title for suggestion in suggestions]


def with_title(suggestions: Sequence[Suggestion], title: str) -> Suggestion:
    [suggestion] = [one for one in suggestions if one.title == title]
    return suggestion


def test_padding() -> None:
    # In file order 4 batches of 4 x 400; by length 1600 tokens and 120.
    lengths = [400, 10, 10, 10] * 4
    suggestions = suggest(
        {"forward_ms": 17.0, "padding_fraction": 1 - 430 / 1600}, forecast=make_forecast(lengths)
    )
    padding = with_title(suggestions, "Less padding")
    # Under 1,024 tokens: 2 + 2 rows of 400, then 12 of 10, each batch with a fixed millisecond.
    assert padding.saving_ms == pytest.approx(17 * (1 - (3 + 17.2) / (4 + 64)))
    assert padding.predicted_speedup == pytest.approx(18 / (18 - padding.saving_ms))
    assert padding.setting == "evaluation.batching=token_budget"
    assert (padding.prediction, padding.verification) == ("estimate", None)


def test_a_larger_batch_is_suggested_where_it_is_not_padded() -> None:
    forecast = make_forecast([100] * 16, 1)
    suggestions = suggest({"batch_size": 1, "padding_fraction": 0.0}, forecast=forecast)
    larger = with_title(suggestions, "Larger batches")
    assert (larger.setting, larger.batch_size) == ("profiling.batch_sizes=[1,2,4]", 2)


def test_no_larger_batch_where_its_padding_would_cost_more() -> None:
    forecast = make_forecast([400, 10] * 8, 1)
    suggestions = suggest({"batch_size": 1, "padding_fraction": 0.0}, forecast=forecast)
    assert "Larger batches" not in titles(suggestions)
    small = with_title(suggestions, "Fuller batches")
    assert "in batches of 2 in file order it would be 48.8%" in small.evidence


@pytest.mark.parametrize("known", [{"largest_batch": 2}, {"too_large": 2}])
def test_no_larger_batch_that_the_sweep_has_tried(known: dict[str, int]) -> None:
    forecast = make_forecast([100] * 16, 1)
    assert "Larger batches" not in titles(suggest({"batch_size": 1}, forecast=forecast, **known))


def test_few_long_texts_could_be_truncated() -> None:
    suggestions = suggest({}, forecast=make_forecast([10] * 39 + [500]))
    long = with_title(suggestions, "Shorter texts")
    assert long.setting == "profiling.max_length=16"
    assert "2.5% of the texts are longer" in long.evidence
    assert "Shorter texts" not in titles(suggest({}, forecast=make_forecast([10] * 40)))


def test_prefetching_hides_no_more_than_the_model_takes() -> None:
    suggestions = suggest({"tokenize_ms": 30.0, "op_calls": 0})
    assert titles(suggestions) == ["Faster tokeniser", "Prepare the input in the background"]
    assert [one.saving_ms for one in suggestions] == [30.0, 10.0]
    assert [one.setting for one in suggestions] == [None, None]


def test_on_a_cpu_prefetching_shares_the_cores_with_the_model() -> None:
    on_cpu = with_title(suggest({"op_calls": 0}), "Prepare the input in the background")
    assert on_cpu.prediction == "upper-bound"
    assert "idle" in on_cpu.advice
    # One core tokenises for 6 ms while two cores run the model for 10 ms: 26 ms of work for two.
    shared = suggest(
        {"op_calls": 0, "tokenize_ms": 6.0, "host_to_device_ms": 0.0, "device_to_host_ms": 0.0},
        cpu_threads=2,
    )
    assert with_title(shared, "Prepare the input in the background").saving_ms == pytest.approx(
        6 + 10 - 26 / 2
    )
    on_cuda = {**ON_CUDA, "tokenize_ms": 1.0}
    beside = with_title(suggest(on_cuda), "Prepare the input in the background")
    assert beside.prediction == "estimate"
    assert "idle" not in beside.advice


def test_the_operators_furthest_above_the_ceilings_are_named() -> None:
    groups = (
        OperatorGroup(kind="attention", measured_ms=4.0, attainable_ms=1.0, calls=10),
        OperatorGroup(kind="copy", measured_ms=1.0, attainable_ms=0.5, calls=10),
    )
    eager = Config(model=ModelConfig(attn_implementation="eager"))
    suggestions = suggest({"op_calls": 0}, eager, groups=groups)
    assert titles(suggestions) == [
        "Faster operators: attention",
        "Prepare the input in the background",
        "Store fewer intermediate results",
    ]
    attention = suggestions[0]
    assert attention.saving_ms == pytest.approx(4 - 1 - 0.01)
    assert attention.setting == "model.attn_implementation=sdpa"
    assert attention.prediction == "upper-bound"
    assert "10 calls take 4 ms, where 1 ms are possible, and starting them takes 0.01 ms" in (
        attention.evidence
    )


def test_what_rests_on_less_than_one_call_a_batch_is_rough_and_comes_last() -> None:
    groups = (OperatorGroup(kind="copy", measured_ms=4.0, attainable_ms=1.0, calls=0.4),)
    suggestions = suggest({}, groups=groups)
    assert suggestions[-1].title == "Store fewer intermediate results"
    assert suggestions[-1].caution is not None and "0.4 times a batch" in suggestions[-1].caution
    assert [one.caution for one in suggestions[:-1]] == [None] * (len(suggestions) - 1)


def test_what_is_set_already_is_not_suggested() -> None:
    grouped = Config(profiling=CONFIG.profiling)
    assert grouped.evaluation.batching == "token_budget"
    forecast = make_forecast([400, 10, 10, 10] * 4)
    evidence = {"forward_ms": 17.0, "padding_fraction": 0.7}
    assert "Less padding" in titles(suggest(evidence, forecast=forecast))
    assert "Less padding" not in titles(suggest(evidence, grouped, forecast=forecast))
    half = Config(model=ModelConfig(dtype="bfloat16"))
    suggestions = suggest({}, half, groups=PRODUCTS, product_speedups=SPEEDUPS)
    assert "model.dtype=bfloat16" not in {one.setting for one in suggestions}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"op_calls": 173, "dispatch_us": 4.0}, "173 operators at 4 us each takes 0.692 ms"),
        (
            {"device": "cuda", "device_busy_ms": 3.0},
            "works in 3 of the 10 ms of the forward pass, and waits in the other 7 ms",
        ),
        (
            {"doubling_growth": 0.2},
            "a batch of twice the size takes 20% longer, so that 80% of the 10 ms of the forward"
            " pass does not depend on the size; without the 4 ms that arithmetic and memory need at"
            " best, 4 ms remain",
        ),
        ({"op_calls": 173, "dispatch_us": 90.0}, "takes as long as the whole forward pass: 10 ms"),
    ],
)
def test_the_evidence_of_the_overhead_yields_it(changes: dict[str, Any], expected: str) -> None:
    assert expected in overhead_evidence(make_evidence(**changes))


def math_attention(**changes: Any) -> AttentionUse:
    """Calls of the math kernel in a batch of 4, of which the profiler saw the device's time."""
    settings: dict[str, Any] = {
        "batch_size": 4,
        "kernel": "math",
        "calls": 24.0,
        "measured_ms": 5.0,
        "attainable_ms": 0.5,
        "stored_score_bytes": 2e9,
        "has_grouped_heads": True,
    }
    return AttentionUse(**{**settings, **changes})


ON_CUDA = {"device": "cuda", "device_busy_ms": 9.5, "tokenize_ms": 0.0}


def test_a_fused_kernel_would_save_what_the_math_kernel_takes_beyond_the_ceilings() -> None:
    suggestions = suggest(ON_CUDA, attention=(math_attention(),))
    attention = with_title(suggestions, "Another attention kernel")
    assert attention.saving_ms == pytest.approx(4.5)
    assert (attention.prediction, attention.setting) == ("upper-bound", None)
    assert "repeat the key and value heads" in attention.advice
    assert "2,000.0 MB of scores are stored" in attention.evidence


def test_where_grouped_float32_heads_are_not_the_reason_it_has_to_be_found() -> None:
    bfloat16 = Config(model=ModelConfig(dtype="bfloat16"))
    other_reasons = (
        (math_attention(has_grouped_heads=False), CONFIG),
        (math_attention(), bfloat16),
    )
    for use, config in other_reasons:
        attention = with_title(
            suggest(ON_CUDA, config, attention=(use,)), "Another attention kernel"
        )
        assert "sdpa_kernel" in attention.advice


def test_a_fused_kernel_has_nothing_to_save() -> None:
    flash = math_attention(kernel="flash", attainable_ms=None, stored_score_bytes=0.0)
    unseen = math_attention(measured_ms=None)
    for use in (flash, unseen):
        assert "Another attention kernel" not in titles(suggest(ON_CUDA, attention=(use,)))


def test_a_compiled_model_is_not_compiled_again() -> None:
    groups = (OperatorGroup(kind="copy", measured_ms=1.0, attainable_ms=0.5, calls=10),)
    copies = with_title(suggest({"op_calls": 0}, groups=groups), "Store fewer intermediate results")
    assert copies.setting == "evaluation.compile=true"
    compiled = Config(evaluation=EvaluationConfig(compile=True))
    suggestions = suggest({"op_calls": 5000}, compiled, groups=groups)
    assert {one.setting for one in suggestions} == {None}


def test_fusing_may_save_all_the_time_of_what_it_fuses_not_what_is_above_the_ceilings() -> None:
    """Moving stored results as fast as the memory can still takes what a fused kernel saves."""
    groups = (
        OperatorGroup(kind="element-wise", measured_ms=3.0, attainable_ms=3.0, calls=40),
        OperatorGroup(kind="copy", measured_ms=1.0, attainable_ms=1.0, calls=10),
        OperatorGroup(kind="matrix product", measured_ms=4.0, attainable_ms=4.0, calls=20),
    )
    fused = with_title(suggest(ON_CUDA, groups=groups), "Store fewer intermediate results")
    assert fused.saving_ms == pytest.approx(3 + 1)
    assert fused.prediction == "upper-bound"
    assert fused.setting == "evaluation.compile=true"
    assert "50 calls of copy, element-wise operators take 4 ms" in fused.evidence
    on_cpu = with_title(
        suggest({"op_calls": 0, "dispatch_us": 2.0}, groups=groups),
        "Store fewer intermediate results",
    )
    assert on_cpu.saving_ms == pytest.approx(4 - 50 * 0.002)


PRODUCTS = (OperatorGroup(kind="matrix product", measured_ms=6.0, attainable_ms=6.0, calls=1),)
SPEEDUPS = {"model.dtype=bfloat16": 3.0, "model.matmul_precision=high": 2.0}


def precision_savings(evidence: dict[str, Any], **findings: Any) -> dict[str | None, float]:
    suggestions = suggest(
        {"device": "cuda", **evidence}, groups=PRODUCTS, product_speedups=SPEEDUPS, **findings
    )
    return {one.setting: one.saving_ms for one in suggestions if one.title == "Lower precision"}


def test_precision_speeds_up_products_and_bfloat16_halves_the_bytes() -> None:
    savings = precision_savings({"device_busy_ms": 9.0, "tokenize_ms": 0.0, "copy_limited_ms": 2.0})
    assert savings == {
        "model.dtype=bfloat16": pytest.approx(6 * (1 - 1 / 3) + 1),
        "model.matmul_precision=high": pytest.approx(3),
    }


@pytest.mark.parametrize("device_busy_ms", [4.0, 6.0])
def test_precision_saves_nothing_known_where_the_device_waits(device_busy_ms: float) -> None:
    assert precision_savings({"device_busy_ms": device_busy_ms}) == {}


def test_precision_saves_no_more_than_what_is_not_the_hosts() -> None:
    forecast = make_forecast([100] * 8, fixed_ms=8.0, overlapped=True)
    savings = precision_savings({"device_busy_ms": 6.0}, forecast=forecast)
    assert list(savings.values()) == pytest.approx([2.0, 2.0]), "10 ms less the host's 8"


MODULE_MS = {
    "(model)": 5.0,
    "score": 9.0,
    **{f"model.layers.{index}.mlp": 4.0 if index == 2 else 1.0 for index in range(4)},
    **{f"model.layers.{index}.self_attn": 2.0 + index / 10 for index in range(4)},
}


def test_a_slow_layer_is_compared_with_its_peers() -> None:
    suggestions = suggest({"op_calls": 0}, module_ms=MODULE_MS)
    slow = with_title(suggestions, "Slow layer: model.layers.2.mlp")
    assert slow.saving_ms == pytest.approx(3.0) and slow.prediction == "estimate"


def test_two_peers_or_a_short_excess_make_no_slow_layer() -> None:
    few = {name: ms for name, ms in MODULE_MS.items() if not name.startswith("model.layers.0")}
    few = {name: ms for name, ms in few.items() if not name.startswith("model.layers.1")}
    short = {name: ms / 10 for name, ms in MODULE_MS.items()}
    for module_ms in (few, short, {}):
        assert not any("layer" in title for title in titles(suggest({}, module_ms=module_ms)))


def test_a_slow_layer_on_a_device_that_waits_is_an_upper_bound() -> None:
    suggestions = suggest({"device": "cuda", "device_busy_ms": 5.0}, module_ms=MODULE_MS)
    assert with_title(suggestions, "Slow layer: model.layers.2.mlp").prediction == "upper-bound"


def test_overhead_is_an_upper_bound() -> None:
    [overhead] = suggest({"device": "cuda", "device_busy_ms": 3.0, "tokenize_ms": 0.01})
    assert overhead.title == "Start fewer operators" and overhead.prediction == "upper-bound"
    assert overhead.saving_ms == pytest.approx(7.0)


def test_nothing_is_suggested_that_saves_less_than_a_hundredth() -> None:
    assert suggest({"tokenize_ms": 0.0, "op_calls": 0}, largest_batch=4) == ()
