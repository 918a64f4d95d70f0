"""Suggestions tried for real on the tiny model: right labels, failures that lose nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import support
from tests.diagnosis.builders import make_diagnosis
from utils.config_loader import Config, with_override
from utils.core.errors import ConfigError, UserError
from utils.diagnosis import variants
from utils.diagnosis import verify as module
from utils.diagnosis.diagnosis_settings import DiagnosisSettings
from utils.diagnosis.suggestions import make_suggestion
from utils.diagnosis.verify import check_settings, measure_suggestion, verify
from utils.model_utils import LoadedModel, load_model
from utils.schema.diagnosis import Proposal, Suggestion, load_diagnosis

LONG = "word number " * 40


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Texts of which every fourth is long; short rounds."""
    monkeypatch.setattr(module, "SECONDS", 0.0)
    config = support.small_config(
        tmp_path, tiny_model, "dataset.sample_sizes=[24]", "evaluation.max_tokens_per_batch=512"
    )
    support.write_dataset(
        tmp_path / "data", tuple(LONG if i % 4 == 0 else f"books {i}" for i in range(24))
    )
    return config


@pytest.fixture
def loaded(config: Config) -> LoadedModel:
    return load_model(config)


def suggest(setting: str | None, title: str = "a suggestion", **changes: Any) -> Suggestion:
    """Of twice the speed."""
    batch_size = None
    if setting and "batch_sizes" in setting:
        batch_size = int(setting.rpartition(",")[2][:-1])
    proposal = Proposal(
        title=title,
        cause="",
        saving_ms=1.0,
        advice="",
        evidence="",
        setting=setting,
        batch_size=batch_size,
        **changes,
    )
    return make_suggestion(proposal, 2.0)


@pytest.mark.parametrize(
    "setting",
    [
        "evaluation.batching=token_budget",
        "profiling.batch_sizes=[1,4,8]",
        "profiling.max_length=8",
        "model.dtype=bfloat16",
        "model.attn_implementation=eager",
    ],
)
def test_each_kind_of_setting(loaded: LoadedModel, config: Config, setting: str) -> None:
    tried = measure_suggestion(loaded, DiagnosisSettings.of(config), 4, suggest(setting))
    assert (
        tried.reason is None
        and tried.setting == setting
        and tried.num_texts == 24
        and tried.num_rounds >= 5
    )
    low, high = tried.ci95
    assert low < tried.measured_speedup < high
    assert tried.prediction_error == pytest.approx(2 / tried.measured_speedup - 1)
    assert 0 <= tried.label_agreement <= 1
    if "max_length" not in setting and "dtype" not in setting:
        assert tried.label_agreement == 1


def test_what_a_setting_changes_is_what_is_measured(loaded: LoadedModel, config: Config) -> None:
    """A forward that takes as long as it has tokens: known speed-ups."""
    sound = loaded.model.forward

    def by_tokens(*args: Any, **kwargs: Any) -> Any:
        time.sleep(kwargs["input_ids"].numel() * 2e-4)  # the workload itself
        return sound(*args, **kwargs)

    loaded.model.forward = by_tokens
    shortened = measure_suggestion(
        loaded,
        DiagnosisSettings.of(config),
        4,
        suggest("profiling.max_length=16", prediction="upper-bound"),
    )
    assert 2.5 < shortened.measured_speedup <= 4.2, "64 tokens a text, then 16"
    assert shortened.prediction_error is None, "an upper bound is no prediction"
    grouped = measure_suggestion(
        loaded, DiagnosisSettings.of(config), 4, suggest("evaluation.batching=token_budget")
    )
    assert 2 < grouped.measured_speedup < 4, "in file order every batch has a long text"


def test_a_changed_precision_does_not_stay(loaded: LoadedModel, config: Config) -> None:
    seen = []
    loaded.model.register_forward_pre_hook(
        lambda *_: seen.append(torch.get_float32_matmul_precision())
    )
    assert (
        measure_suggestion(
            loaded, DiagnosisSettings.of(config), 4, suggest("model.matmul_precision=high")
        ).reason
        is None
    )
    assert set(seen) == {"highest"}, "the baseline never runs under the changed setting"
    assert torch.get_float32_matmul_precision() == "highest"


def planted(*_: Any) -> Any:
    raise torch.OutOfMemoryError("planted")


def test_failures_lose_nothing(
    loaded: LoadedModel, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "load_classifier", planted)
    suggestions = (
        suggest("model.dtype=bfloat16", "first"),
        suggest(None, "second"),
        suggest("profiling.batch_sizes=[1,4,400]", "third"),
        suggest("model.dtype=bfloat16", "the first again"),
        suggest("evaluation.batching=token_budget", "fourth"),
        suggest("profiling.max_length=8", "fifth"),
    )
    diagnosis = make_diagnosis(suggestions)
    verified = verify(loaded, DiagnosisSettings.of(config), diagnosis)
    by_title = {one.title: one.verification for one in verified.all_suggestions}
    first, second, third, again, fourth, fifth = (by_title[one.title] for one in suggestions)
    assert first is not None and first.measured_speedup is None
    assert first.reason == "it does not fit into memory beside the baseline's model"
    assert second is not None and second.reason == "no matching setting"
    assert third is not None
    assert third.reason == "DataError: The data set has 24 texts, a batch would hold 400."
    assert again is None, "the same setting is tried once"
    assert fourth is not None and fourth.measured_speedup is not None
    assert fifth is None, "three settings are tried, those that fail too"
    written = json.loads(config.files.bottlenecks.read_text())
    assert written["verified_at"] and "First to try: " in written["main_bottleneck"]
    assert load_diagnosis(config.files.bottlenecks).to_dict() == verified.to_dict()


def test_changed_settings_are_checked(config: Config) -> None:
    assert with_override(config, "profiling.batch_sizes=[1,4,8]").profiling.batch_sizes == (1, 4, 8)
    assert with_override(config, "model.dtype=float32") == config
    with pytest.raises(ConfigError, match="dtype cannot be 'float8'"):
        with_override(config, "model.dtype=float8")


def test_settings_of_the_users_choice_are_tried(loaded: LoadedModel, config: Config) -> None:
    settings = DiagnosisSettings.of(config)
    diagnosis = make_diagnosis((suggest("profiling.max_length=8"),))
    chosen = ("profiling.batch_sizes=[1,8]", "evaluation.batching=token_budget")
    check_settings(settings, chosen)
    verified = verify(loaded, settings, diagnosis, chosen)
    assert [one.setting for one in verified.tried_settings] == list(chosen)
    for tried in verified.tried_settings:
        assert tried.reason is None and tried.predicted_speedup is None
        assert (tried.label_agreement, tried.num_label_texts) == (1.0, 24)
        low, high = tried.label_agreement_ci95
        assert low < 0.9 and high == 1.0, "24 texts are few"
    assert verified.all_suggestions == diagnosis.all_suggestions, "they were not asked for"
    assert load_diagnosis(config.files.bottlenecks).to_dict() == verified.to_dict()


@pytest.mark.parametrize(
    "setting", ["evaluation.chunk_rows=4", "cost.gpu_price_per_hour_usd=1", "model.dtype"]
)
def test_settings_that_cannot_be_tried_are_refused(config: Config, setting: str) -> None:
    with pytest.raises(UserError, match="--verify cannot try"):
        check_settings(DiagnosisSettings.of(config), [setting])


def test_a_value_that_is_not_allowed_is_refused(config: Config) -> None:
    with pytest.raises(ConfigError, match="dtype cannot be 'float8'"):
        check_settings(DiagnosisSettings.of(config), ["model.dtype=float8"])


def test_labels_are_compared_on_more_texts_than_are_timed(
    loaded: LoadedModel, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "SECONDS_A_PASS", 0.0)
    settings = DiagnosisSettings.of(config)
    tried = measure_suggestion(loaded, settings, 4, suggest("model.attn_implementation=eager"))
    assert (tried.num_texts, tried.num_label_texts) == (4, 24)
