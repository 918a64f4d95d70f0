"""The benchmarks' logic on workloads of moments: what they catch, not how fast this machine is."""

from __future__ import annotations

import importlib.util
import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import known_times, measurement_peers, overhead, repeatability, workloads
from benchmarks.common import MISS, NOT_HERE, PASS, REPORTED, UNDECIDED
from benchmarks.repeatability import Claim

CPU = torch.device("cpu")


def test_planted_models_clock_themselves() -> None:
    model = workloads.Planted(0.002, CPU, first_seconds=0.006)
    ids = torch.ones((2, 4), dtype=torch.long)
    for _ in range(3):
        assert model(input_ids=ids, attention_mask=ids).logits.shape == (2, 3)
    first, *later = model.taken_ms(3)
    assert first >= 6
    assert all(taken >= 2 for taken in later)


def test_the_word_tokenizer_makes_one_token_of_each_word() -> None:
    encoded = workloads.word_tokenizer()(
        [workloads.text_of(3), workloads.text_of(5)], padding=True, max_length=4, truncation=True
    )
    assert [sum(mask) for mask in encoded["attention_mask"]] == [3, 4]


def test_tokens_and_padding_are_exact_through_the_sweep() -> None:
    rows = list(known_times.token_rows(CPU))
    assert {row.status for row in rows} <= {PASS, NOT_HERE}
    assert sum(row.status == PASS for row in rows) >= 10


def test_memory_that_was_touched_is_measured() -> None:
    host, *device = known_times.memory_rows(CPU)
    assert host.status == PASS, host
    assert [row.status for row in device] == [NOT_HERE, NOT_HERE]


def test_a_latency_that_is_off_is_a_miss() -> None:
    assert known_times.time_row("x", 20, 20.3).status == MISS
    assert known_times.time_row("x", 20, 20.1).status == PASS


def test_every_planted_time_gets_its_rows() -> None:
    rows = list(known_times.latency_rows(CPU, 0.0, (1.0,), 0.02))
    assert [row.status == REPORTED for row in rows] == [True, False, False] * 2
    assert all(row.measured and row.measured >= 1 for row in rows)


@pytest.mark.parametrize(
    ("bare_ms", "added_us", "status"),
    [
        (1, 40, PASS),
        (1, 60, MISS),
        (20, 150, PASS),
        (20, 250, MISS),
        (4.9, 51, MISS),
        (5, 49, PASS),
    ],
)
def test_the_bar_of_the_overhead_depends_on_the_batch(
    bare_ms: float, added_us: float, status: str
) -> None:
    assert overhead.cost_row("x", bare_ms / 1e3, [added_us] * 4).status == status


class Expensive:
    """A profiler that measures the same loop, and adds to it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, profiler: Any, texts: list[str], size: int) -> float:
        return (
            overhead.bare_seconds(profiler.model, profiler.tokenizer, texts, size, CPU)
            + self.seconds * len(texts) / size
        )


def test_what_measuring_adds_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "measured_seconds", Expensive(0.005))
    bare_s, added_us = overhead.compare(
        workloads.Planted(0.001, CPU), workloads.ReadyTokens(), ["a"] * 8, 2, CPU, 4
    )
    assert bare_s >= 0.001
    assert min(added_us) > 1000
    assert overhead.cost_row("x", bare_s, added_us).status == MISS


def test_the_real_profiler_is_compared_with_the_same_loop() -> None:
    model = workloads.Planted(0.001, CPU)
    bare_s, added_us = overhead.compare(model, workloads.ReadyTokens(), ["a"] * 8, 2, CPU, 2)
    assert len(added_us) == 2
    # Once to warm up, and each round bare and measured.
    assert len(model.taken_ms(10**6)) >= 4 * (1 + 2 * 2)


def test_the_sampling_thread_is_measured_against_a_stand_in() -> None:
    first, *rows = overhead.thread_rows(CPU, 0.2)
    assert first.status == NOT_HERE
    assert [row.unit for row in rows] == ["% of a core"] * len(overhead.CALLS_US)
    assert all(0 < float(row.measured or 0) < 100 for row in rows)


SUMMARY = """
90.0th percentile latency (ns) : 9000
Samples per second: 123.5
50.00 percentile latency (ns)   : 7000
"""


def test_loadgens_summary_is_read() -> None:
    assert measurement_peers.read_summary(SUMMARY, "SingleStream") == 7000
    assert measurement_peers.read_summary(SUMMARY, "Offline") == 123.5
    with pytest.raises(ValueError, match="no result"):
        measurement_peers.read_summary("INVALID", "Offline")


def small_work() -> measurement_peers.Workload:
    model = workloads.small_qwen2(CPU, layers=1, width=32)
    return measurement_peers.Workload(
        model=model,
        tokenizer=workloads.word_tokenizer(),
        device=CPU,
        texts=(workloads.text_of(8),) * 2,
        seconds=0.02,
    )


@pytest.mark.parametrize(
    "with_loadgen",
    [
        False,
        pytest.param(
            True,
            marks=pytest.mark.skipif(
                importlib.util.find_spec("mlperf_loadgen") is None,
                reason="mlcommons-loadgen is not installed",
            ),
        ),
    ],
)
def test_every_tool_takes_its_turn(with_loadgen: bool) -> None:
    results = measurement_peers.rounds_of(small_work(), 2, with_loadgen)
    assert all(len(values) == 2 and min(values) > 0 for values in results.values())
    rows = list(measurement_peers.peer_rows(2, results))
    assert len(rows) == 4
    assert [row.status == NOT_HERE for row in rows] == [
        False,
        not with_loadgen,
        not with_loadgen,
        False,
    ]


def test_peers_that_differ_are_a_miss() -> None:
    results = {
        "the sweep latency": [1.0, 2.0, 4.0],
        "the sweep forward": [1.0] * 3,
        f"{measurement_peers.TIMER} latency": [1.01, 2.02, 4.0],
    }
    assert next(measurement_peers.peer_rows(1, results)).status == PASS
    results["the sweep latency"] = [1.1, 2.2, 4.4]
    assert next(measurement_peers.peer_rows(1, results)).status == MISS
    results["the sweep latency"] = [1.5, 2.02, 2.0]
    assert next(measurement_peers.peer_rows(1, results)).status == UNDECIDED


def test_pairs_of_processes() -> None:
    wide, narrow = Claim(mean=10, low=8, high=12), Claim(mean=11, low=10.9, high=11.1)
    assert repeatability.pairs_held([wide, narrow]) == (1, 2)
    assert repeatability.pairs_held([wide, wide, wide]) == (6, 6)
    *_, overall = repeatability.claim_rows({1: [wide, wide], 8: [narrow, wide]}, "samples/s")
    assert (overall.status, overall.measured) == (MISS, "75%")
    *_, overall = repeatability.claim_rows({1: [wide, wide]}, "samples/s")
    assert overall.status == PASS


def test_a_batch_size_without_an_interval_has_no_claim() -> None:
    rows = [
        {"batch_size": 1, "m": 5.0, "l": 4.0, "h": 6.0},
        {"batch_size": 8, "m": 5.0, "l": None, "h": None},
    ]
    assert repeatability.claims_of([rows], ("m", "l", "h")) == {
        1: [Claim(mean=5.0, low=4.0, high=6.0)],
        8: [],
    }


def test_what_processes_differ_by_beyond_their_runs_spread() -> None:
    def row(mean: float, std: float) -> dict[str, Any]:
        return {repeatability.MEAN: mean, "throughput_samples_per_sec_std": std, "num_runs": 4}

    # means 90, 100, 110: variance 100; each mean's own is 20^2 / 4 = 100, then 12^2 / 4 = 36
    assert repeatability.process_spread([[row(mean, 20.0)] for mean in (90, 100, 110)]) == 0
    assert repeatability.process_spread(
        [[row(mean, 12.0)] for mean in (90, 100, 110)]
    ) == pytest.approx(0.08)
    assert repeatability.process_spread([[row(90, 12.0)]]) is None


def test_sweeps_run_in_new_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def run(command: list[str], **options: Any) -> None:
        commands.append(command)
        with open(command[-1], "w") as out:
            row = {
                "batch_size": 1,
                "num_runs": 5,
                "throughput_samples_per_sec_mean": 5.0,
                "throughput_samples_per_sec_std": 0.0,
                "m": 5.0,
                "l": 4.0,
                "h": 6.0,
            }
            json.dump([row], out)

    monkeypatch.setattr(repeatability.subprocess, "run", run)
    args = SimpleNamespace(
        quick=False, processes=3, runs=5, samples=8, device="cpu", mean="m", low="l", high="h"
    )
    *_, overall, spread = repeatability.measure(args)  # type: ignore[arg-type]
    assert spread.measured == 0
    assert len(commands) == 3
    assert overall.status == PASS


def test_expected_times_on_cuda_allow_for_the_copies_that_are_measured_beside_them() -> None:
    record = SimpleNamespace(host_to_device_ms_mean=0.2, device_to_host_ms_mean=0.3)
    assert known_times.copies_ms(record, torch.device("cuda", 0)) == pytest.approx(0.5)
    assert known_times.copies_ms(record, torch.device("cpu")) == 0
