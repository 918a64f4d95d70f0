"""Time by module: parts add up, and a layer made slow on purpose is found."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pandas as pd
import pytest
import torch

from tests import support
from tests.analysis.test_runner import ENCODERS
from utils.analysis.layers import (
    PARTS_APART,
    layer_index,
    mean_of,
    measure_layers,
    named_in_trace,
    roll_up,
    time_layers,
)

CPU = torch.device("cpu")
TOKENS = torch.ones(2, 16, dtype=torch.long)
BUSY_S = 0.02


def busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def measure(model: Any, passes: int = 3) -> dict[str, Any]:
    model.eval()
    with torch.inference_mode():
        model(input_ids=TOKENS)
        rows, _ = time_layers(model, [partial(model, input_ids=TOKENS)], passes, CPU, [])
    return {row.module: row for row in rows.astype({"layer_index": object}).itertuples()}


def qwen() -> Any:
    return support.Qwen2ForSequenceClassification(support.build_model_config(num_hidden_layers=4))


def test_kinds_and_indices() -> None:
    rows = measure(qwen())
    kinds = {name: (row.kind, None if pd.isna(row.layer_index) else row.layer_index) for name, row in rows.items()}
    assert kinds["(model)"] == kinds["model"] == ("model", None)
    assert kinds["model.embed_tokens"] == ("embedding", None)
    assert kinds["model.layers.2"] == ("layer", 2)
    assert kinds["model.layers.2.self_attn"] == ("attention", 2)
    assert kinds["model.layers.3.self_attn.q_proj"] == ("q_proj", 3)
    assert kinds["model.layers.3.mlp"] == ("mlp", 3)
    assert kinds["model.layers.3.mlp.act_fn"] == ("SiLUActivation", 3)
    assert kinds["model.layers.0.input_layernorm"] == kinds["model.layers.0.post_attention_layernorm"] == ("norm", 0)
    assert kinds["model.rotary_emb"] == ("rotary", None)
    assert kinds["score"] == ("score", None)
    assert layer_index("score") is None


@pytest.mark.parametrize("architecture", ENCODERS)
def test_other_architectures(architecture: str) -> None:
    make, settings = ENCODERS[architecture]
    kinds = {row.kind for row in measure(make(settings)).values()}
    assert {"model", "layer", "norm", "embedding", "score", "Linear"} <= kinds


def test_parts_add_up() -> None:
    rows = measure(qwen())
    parts = sum(row.self_time_ms for row in rows.values())
    assert parts == pytest.approx(rows["(model)"].time_ms, rel=1e-6)
    assert sum(row.share_pct for row in rows.values()) == pytest.approx(100)
    assert all(row.calls == 1 for row in rows.values())


def test_parts_add_up_to_the_forward_without_hooks() -> None:
    """Within 5%, in the best of a few tries: another process may come between the two passes."""
    model = support.Qwen2ForSequenceClassification(support.build_model_config(hidden_size=256, intermediate_size=1024)).eval()
    forward = partial(model, input_ids=TOKENS.repeat(4, 4))

    def apart() -> float:
        warnings: list[str] = []
        table, found = time_layers(model, [forward, forward], 8, CPU, warnings)
        hooks = found["hooks"]
        assert hooks["forward_by_layers_ms"] == pytest.approx(table["self_time_ms"].sum())
        off = abs(hooks["forward_by_layers_ms"] / hooks["forward_ms"] - 1)
        assert bool(warnings) == (off > PARTS_APART), "said where it is more"
        return off

    with torch.inference_mode():
        forward()
        assert any(apart() < 0.05 for _ in range(20))


def test_roll_up() -> None:
    table = pd.DataFrame({"module": list("abc"), "kind": ["norm", "mlp", "norm"],
                          "layer_index": pd.array([1, None, 0], dtype="Int64"), "calls": 1.0,
                          "time_ms": 3.0, "self_time_ms": [1.0, 3.0, 4.0], "share_pct": [12.5, 37.5, 50.0]})
    assert roll_up(table, "kind") == [{"kind": "norm", "self_time_ms": 5.0, "share_pct": 62.5},
                                      {"kind": "mlp", "self_time_ms": 3.0, "share_pct": 37.5}]
    assert [(row["layer_index"], row["self_time_ms"]) for row in roll_up(table, "layer_index")] == [(0, 4.0), (1, 1.0), (None, 3.0)]
    mean = mean_of([table, table.assign(self_time_ms=[3.0, 3.0, 4.0])])
    assert mean["self_time_ms"].tolist() == [2.0, 3.0, 4.0]
    assert mean["share_pct"].tolist() == pytest.approx([200 / 9, 300 / 9, 400 / 9])


def test_a_slow_layer_is_found() -> None:
    model = qwen()
    slow = model.model.layers[2].mlp.down_proj
    forward = slow.forward

    def dragged(*args: Any) -> Any:
        busy(BUSY_S)
        return forward(*args)

    slow.forward = dragged
    rows = measure(model, passes=8)
    worst = max(rows.values(), key=lambda row: row.self_time_ms)
    assert (worst.module, worst.kind, worst.layer_index) == ("model.layers.2.mlp.down_proj", "down_proj", 2)
    assert worst.self_time_ms >= BUSY_S * 1e3 * 0.999
    assert rows["model.layers.2"].time_ms >= worst.self_time_ms


def test_hooks_are_taken_out() -> None:
    """Thousands of calls that do nothing would otherwise be charged to the caller."""

    class Caller(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nothing = torch.nn.Identity()

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            for _ in range(5000):
                self.nothing(input_ids)
            return input_ids

    model = Caller()

    def left_over() -> float:
        rows, cost = measure_layers(model, lambda: model(TOKENS), CPU)
        assert cost.outside_s > 0
        [whole_ms] = rows.loc[rows["module"] == "(model)", "time_ms"]
        return float(whole_ms / (5000 * sum(cost) * 1e3))

    with torch.inference_mode():  # another process may come between calibration and calls
        assert any(left_over() < 1 for _ in range(12)), "what remains is less than what the hooks took"


def test_hooks_are_removed_and_survive_errors() -> None:
    model = qwen()
    with pytest.raises(IndexError), torch.inference_mode():
        measure_layers(model, lambda: model(input_ids=torch.full((1, 4), 10**6)), CPU)
    with named_in_trace(model):
        assert model.model.layers[0]._forward_pre_hooks
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
