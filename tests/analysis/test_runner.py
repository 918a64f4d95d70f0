"""The whole analysis on the tiny model."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
)

from tests import support
from tests.analysis.test_kernels import TRACE
from tests.analysis.test_verdict import evidence
from utils import costs
from utils.analysis import roofline, runner, verdict
from utils.analysis.tracing import NO_KERNELS, NONE_READABLE
from utils.config_loader import Config
from utils.core.errors import UserError
from utils.model_utils import LoadedModel, load_model


@pytest.fixture(scope="module")
def loaded(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(support.small_config(tmp_path_factory.mktemp("load"), tiny_model))


@pytest.fixture(scope="module")
def ceilings() -> roofline.Ceilings:
    return roofline.measure(torch.device("cpu"), torch.float32)


def write_metrics(config: Config, /, **changes: Any) -> None:
    rows = [{"batch_size": 1, "status": "ok"}, {"batch_size": 2, "status": "ok"}, {"batch_size": 4, "status": "ok"},
            {"batch_size": 64, "status": "oom"}]
    payload = {"config": config.to_dict(), "batch_size_profiling": rows, "optimal_batch_size": {"batch_size": 2}, **changes}
    config.files.metrics.parent.mkdir(parents=True, exist_ok=True)
    config.files.metrics.write_text(json.dumps(payload))


def test_sizes_from_the_sweep(tmp_path: Path, tiny_model: Path) -> None:
    config = support.small_config(tmp_path, tiny_model)
    warnings: list[str] = []
    write_metrics(config)
    assert runner.read_sweep(config, warnings)[:2] == ((1, 2, 4), 2)
    write_metrics(config, optimal_batch_size=None)
    assert runner.read_sweep(config, warnings)[:2] == ((1, 4), 4)
    assert warnings == []
    write_metrics(config, config={"model": {"name": "another"}})
    runner.read_sweep(config, warnings)
    assert "other model settings" in warnings[0]


def test_sizes_without_a_sweep(tmp_path: Path, tiny_model: Path) -> None:
    warnings: list[str] = []
    config = support.small_config(tmp_path, tiny_model, "profiling.batch_sizes=[2, 4, 8]")
    assert runner.read_sweep(config, warnings)[:2] == ((2, 8), 8)
    assert "02_baseline_inference.py" in warnings[0]


def test_a_broken_metrics_file_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    config = support.small_config(tmp_path, tiny_model)
    config.files.metrics.parent.mkdir(parents=True)
    config.files.metrics.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        runner.read_sweep(config, [])


def test_batches() -> None:
    warnings: list[str] = []
    assert runner.make_batches(list("abcde"), 2, warnings) == (["a", "b"], ["c", "d"])
    assert len(runner.make_batches(list("a" * 50), 1, warnings)) == runner.MOST_BATCHES
    assert warnings == []
    assert runner.make_batches(list("abc"), 8, warnings) == (["a", "b", "c"],)
    assert "profiled on 3 texts" in warnings[0]


def test_a_tokenizer_that_sleeps(loaded: LoadedModel, ceilings: roofline.Ceilings) -> None:
    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.05)  # the workload itself
        return loaded.tokenizer(*args, **kwargs)

    sleepy = replace(loaded, tokenizer=slow)
    with torch.inference_mode():
        _, evidence = runner.measure_size(sleepy, support.TEXTS[:2], 2, 64, ceilings, [])
    assert evidence.tokenize_ms >= 50
    assert verdict.decide(evidence).verdict == "input-bound"


def test_padding_is_counted(loaded: LoadedModel, ceilings: roofline.Ceilings) -> None:
    texts = ["books", "books number 1 " * 20]
    lengths = [len(ids) for ids in loaded.tokenizer(texts, truncation=True, max_length=64)["input_ids"]]
    with torch.inference_mode():
        _, evidence = runner.measure_size(loaded, texts, 2, 64, ceilings, [])
    assert evidence.padding_fraction == pytest.approx((lengths[1] - lengths[0]) / (2 * lengths[1]))


def test_doubling_is_tried_on_a_typical_batch(
    loaded: LoadedModel, ceilings: roofline.Ceilings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short first text alone would make every text look like overhead."""
    seen = []
    monkeypatch.setattr(runner, "_doubling_growth", lambda _, inputs, __: seen.append(inputs["input_ids"].shape[1]))
    sound = loaded.model.forward

    def by_tokens(*args: Any, **kwargs: Any) -> Any:
        time.sleep(kwargs["input_ids"].numel() * 2e-4)  # the workload itself
        return sound(*args, **kwargs)

    monkeypatch.setattr(loaded.model, "forward", by_tokens)
    texts = ["a", *(f"books number {i} " * 4 for i in range(5))]
    with torch.inference_mode():
        runner.measure_size(loaded, texts, 1, 64, ceilings, [])
    assert seen[0] > 10


def test_a_batch_of_empty_texts(loaded: LoadedModel, ceilings: roofline.Ceilings) -> None:
    with torch.inference_mode():
        _, evidence = runner.measure_size(loaded, ["", "books"], 1, 64, ceilings, [])
    assert evidence.forward_ms > 0 and evidence.padding_fraction is not None and 0 < evidence.padding_fraction < 1


def test_a_size_that_does_not_fit_is_left_out(
    tmp_path: Path, tiny_model: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = support.small_config(tmp_path, tiny_model, "profiling.trace_steps=1")
    sound = runner.measure_size

    def short_of_memory(*args: Any) -> Any:
        if args[2] == 4:
            raise torch.OutOfMemoryError("planted")
        return sound(*args)

    monkeypatch.setattr(runner, "measure_size", short_of_memory)
    found = runner.analyse(loaded, config)
    assert json.loads(config.files.bottlenecks.read_text())["wins"] == found["wins"] and config.files.ceilings.exists()
    assert [row["batch_size"] for row in found["batch_sizes"]] == [1] and found["detail_batch_size"] == 1
    assert any("Batch size 4 does not fit" in warning for warning in found["warnings"])
    config = support.small_config(tmp_path, tiny_model, "profiling.batch_sizes=[4]")
    with pytest.raises(UserError, match="No batch size fits"):
        runner.analyse(loaded, config)


def test_the_sweep_says_where_larger_batches_stop_helping(tmp_path: Path, tiny_model: Path, loaded: LoadedModel) -> None:
    config = support.small_config(tmp_path, tiny_model, "profiling.trace_steps=1")
    speeds = {1: (100.0, 0.0), 2: (200.0, 0.1), 4: (190.0, 0.6)}
    rows = [{"batch_size": size, "status": "ok", "sample_size": 8, "padding_fraction": padding,
             "throughput_samples_per_sec_mean": rate} for size, (rate, padding) in speeds.items()]
    smaller_sample = {**rows[0], "sample_size": 4, "throughput_samples_per_sec_mean": 1e6}
    write_metrics(config, batch_size_profiling=[smaller_sample, *rows, {"batch_size": 8, "status": "oom", "sample_size": 8}])
    found = runner.analyse(loaded, config)
    for size in (1, 4):
        folder = config.files.traces_dir / f"batch_{size}"
        assert {file.name for file in folder.iterdir()} == {"trace.json", "stacks.txt", "operators.csv"}
    assert found["detail_batch_size"] == 2 and [row["batch_size"] for row in found["batch_sizes"]] == [1, 2, 4]
    changes = found["verdict_changes"]
    assert (changes["batch_size"], changes["because"], changes["source"]) == (2, "padding", "the sweep")
    assert changes["sentence"] in found["main_bottleneck"] and "Confidence: " in found["main_bottleneck"]
    assert "batch size" not in [win["title"] for win in found["wins"] + found["further_wins"]], "the sweep has tried 4"
    write_metrics(config, batch_size_profiling=rows, config={"model": {"name": "another"}})
    assert runner.analyse(loaded, config)["verdict_changes"]["source"].startswith("the forward passes of the sample")


def test_the_sweep_of_the_largest_sample_and_of_this_model_counts(tmp_path: Path, tiny_model: Path) -> None:
    config = support.small_config(tmp_path, tiny_model)
    rows = [{"batch_size": 1, "status": "ok", "sample_size": 8}, {"batch_size": 10**9, "status": "oom", "sample_size": 8},
            {"batch_size": 2, "status": "oom", "sample_size": 4}]
    write_metrics(config, batch_size_profiling=rows, optimal_batch_size={"batch_size": 1})
    assert runner.read_sweep(config, [])[2] == rows[:2], "of the largest sample"
    write_metrics(config, batch_size_profiling=rows, config={"model": {"name": "another"}})
    assert runner.read_sweep(config, [])[2] == []


def test_kernels_of_a_cuda_trace_reach_the_files(
    tmp_path: Path, tiny_model: Path, loaded: LoadedModel
) -> None:
    config = support.small_config(tmp_path, tiny_model)
    on_cuda = replace(loaded, device=torch.device("cuda"))
    workload = runner.Workload(on_cuda, (["books"],), 64)

    def add(events: Any) -> dict[str, Any]:
        result, added = runner.kernels_and_memory(workload, events, (), config)
        table = pd.DataFrame({"module": ["a"]}).join(added, on="module")
        assert table["memory_peak_mb"].isna().all() and result["memory"]["peak"] is None
        assert "incomplete" in result["not_measured"]["memory.peak"]
        return result

    found = add(TRACE)
    assert found["kernels"]["kernels"] == 9 and "kernels" not in found["not_measured"]
    assert pd.read_csv(config.files.kernels)["calls"].sum() == 9
    assert add(())["not_measured"]["kernels"] == NONE_READABLE
    assert not config.files.kernels.exists(), "an earlier run's is gone"
    assert add([event for event in TRACE if event.get("cat") == "cpu_op"])["not_measured"]["kernels"] == NO_KERNELS


def test_operators_are_scaled_to_the_untraced_forward() -> None:
    table = pd.DataFrame({
        "operator": ["aten::linear", "aten::mm", "aten::copy_"], "self_device_ms": [1.0, 2.0, 1.0], "calls": [1.0, 1.0, 2.0],
        "bytes_moved": [math.nan, 8.0, 8.0], "attainable_ms": [math.nan, 0.25, 0.5],
    })
    groups = {group.kind: group for group in runner.group_operators(table, 2.0, 2.0)}
    assert {kind: group.measured_ms for kind, group in groups.items()} == {"matrix product": 1.5, "copy": 0.5}
    product = groups["matrix product"]
    assert (product.attainable_ms, product.calls) == (0.25, 1), "a composite operator's calls are those of its parts"
    assert runner.group_operators(table.assign(self_device_ms=math.nan), 2.0, 2.0) == ()
    [longer] = [group for group in runner.group_operators(table, 2.0, 3.0) if group.kind == "copy"]
    assert (longer.measured_ms, longer.attainable_ms) == (0.75, 0.75), "the average batch is longer than the traced ones"


ENCODERS: dict[str, Any] = {
    "bert": (BertForSequenceClassification, BertConfig(
        vocab_size=320, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64)),
    "distilbert": (DistilBertForSequenceClassification, DistilBertConfig(
        vocab_size=320, dim=32, n_layers=3, n_heads=4, hidden_dim=64)),
    "modernbert": (ModernBertForSequenceClassification, ModernBertConfig(
        vocab_size=320, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, pad_token_id=0)),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_model_that_is_no_qwen2(kind: str, tmp_path: Path) -> None:
    """The whole analysis: kinds fall back to class names, and nothing that is unknown counts as none."""
    make, architecture = ENCODERS[kind]
    make(architecture).save_pretrained(tmp_path / "model")
    support.build_tokenizer().save_pretrained(tmp_path / "model")
    config = support.small_config(tmp_path, tmp_path / "model", "profiling.trace_steps=1")
    model = load_model(config)
    found = runner.analyse(replace(model, tokenizer=support.build_tokenizer()), config)
    assert [row["batch_size"] for row in found["batch_sizes"]] == [1, 4] and found["wins"]
    for row in found["batch_sizes"]:
        assert row["evidence"]["flops"] > 2 * 3 * 32 * 64 * row["batch_size"], "the layers' products at least"
        assert row["confidence"] == "low" or not row["evidence"]["unknown_operators"] or row["verdict"] == "input-bound"
    layers = pd.read_csv(config.files.layers)
    assert "Linear" in set(layers["kind"]), "kinds that only a Qwen2 has names for fall back to the class"
    assert set(layers["layer_index"].dropna()) == {0, 1, 2}
    assert pd.read_csv(config.files.operators)["flops"].sum() > 0


def test_an_operator_without_a_formula_is_no_operator_without_flops(
    loaded: LoadedModel, ceilings: roofline.Ceilings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = costs.count_flops

    def no_formula(func: Any, *rest: Any) -> int | None:
        return None if func._schema.name == "aten::silu" else sound(func, *rest)

    monkeypatch.setattr(costs, "count_flops", no_formula)
    with torch.inference_mode():
        _, evidence = runner.measure_size(loaded, support.TEXTS[:4], 4, 64, ceilings, [])
    assert evidence.unknown_operators == ("aten::silu",)
    assert evidence.flops > 0 and evidence.bytes_moved > 0
    assert verdict.decide(evidence).confidence == "low", "what it computes is not known"
    known = replace(evidence, unknown_operators=(), time_spread=0.0, ceiling_spread=0.0)
    assert verdict.decide(known).confidence == "high"


def test_what_follows_from_rows_and_tokens_only_roughly_predicts_nothing(
    tmp_path: Path, tiny_model: Path, loaded: LoadedModel
) -> None:
    config = support.small_config(tmp_path, tiny_model)
    shapes = [(rows, length) for rows in (1, 2, 4) for length in (8, 16, 64)]

    def forecast(*times: float) -> tuple[object, list[str]]:
        warnings: list[str] = []
        timed = tuple((*shape, ms) for shape, ms in zip(shapes, times, strict=True))
        judged = [evidence(timed=timed)]
        return runner.make_forecast(loaded, list(support.TEXTS), 4, judged, config, warnings), warnings

    found, warnings = forecast(*(1 + 0.1 * rows * length for rows, length in shapes))
    assert found is not None and warnings == []
    found, warnings = forecast(9, 1, 30, 2, 90, 1, 400, 1, 2)
    assert found is None and "as on a busy machine" in warnings[0]
