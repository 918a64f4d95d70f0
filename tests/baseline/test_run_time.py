"""How long step 02 takes and what it costs: with a clock of the test's own, and for real."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests import support
from tests.small_tokenizers import Words
from utils.baseline.run_time import EvaluationWork, Price, TimeEstimate, estimate_time, time_text
from utils.profiler import InferenceProfiler
from utils.sweep.schedule import SweepSettings, SweepState, new_state

EVALUATION = EvaluationWork(num_rows=369_475, is_grouped=True, num_devices=1)


class Clock:
    """Time that passes only where the model computes."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s


class Model:
    """Takes half a second for a batch, by the clock of the test."""

    dtype = torch.float32

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        self.clock.now_s += 0.5
        return SimpleNamespace(logits=torch.zeros(len(input_ids), 3))


def test_the_estimate_follows_from_the_measured_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock.perf_counter)
    texts = ["one two three four"] * 8
    state = new_state(len(texts), [1, 4])
    settings = SweepSettings(num_runs=3, num_warmup_runs=1, max_length=16)
    estimates: list[TimeEstimate | None] = []

    def after_warm_up(warm: SweepState) -> None:
        work = EvaluationWork(num_rows=800, is_grouped=True, num_devices=2)
        estimates.append(estimate_time([warm], settings, work))

    InferenceProfiler(Model(clock), Words(), device="cpu").sweep(
        texts, state, settings, on_event=lambda line: None, after_warm_up=after_warm_up
    )
    # Passes of 8 and of 2 batches, three times each. The faster takes 1 s for 8 rows.
    [estimate] = estimates
    assert estimate == TimeEstimate(sweep_s=3 * 4.0 + 3 * 1.0, evaluation_s=50.0, num_passes=2)


def test_the_line_says_what_it_rests_on_and_what_it_costs() -> None:
    estimate = TimeEstimate(sweep_s=720.0, evaluation_s=1500.0, num_passes=6)
    price = Price(per_hour_usd=2.0, num_gpus=1)
    assert time_text(estimate, SweepSettings(), EVALUATION, price) == (
        "Time left: about 12 minutes for the sweep and about 25 minutes for the evaluation of "
        "369,475 rows (estimated from measured passes of 6 batch sizes); "
        "about $1.23 at $2.00 per hour"
    )


def test_without_a_price_there_is_no_cost_and_without_work_no_line() -> None:
    estimate = TimeEstimate(sweep_s=0.0, evaluation_s=1500.0, num_passes=1)
    assert time_text(estimate, SweepSettings(), EVALUATION, None) == (
        "Time left: about 25 minutes for the evaluation of 369,475 rows "
        "(estimated from measured passes of 1 batch size)"
    )
    assert (
        time_text(
            TimeEstimate(sweep_s=0.0, evaluation_s=0.0, num_passes=1), SweepSettings(), None, None
        )
        is None
    )


def test_what_is_not_in_the_estimate_is_said() -> None:
    settings = SweepSettings(target_relative_ci=0.01, latency_target_ms=50.0)
    estimate = TimeEstimate(sweep_s=720.0, evaluation_s=0.0, num_passes=6)
    text = time_text(estimate, settings, None, None)
    assert text is not None
    assert text.startswith("Time left: at least 12 minutes for the sweep (")
    assert text.endswith("; the search for the latency target comes on top")


def test_a_real_run_takes_about_as_long_as_it_said(tmp_path: Path, tiny_model: Path) -> None:
    support.write_dataset(tmp_path / "data", texts=support.TEXTS * 200)
    settings = [
        *support.small_overrides(tmp_path, tiny_model),
        "dataset.sample_sizes=[256]",
        "profiling.batch_sizes=[1, 16]",
        "evaluation.chunk_rows=4000",
        "cost.gpu_price_per_hour_usd=2",
    ]
    words = support.set_flags(settings)
    done = support.run_script("scripts/02_baseline_inference.py", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    [line] = [text for text in done.stdout.splitlines() if text.startswith("Time left: ")]
    assert line.endswith(" at $2.00 per hour")
    found = re.search(r"about (\d+) seconds? for the sweep and about (\d+) seconds?", line)
    assert found is not None, line
    payload = json.loads((tmp_path / "results" / "baseline_metrics.json").read_text())
    sweep_s = 0.0
    for row in payload["batch_size_profiling"]:
        sweep_s += row["num_runs"] * row["latency_total_s_mean"]
    evaluation_s = payload["full_dataset_metrics"]["inference_time_s"]
    # The line has whole seconds, at least one.
    assert sweep_s / 3 - 0.5 <= int(found[1]) <= max(1, 3 * sweep_s + 0.5)
    assert evaluation_s / 3 - 0.5 <= int(found[2]) <= max(1, 3 * evaluation_s + 0.5)
