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
from utils.baseline.later_steps import (
    LONGEST_PASS_S,
    LaterSteps,
    StartTimes,
    later_seconds,
    later_steps,
)
from utils.baseline.run_time import (
    EvaluationWork,
    Price,
    RestOfRun,
    TimeEstimate,
    estimate_time,
    time_text,
)
from utils.diagnosis.measurement import SECONDS_PER_SIZE, TIMED_REPEATS
from utils.pipeline import hints
from utils.profiler import InferenceProfiler
from utils.schema.sweep_checkpoint import WarmUpPass
from utils.sweep.schedule import SweepSettings, SweepState, new_state

EVALUATION = EvaluationWork(num_rows=369_475, is_grouped=True, num_devices=1)
START = StartTimes(process_s=5.0, load_s=2.0, weights_s=1.0, weights_mb=600.0)
ALONE = LaterSteps(numbers=(), start=START)


def rest_of_run(**changes: Any) -> RestOfRun:
    """The evaluation of EVALUATION and no later step, without a GPU's readings or a price."""
    values: dict[str, Any] = {
        "evaluation": EVALUATION,
        "later": ALONE,
        "reads_gpu": False,
        "price": None,
    }
    return RestOfRun(**{**values, **changes})


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
        estimates.append(estimate_time([warm], settings, rest_of_run(evaluation=work)))

    InferenceProfiler(Model(clock), Words(), device="cpu").sweep(
        texts, state, settings, on_event=lambda line: None, after_warm_up=after_warm_up
    )
    # Passes of 8 and of 2 batches, three times each. The faster takes 1 s for 8 rows.
    [estimate] = estimates
    assert estimate == TimeEstimate(sweep_s=3 * 4.0 + 3 * 1.0, evaluation_s=50.0, num_passes=2)


def test_the_line_says_what_it_rests_on_and_what_it_costs() -> None:
    estimate = TimeEstimate(sweep_s=720.0, evaluation_s=1500.0, num_passes=6)
    price = Price(per_hour_usd=2.0, num_gpus=1)
    assert time_text(estimate, SweepSettings(), rest_of_run(price=price)) == (
        "Time left: about 12 minutes for the sweep and about 25 minutes for the evaluation of "
        "369,475 rows (estimated from measured passes of 6 batch sizes); "
        "about $1.23 at $2.00 per hour"
    )


def test_without_a_price_there_is_no_cost_and_without_work_no_line() -> None:
    estimate = TimeEstimate(sweep_s=0.0, evaluation_s=1500.0, num_passes=1)
    assert time_text(estimate, SweepSettings(), rest_of_run()) == (
        "Time left: about 25 minutes for the evaluation of 369,475 rows "
        "(estimated from measured passes of 1 batch size)"
    )
    nothing = TimeEstimate(sweep_s=0.0, evaluation_s=0.0, num_passes=1)
    assert time_text(nothing, SweepSettings(), rest_of_run(evaluation=None)) is None


def test_what_is_not_in_the_estimate_is_said() -> None:
    settings = SweepSettings(target_relative_ci=0.01, latency_target_ms=50.0)
    estimate = TimeEstimate(sweep_s=720.0, evaluation_s=0.0, num_passes=6)
    text = time_text(estimate, settings, rest_of_run(evaluation=None))
    assert text is not None
    assert text.startswith("Time left: at least 12 minutes for the sweep (")
    assert text.endswith("; the search for the latency target comes on top")


def test_the_later_steps_of_a_run_are_in_the_line_and_in_the_cost() -> None:
    estimate = TimeEstimate(sweep_s=720.0, evaluation_s=1500.0, num_passes=6, later_s=1380.0)
    later = LaterSteps(numbers=("03", "04"), start=START, tries_suggestions=True)
    rest = rest_of_run(later=later, price=Price(per_hour_usd=2.0, num_gpus=1))
    text = time_text(estimate, SweepSettings(), rest)
    assert text is not None
    assert text.endswith(
        ", then roughly 23 minutes for steps 03 and 04 (from these passes and this step's start); "
        "about $2.00 at $2.00 per hour; "
        "trying suggestions (--verify) comes on top and is not estimated"
    )


def test_later_steps_take_their_start_and_a_part_for_each_measured_batch_size() -> None:
    state = new_state(8, [1, 4])
    for trial, seconds in zip(state.trials, (10.0, 1.0), strict=True):
        trial.warm_up = WarmUpPass(seconds=seconds, real_tokens=8, computed_tokens=8)
    both = LaterSteps(numbers=("03", "04"), start=START)
    profiling = LaterSteps(numbers=("03",), start=START)
    # 5 s to start, 1.6 times the 1 s of the libraries, and 5.3 passes of 4/3 s at most and 1 s.
    expected_s = 5.0 + 1.6 + 5.3 * (4 / 3 + 1.0)
    assert later_seconds(profiling, [state]) == pytest.approx(expected_s)
    # Its own start without the model's load, and twice the time of the libraries.
    assert later_seconds(both, [state]) == pytest.approx(expected_s + 3.0 + 2.0)
    assert later_seconds(ALONE, [state]) == 0.0


def test_a_download_of_the_weights_is_not_expected_again() -> None:
    downloaded = StartTimes(process_s=65.0, load_s=62.0, weights_s=60.0, weights_mb=1000.0)
    assert downloaded.repeated_s == 10.0


def test_the_profiler_repeats_what_the_estimate_says_of_it() -> None:
    assert LONGEST_PASS_S == SECONDS_PER_SIZE / TIMED_REPEATS


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ((), ()),
        (("scripts/06_measure_change.py",), ()),
        (("run_week1.py",), ("03", "04")),
        (("./run_week1.py", "--skip-profiling"), ("04",)),
    ],
)
def test_the_steps_that_follow_are_those_of_the_runner(
    words: tuple[str, ...], numbers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(hints.VARIABLE, json.dumps(words))
    assert later_steps(START).numbers == numbers


def test_runs_back_to_back_for_the_readings_of_a_gpu_are_estimated() -> None:
    state = new_state(8, [1, 4])
    for trial, seconds in zip(state.trials, (3.0, 0.5), strict=True):
        trial.warm_up = WarmUpPass(seconds=seconds, real_tokens=8, computed_tokens=8)
    settings = SweepSettings(num_runs=1, min_window_seconds=2.0)
    without = estimate_time([state], settings, rest_of_run(evaluation=None))
    readings = estimate_time([state], settings, rest_of_run(evaluation=None, reads_gpu=True))
    assert without is not None and readings is not None
    # The run of 3 s is long enough; 4 runs of 0.5 s are, and one of them warms up.
    assert readings.sweep_s - without.sweep_s == pytest.approx(5 * 0.5)


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
