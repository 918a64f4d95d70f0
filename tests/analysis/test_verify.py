"""Suggestions tried for real on the tiny model: right answers, failures that lose nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import support
from utils.analysis import verify as module
from utils.analysis.verify import try_win, verify
from utils.config_loader import Config, changed
from utils.core.errors import ConfigError
from utils.model_utils import LoadedModel, load_model

LONG = "word number " * 40


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Texts of which every fourth is long; short rounds."""
    monkeypatch.setattr(module, "SECONDS", 0.0)
    config = support.small_config(tmp_path, tiny_model, "dataset.sample_sizes=[24]", "evaluation.max_tokens_per_batch=512")
    support.write_dataset(tmp_path / "data", tuple(LONG if i % 4 == 0 else f"books {i}" for i in range(24)))
    return config


@pytest.fixture
def loaded(config: Config) -> LoadedModel:
    return load_model(config)


def win(setting: str | None, title: str = "a win", **changes: Any) -> dict[str, Any]:
    sizes = {"batch_size": int(setting.rpartition(",")[2][:-1])} if setting and "batch_sizes" in setting else {}
    return {"title": title, "setting": setting, "predicted_speedup": 2.0, "prediction": "estimate", **sizes, **changes}


@pytest.mark.parametrize("setting", [
    "evaluation.batching=token_budget", "profiling.batch_sizes=[1,4,8]", "profiling.max_length=8", "model.dtype=bfloat16",
    "model.attn_implementation=eager",
])
def test_each_kind_of_setting(loaded: LoadedModel, config: Config, setting: str) -> None:
    tried = try_win(loaded, config, 4, win(setting))
    assert tried["reason"] is None and tried["setting"] == setting and tried["num_texts"] == 24 and tried["rounds"] >= 5
    low, high = tried["ci95"]
    assert low < tried["measured_speedup"] < high
    assert tried["prediction_error"] == pytest.approx(2 / tried["measured_speedup"] - 1)
    assert 0 <= tried["label_agreement"] <= 1
    if "max_length" not in setting and "dtype" not in setting:
        assert tried["label_agreement"] == 1


def test_what_a_setting_changes_is_what_is_measured(loaded: LoadedModel, config: Config) -> None:
    """A forward that takes as long as it has tokens: known speed-ups."""
    sound = loaded.model.forward

    def by_tokens(*args: Any, **kwargs: Any) -> Any:
        time.sleep(kwargs["input_ids"].numel() * 2e-4)  # the workload itself
        return sound(*args, **kwargs)

    loaded.model.forward = by_tokens
    cut = try_win(loaded, config, 4, win("profiling.max_length=16", prediction="at most"))
    assert 2.5 < cut["measured_speedup"] <= 4.2, "64 tokens a text, then 16"
    assert cut["prediction_error"] is None, "an upper end is no prediction"
    grouped = try_win(loaded, config, 4, win("evaluation.batching=token_budget"))
    assert 2 < grouped["measured_speedup"] < 4, "in file order every batch has a long text"


def test_a_changed_precision_does_not_stay(loaded: LoadedModel, config: Config) -> None:
    seen = []
    loaded.model.register_forward_pre_hook(lambda *_: seen.append(torch.get_float32_matmul_precision()))
    assert try_win(loaded, config, 4, win("model.matmul_precision=high"))["reason"] is None
    assert set(seen) == {"highest"}, "the baseline never runs under the changed setting"
    assert torch.get_float32_matmul_precision() == "highest"


def planted(*_: Any) -> Any:
    raise torch.OutOfMemoryError("planted")


def test_failures_lose_nothing(loaded: LoadedModel, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_model", planted)
    found = {
        "detail_batch_size": 4, "verified_at": None, "kept": "as it was",
        "wins": [win("model.dtype=bfloat16", "first"), win(None, "second"), win("profiling.batch_sizes=[1,4,400]", "third")],
        "further_wins": [win("model.dtype=bfloat16", "the first again"), win("evaluation.batching=token_budget", "fourth"),
                         win("profiling.max_length=8", "fifth")],
    }
    verified = verify(loaded, config, found)
    first, second, third = (one["verified"] for one in verified["wins"])
    assert (first["reason"], first["measured_speedup"]) == ("it does not fit into memory beside the baseline's model", None)
    assert second["reason"] == "no setting of ours tries it"
    assert third["reason"] == "DataError: The data set has 24 texts, a batch would hold 400."
    again, fourth, fifth = (one["verified"] for one in verified["further_wins"])
    assert again is None, "the same setting is tried once"
    assert fourth["measured_speedup"] is not None and fifth is None, "three settings are tried, those that fail too"
    written = json.loads(config.files.bottlenecks.read_text())
    assert written["kept"] == "as it was" and written["wins"] == verified["wins"] and written["verified_at"]


def test_changed_settings_are_checked(config: Config) -> None:
    assert changed(config, "profiling.batch_sizes=[1,4,8]").profiling.batch_sizes == (1, 4, 8)
    assert changed(config, "model.dtype=float32") == config
    with pytest.raises(ConfigError, match="dtype cannot be 'float8'"):
        changed(config, "model.dtype=float8")
