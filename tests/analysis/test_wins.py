"""Wins and forecasts from numbers whose answers are worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.analysis.test_verdict import evidence
from utils.analysis.forecast import Forecast, TimeModel, fit
from utils.analysis.wins import Group, Win, find_wins
from utils.config_loader import Config, EvaluationConfig, ModelConfig, ProfilingConfig

CONFIG = Config(profiling=ProfilingConfig(batch_sizes=(1, 4)))


def titles(wins: list[Win]) -> list[str]:
    return [win["title"] for win in wins]


def forecast(lengths: list[int], batch_size: int = 4, **changes: Any) -> Forecast:
    model = {"fixed_ms": 1.0, "ms_per_token": 0.01, "ms_per_pair": 0.0, "overlapped": False, "error": 0.0, "longest_tokens": 4096}
    return Forecast(model=TimeModel(**{**model, **changes}), lengths=np.array(lengths), batch_size=batch_size, budgets=(1024,))


def test_a_fit_gives_back_what_the_times_were_made_of() -> None:
    shapes = [(1, 10), (1, 100), (8, 100), (8, 500), (32, 200)]
    summed = fit(((b, n, 2 + 0.01 * b * n + 1e-5 * b * n * n) for b, n in shapes), "cuda")
    assert summed is not None and not summed.overlapped and summed.error < 1e-6 and summed.longest_tokens == 6400
    assert (summed.fixed_ms, summed.ms_per_token, summed.ms_per_pair) == pytest.approx((2, 0.01, 1e-5))
    hidden = [(b, n, max(20, 0.01 * b * n)) for b, n in shapes]
    disturbed = fit(((b, n, (3 if (b, n) == (8, 100) else 1) * (2 + 0.01 * b * n)) for b, n in shapes), "cpu")
    assert disturbed is not None and disturbed.fixed_ms == pytest.approx(2, rel=0.02)
    assert disturbed.ms_per_token == pytest.approx(0.01, rel=0.02), "one disturbed time of five"
    side_by_side, in_turn = fit(hidden, "cuda"), fit(hidden, "cpu")
    assert in_turn is not None and not in_turn.overlapped, "a CPU does nothing beside itself"
    assert side_by_side is not None and side_by_side.overlapped and side_by_side.error < 1e-6
    assert (side_by_side.fixed_ms, side_by_side.ms_per_token) == pytest.approx((20, 0.01))
    assert fit([(1, 10, 1.0), (1, 10, 2.0), (1, 20, 1.0), (1, 30, 1.0)], "cpu") is None, "three shapes"


def test_padding() -> None:
    lengths = [400, 10, 10, 10] * 4  # in file order 4 batches of 4 x 400; by length 1600 tokens and 120
    found = evidence(forward_ms=17.0, padding_fraction=1 - 430 / 1600)
    [win] = [win for win in find_wins(found, CONFIG, forecast=forecast(lengths)) if win["title"] == "padding"]
    # Under 1,024 tokens: 2 + 2 rows of 400, then 12 of 10, each batch with a fixed millisecond.
    assert win["win_ms"] == pytest.approx(17 * (1 - (3 + 17.2) / (4 + 64)))
    assert win["predicted_speedup"] == pytest.approx(18 / (18 - win["win_ms"]))
    assert (win["setting"], win["prediction"], win["verified"]) == ("evaluation.batching=token_budget", "estimate", None)


def test_no_larger_batch_where_padding_would_eat_it() -> None:
    even, uneven = [100] * 16, [400, 10] * 8
    kept = find_wins(evidence(batch_size=1, padding_fraction=0.0), CONFIG, forecast=forecast(even, 1))
    assert "profiling.batch_sizes=[1,2,4]" in [win["setting"] for win in kept]
    eaten = find_wins(evidence(batch_size=1, padding_fraction=0.0), CONFIG, forecast=forecast(uneven, 1))
    assert "small batches" in titles(eaten) and "batch size" not in titles(eaten)
    assert "in file order it would be 48.8%" in eaten[titles(eaten).index("small batches")]["evidence"]
    for known in ({"largest": 2}, {"too_large": 2}):
        assert "batch size" not in titles(find_wins(evidence(batch_size=1), CONFIG, forecast=forecast(even, 1), **known)), known


def test_long_texts() -> None:
    [win] = [win for win in find_wins(evidence(), CONFIG, forecast=forecast([10] * 39 + [500])) if win["title"] == "long texts"]
    assert win["setting"] == "profiling.max_length=16" and "2.5% of the texts are longer" in win["evidence"]
    assert "long texts" not in titles(find_wins(evidence(), CONFIG, forecast=forecast([10] * 40)))


def test_input() -> None:
    wins = find_wins(evidence(tokenize_ms=30.0, op_calls=0), CONFIG)
    assert titles(wins) == ["slow tokeniser", "tokenising and copying"]
    assert [win["win_ms"] for win in wins] == [30.0, 10.0], "prefetching hides no more than the model takes"
    assert [win["setting"] for win in wins] == [None, None]


def test_operators() -> None:
    groups = (Group(kind="attention", measured_ms=4.0, attainable_ms=1.0, calls=10),
              Group(kind="copy", measured_ms=1.0, attainable_ms=0.5, calls=10))
    wins = find_wins(evidence(op_calls=0), Config(model=ModelConfig(attn_implementation="eager")), groups=groups)
    assert titles(wins) == ["slow operators: attention", "tokenising and copying"]
    assert wins[0]["win_ms"] == pytest.approx(4 - 1 - 0.01)
    assert (wins[0]["setting"], wins[0]["prediction"]) == ("model.attn_implementation=sdpa", "at most")
    [copies] = [win for win in find_wins(evidence(op_calls=0), CONFIG, groups=groups[1:]) if "operators: copy" in win["title"]]
    assert copies["setting"] == "evaluation.compile=true"
    compiled = Config(evaluation=EvaluationConfig(compile=True))
    assert {win["setting"] for win in find_wins(evidence(op_calls=5000), compiled, groups=groups[1:])} == {None}


def test_precision() -> None:
    groups = (Group(kind="matrix product", measured_ms=6.0, attainable_ms=6.0, calls=1),)
    faster = {"model.dtype=bfloat16": 3.0, "model.matmul_precision=high": 2.0}
    found = evidence(device="cuda", device_busy_ms=9.0, tokenize_ms=0.0, copy_limited_ms=2.0)
    wins = {win["setting"]: win["win_ms"] for win in find_wins(found, CONFIG, groups=groups, faster_products=faster)}
    assert wins["model.dtype=bfloat16"] == pytest.approx(6 * (1 - 1 / 3) + 1)
    assert wins["model.matmul_precision=high"] == pytest.approx(3)
    idle = evidence(device="cuda", device_busy_ms=4.0)
    assert "precision" not in titles(find_wins(idle, CONFIG, groups=groups, faster_products=faster)), "the host decides"
    waits = evidence(device="cuda", device_busy_ms=6.0)
    assert "precision" not in titles(find_wins(waits, CONFIG, groups=groups, faster_products=faster)), "who waits is not known"
    launched = forecast([100] * 8, fixed_ms=8.0, overlapped=True)
    capped = find_wins(waits, CONFIG, groups=groups, faster_products=faster, forecast=launched)
    assert [win["win_ms"] for win in capped if win["title"] == "precision"] == pytest.approx([2.0, 2.0]), "10 ms less the host's 8"


def test_a_slow_layer() -> None:
    layers = [("(model)", 5.0), ("score", 9.0), *((f"model.layers.{i}.mlp", 4.0 if i == 2 else 1.0) for i in range(4)),
              *((f"model.layers.{i}.self_attn", 2.0 + i / 10) for i in range(4))]
    [win] = [win for win in find_wins(evidence(op_calls=0), CONFIG, layers=layers) if "layer" in win["title"]]
    assert win["title"] == "slow layer: model.layers.2.mlp" and win["win_ms"] == pytest.approx(3.0)
    few, short = layers[:4], [(name, ms / 10) for name, ms in layers]
    assert not any("layer" in win["title"] for some in (few, short) for win in find_wins(evidence(), CONFIG, layers=some))


def test_overhead_and_nothing() -> None:
    wins = find_wins(evidence(device="cuda", device_busy_ms=3.0, tokenize_ms=0.01), CONFIG)
    assert titles(wins) == ["overhead"] and wins[0]["win_ms"] == pytest.approx(7.0) and wins[0]["prediction"] == "at most"
    assert find_wins(evidence(tokenize_ms=0.0, op_calls=0), CONFIG, largest=4, too_large=math.inf) == []
