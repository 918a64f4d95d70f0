"""The sweep against workloads whose answer is known."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from tests import support
from tests.small_tokenizers import RecordingTokenizer, Words
from utils.core.errors import UserError
from utils.model_utils import load_model_and_tokenizer
from utils.profiler import InferenceProfiler
from utils.schema.batch_size import COLUMNS
from utils.sweep.conclusions import optimal_batch_size
from utils.sweep.row_text import row_lines
from utils.sweep.schedule import SweepSettings, new_state


class Model:
    """Takes ``seconds`` a batch and runs out of memory above ``fits`` rows.

    Its results may differ each time.
    """

    dtype = torch.float32

    def __init__(self, seconds: float = 0.0, fits: int = 10**9, wobble: float = 0.0) -> None:
        self.seconds, self.fits, self.wobble, self.calls = seconds, fits, wobble, []

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        if len(input_ids) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.\nmore")
        self.calls.append(len(input_ids))
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end:
            pass
        logits = torch.nn.functional.one_hot(attention_mask.sum(-1) % 3, 3).float()
        return SimpleNamespace(logits=logits + self.wobble * len(self.calls))


def sweep(model: Model, texts: list[str], sizes: list[int], runs: int = 3, **options: Any) -> Any:
    profiler = InferenceProfiler(model, Words(), device="cpu")
    return profiler.profile_multiple_batch_sizes(
        texts, sizes, num_runs=runs, on_event=lambda line: None, **options
    )


class TimedModel(Model):
    """Times its own calls, which a busy machine makes longer, in milliseconds by batch size."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds=seconds)
        self.own_ms: dict[int, list[float]] = {}

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        begin = time.perf_counter()
        result = super().__call__(input_ids, attention_mask)
        duration_ms = 1e3 * (time.perf_counter() - begin)
        self.own_ms.setdefault(len(input_ids), []).append(duration_ms)
        return result


def test_a_model_that_takes_a_known_time() -> None:
    model = TimedModel(seconds=0.01)
    one, four = sweep(model, ["a b"] * 16, [1, 4], runs=5)
    # The fastest calls, compared with what the model itself took in this run: other programs make
    # both longer. benchmarks/known_times.py is stricter.
    for record in (one, four):
        fastest_ms = min(model.own_ms[record.batch_size])
        assert fastest_ms <= record.latency_per_batch_ms_min <= 1.1 * fastest_ms
        assert record.latency_per_sample_ms_min * record.batch_size >= fastest_ms
    assert 10 <= one.forward_ms_mean <= one.latency_per_batch_ms_mean


def test_alternating_lengths_are_43_75_percent_padding() -> None:
    texts = ["w " * 16, "w " * 128] * 8
    one, two = sweep(Model(), texts, [1, 2])
    assert one.padding_fraction == 0
    assert two.padding_fraction == 0.4375
    assert two.throughput_tokens_per_sec_mean == pytest.approx(
        two.throughput_samples_per_sec_mean * 72, rel=1e-6
    )


def test_every_batch_size_runs_over_the_same_texts_and_warm_up_is_not_counted() -> None:
    model = Model()
    records = sweep(model, ["a"] * 6, [2, 4], runs=5, num_warmup_runs=2)
    assert [record.num_samples for record in records] == [6, 6]
    assert [record.num_runs for record in records] == [5, 5]
    # Warm-up 2, the untimed logits 1, measured 5: eight runs of three and of two batches. FLOPs are
    # counted once for each new shape.
    assert len(model.calls) == 8 * 3 + 8 * 2 + 2


def test_out_of_memory_is_a_result_and_the_sweep_goes_on() -> None:
    small, large, larger = sweep(Model(fits=2), ["a"] * 8, [2, 4, 8])
    assert small.status == "ok"
    assert (large.status, larger.status) == ("oom", "not_tried")
    assert "Tried to allocate 1 GiB" in large.warnings[0]
    assert "not tried" in larger.warnings[0]
    assert large.to_dict()["latency_per_sample_ms_mean"] is None
    assert "out of memory" in row_lines(large)[1]
    state = new_state(8, [2, 4, 8])
    best = optimal_batch_size([small, large, larger], state)
    assert best is not None
    assert best.batch_size == 2
    assert optimal_batch_size([large], state) is None
    _, large, larger = sweep(Model(fits=2), ["a"] * 8, [2, 4, 8], try_all_batch_sizes=True)
    assert (large.status, larger.status) == ("oom", "oom")


def test_a_fast_wrong_answer_is_no_measurement() -> None:
    (record,) = sweep(Model(wobble=0.5), ["a b", "c"], [2])
    assert record.status == "wrong_outputs"
    assert record.throughput_samples_per_sec_mean is None
    assert "logits differ by up to" in record.warnings[0]
    assert "outputs" in row_lines(record)[1]
    (steady,) = sweep(Model(), ["a b", "c"], [2])
    assert not any("outputs" in text for text in steady.warnings)


def test_a_batch_size_that_changes_labels_is_a_warning() -> None:
    class Forgetful(Model):
        """Ignores the mask: padding counts as words."""

        def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            return super().__call__(input_ids, torch.ones_like(attention_mask))

    one, two = sweep(Forgetful(), ["a b", "c"], [1, 2])
    assert not any("outputs" in text for text in one.warnings)
    assert any(
        "batch sizes 2 and 1" in text and "1 of 2 labels differ" in text for text in two.warnings
    )


def test_a_resumed_sweep_says_whose_runs_it_took_over() -> None:
    profiler, settings = (
        InferenceProfiler(Model(), Words(), device="cpu"),
        SweepSettings(num_runs=3, max_length=9),
    )
    state = new_state(2, [1])
    profiler.sweep(["a", "b"], state, replace(settings, num_runs=2), on_event=lambda line: None)
    profiler.sweep(["a", "b"], state, settings, on_event=lambda line: None)
    record = state.trials[0].record()
    assert record.num_runs == 3
    assert any(
        "runs 1 to 2 were measured by an earlier process" in text for text in record.warnings
    )


def test_the_hosts_memory_may_run_out_too() -> None:
    class Host(Model):
        def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            if len(input_ids) > 2:
                raise RuntimeError(
                    "[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: "
                    "can't allocate memory"
                )
            return super().__call__(input_ids, attention_mask)

    class Broken(Model):
        def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            raise RuntimeError("shapes do not fit")

    assert [record.status for record in sweep(Host(), ["a"] * 4, [2, 4])] == ["ok", "oom"]
    with pytest.raises(RuntimeError, match="shapes"):
        sweep(Broken(), ["a"] * 4, [2])


def test_a_batch_larger_than_the_sample_repeats_texts_and_says_so() -> None:
    (record,) = sweep(Model(), ["a", "b"], [5])
    assert record.num_samples == 5
    assert any("texts repeat" in text for text in record.warnings)


def test_empty_texts_are_measured() -> None:
    (record,) = sweep(Model(), ["", "a"], [1])
    assert record.status == "ok"


def test_what_the_model_or_the_machine_lacks_is_refused(tiny_model: Path) -> None:
    model, tokenizer = load_model_and_tokenizer(model_name=str(tiny_model), device="cpu")
    with pytest.raises(UserError, match="fix:   max_length=512$"):
        InferenceProfiler(model, tokenizer, device="cpu").profile_multiple_batch_sizes(
            ["a"], [1], max_length=513
        )
    with pytest.raises(UserError, match="CUDA devices"):
        InferenceProfiler(model, tokenizer, device=f"cuda:{torch.cuda.device_count()}")


@pytest.mark.parametrize(
    ("texts", "sizes", "runs"),
    [([], [1], 3), (["a"], [], 3), (["a"], [0], 3), (["a"], [2, 2], 3), (["a"], [1], 0)],
)
def test_impossible_sweeps_are_refused(texts: list[str], sizes: list[int], runs: int) -> None:
    with pytest.raises(UserError):
        sweep(Model(), texts, sizes, runs)


def test_one_run_has_no_spread() -> None:
    (record,) = sweep(Model(), ["a"], [1], runs=1)
    row = record.to_dict()
    assert tuple(row) == COLUMNS
    assert row["latency_per_sample_ms_std"] is None
    assert row["throughput_samples_per_sec_ci95_low"] is None
    assert row["stable"] is None


def test_a_real_model_through_the_public_calls(tiny_model: Path) -> None:
    model, tokenizer = load_model_and_tokenizer(
        model_name=str(tiny_model), device="cpu", dtype="float32"
    )
    profiler = InferenceProfiler(model, tokenizer, device="cpu")
    texts = list(support.TEXTS[:10])
    results = profiler.profile_multiple_batch_sizes(
        texts=texts, batch_sizes=[1, 4], num_runs=3, max_length=64
    )
    assert [record.batch_size for record in results] == [1, 4]
    tokens = sum(
        len(ids)
        for ids in AutoTokenizer.from_pretrained(tiny_model)(texts, truncation=True, max_length=64)[
            "input_ids"
        ]
    )
    for record in results:
        rate = record.throughput_tokens_per_sec_mean / record.throughput_samples_per_sec_mean
        assert rate == pytest.approx(tokens / len(texts), rel=1e-6)
        # 2 x parameters x tokens, without the embedding, is the least that a sample costs
        weights = sum(
            p.numel() for name, p in model.named_parameters() if "layers" in name and p.dim() == 2
        )
        assert record.flops_per_sample >= 2 * weights * tokens / len(texts)
        assert record.num_truncated == 0
        assert not any("outputs" in text for text in record.warnings)


@pytest.mark.parametrize(("of_user", "in_sweep"), [(None, "false"), ("true", "true")])
def test_the_sweep_on_a_cpu_runs_without_the_tokenizers_threads(
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    of_user: str | None,
    in_sweep: str,
) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    if of_user is not None:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", of_user)
    model, tokenizer = load_model_and_tokenizer(
        model_name=str(tiny_model), device="cpu", dtype="float32"
    )
    recording = RecordingTokenizer(tokenizer)
    profiler = InferenceProfiler(model, recording, device="cpu")
    # Until here it was asked for the names of its inputs alone.
    recording.recorded.clear()
    texts = list(support.TEXTS[:4])
    profiler.first_inference_ms(texts, max_length=64)
    profiler.profile_multiple_batch_sizes(texts, [1, 4], num_runs=1, on_event=lambda line: None)
    assert set(recording.recorded) == {in_sweep}
    assert len(recording.recorded) > 10
    assert os.environ.get("TOKENIZERS_PARALLELISM") == of_user
