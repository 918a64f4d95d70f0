"""The diagnosis from measurement to file, on tiny models."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tests import support
from tests.diagnosis.builders import ENCODERS, sweep_row, write_metrics
from tests.small_tokenizers import RecordingTokenizer
from utils.core.errors import UserError
from utils.diagnosis import diagnose as diagnosis
from utils.diagnosis.diagnose import diagnose
from utils.diagnosis.diagnosis_settings import DiagnosisSettings
from utils.model_utils import LoadedModel, load_model
from utils.schema.diagnosis import load_diagnosis


@pytest.fixture(scope="module")
def loaded(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(support.small_config(tmp_path_factory.mktemp("load"), tiny_model))


def test_a_size_that_does_not_fit_is_left_out(
    tmp_path: Path, tiny_model: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = support.small_config(tmp_path, tiny_model, "profiling.trace_steps=1")
    sound = diagnosis.measure_batch_size

    def short_of_memory(*args: Any) -> Any:
        if args[2] == 4:
            raise torch.OutOfMemoryError("planted")
        return sound(*args)

    monkeypatch.setattr(diagnosis, "measure_batch_size", short_of_memory)
    result = diagnose(loaded, DiagnosisSettings.of(config))
    assert [size.batch_size for size in result.batch_sizes] == [1]
    assert result.detail_batch_size == 1
    assert any("batch size 4 does not fit" in warning for warning in result.warnings)
    assert config.files.ceilings.exists()
    config = support.small_config(tmp_path, tiny_model, "profiling.batch_sizes=[4]")
    with pytest.raises(UserError, match="No batch size fits"):
        diagnose(loaded, DiagnosisSettings.of(config))


def test_every_batch_size_is_timed_before_the_first_is_traced(
    tmp_path: Path, tiny_model: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CUDA a trace makes all later launches slower."""
    order: list[tuple[str, int]] = []
    measure = diagnosis.measure_batch_size

    def measure_and_note(*args: Any) -> Any:
        order.append(("timed", args[2]))
        return measure(*args)

    def observe_and_note(measured: Any) -> Any:
        order.append(("traced", measured.evidence.batch_size))
        return measured

    monkeypatch.setattr(diagnosis, "measure_batch_size", measure_and_note)
    monkeypatch.setattr(diagnosis, "observe_device", observe_and_note)
    settings = "profiling.trace_steps=1", "profiling.batch_sizes=[1, 2]"
    diagnose(loaded, DiagnosisSettings.of(support.small_config(tmp_path, tiny_model, *settings)))
    assert order == [("timed", 1), ("timed", 2), ("traced", 1), ("traced", 2)]


THROUGHPUT = "throughput_samples_per_sec_mean"


def measured_row(size: int, rate: float, padding_fraction: float) -> dict[str, Any]:
    changes = {THROUGHPUT: rate, "padding_fraction": padding_fraction}
    return sweep_row(size, sample_size=8, **changes)


def test_the_sweep_decides_where_larger_batches_stop_helping(
    tmp_path: Path, tiny_model: Path, loaded: LoadedModel
) -> None:
    config = support.small_config(tmp_path, tiny_model, "profiling.trace_steps=1")
    rows = []
    for size, rate, padding in ((1, 100.0, 0.0), (2, 200.0, 0.1), (4, 190.0, 0.6)):
        rows.append(measured_row(size, rate, padding))
    smaller_sample = {**measured_row(1, 1e6, 0.0), "sample_size": 4}
    out_of_memory = sweep_row(8, status="oom", sample_size=8, **{THROUGHPUT: None})
    write_metrics(config, smaller_sample, *rows, out_of_memory, optimal=2)
    result = diagnose(loaded, DiagnosisSettings.of(config))
    for size in (1, 4):
        folder = config.files.traces_dir / f"batch_{size}"
        names = {file.name for file in folder.iterdir()}
        assert names == {"trace.json", "stacks.txt", "operators.csv"}
    assert result.detail_batch_size == 2
    assert [size.batch_size for size in result.batch_sizes] == [1, 2, 4]
    saturation = result.saturation
    assert saturation is not None
    assert (saturation.batch_size, saturation.limited_by) == (2, "padding")
    assert saturation.source == "the sweep"
    assert saturation.sentence in result.main_bottleneck
    assert "Confidence: " in result.main_bottleneck
    titles = [suggestion.title for suggestion in result.all_suggestions]
    assert "Larger batches" not in titles, "the sweep has tried 4"
    assert load_diagnosis(config.files.bottlenecks).to_dict() == result.to_dict()


def test_a_sweep_of_another_model_is_not_used(
    tmp_path: Path, tiny_model: Path, loaded: LoadedModel
) -> None:
    config = support.small_config(tmp_path, tiny_model, "profiling.trace_steps=1")
    other = support.small_config(tmp_path, tiny_model, "model.attn_implementation=eager")
    write_metrics(other, measured_row(1, 1e6, 0.0), optimal=1)
    saturation = diagnose(loaded, DiagnosisSettings.of(config)).saturation
    assert saturation is not None and saturation.source is not None
    assert saturation.source.startswith("the forward passes of the sample")


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_model_that_is_no_qwen2(kind: str, tmp_path: Path) -> None:
    """Kinds fall back to class names, and nothing that is unknown counts as none."""
    make, architecture = ENCODERS[kind]
    make(architecture).save_pretrained(tmp_path / "model")
    support.build_tokenizer().save_pretrained(tmp_path / "model")
    config = support.small_config(tmp_path, tmp_path / "model", "profiling.trace_steps=1")
    model = load_model(config)
    result = diagnose(
        replace(model, tokenizer=support.build_tokenizer()), DiagnosisSettings.of(config)
    )
    assert [size.batch_size for size in result.batch_sizes] == [1, 4]
    assert result.suggestions
    for size in result.batch_sizes:
        evidence = size.evidence
        products = 2 * 3 * 32 * 64 * evidence.batch_size
        assert evidence.flops > products, "the layers' products at least"
        if evidence.unknown_operators and size.verdict != "input-bound":
            assert size.confidence == "low"
    layers = pd.read_csv(config.files.layers)
    assert "Linear" in set(layers["kind"]), (
        "kinds that only a Qwen2 has names for fall back to the class"
    )
    assert set(layers["layer_index"].dropna()) == {0, 1, 2}
    assert pd.read_csv(config.files.operators)["flops"].sum() > 0


def test_the_batches_of_the_diagnosis_run_without_the_tokenizers_threads(
    tmp_path: Path, tiny_model: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    config = support.small_config(tmp_path, tiny_model, "profiling.trace_steps=1")
    recording = RecordingTokenizer(loaded.tokenizer)
    diagnose(replace(loaded, tokenizer=recording), DiagnosisSettings.of(config))
    # Texts are checked before the batches are measured.
    first = recording.recorded.index("false")
    assert set(recording.recorded[first:]) == {"false"}
    assert len(recording.recorded[first:]) > 10
    assert "TOKENIZERS_PARALLELISM" not in os.environ
