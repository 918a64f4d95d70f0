#!/usr/bin/env python
"""What measuring costs: the same loop bare and measured, interleaved, in one process.

Bare is tokenise, copy, forward, copy back, timed once from the first batch to the last. Measured is
the time of the same batches by InferenceProfiler. The difference is what its clocks,
synchronisations, counters and sampling thread add.
Bars: under 1% of the latency at 5 ms a batch and more, under 50 microseconds a batch below that;
the sampling thread under 1% of one core. Without CUDA the thread polls a stand-in for the driver
whose calls take a stated time.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import common, workloads
from benchmarks.common import Row
from utils.diagnosis import tracing
from utils.profiler import InferenceProfiler
from utils.system.gpu_monitor import GpuMonitor
from utils.system.timing import time_callable

TIMES_MS = (0.1, 0.5, 2.0, 5.0, 20.0)
LONG_MS, RELATIVE_BAR, SHORT_BAR_US = 5.0, 0.01, 50.0
THREAD_BAR_PCT = 1.0
# What a call of the stand-in driver takes. On one laptop most calls took 2.5 to 12 us, an expensive
# one 137 (MangoHud, pull request 2104).
CALLS_US = (0, 10, 100)
INTERVAL_S = 0.02
STAND_IN_UUID = "GPU-00000000-0000-0000-0000-000000000000"


def bare_seconds(
    model: Any, tokenizer: Any, texts: Sequence[str], size: int, device: torch.device
) -> float:
    """The loop without any measuring but one clock around it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter_ns()
    with torch.inference_mode():
        for i in range(0, len(texts), size):
            encoded = tokenizer(
                list(texts[i : i + size]),
                padding=True,
                truncation=True,
                max_length=512,
                return_tensors="pt",
            )
            batch = {name: encoded[name].to(device) for name in ("input_ids", "attention_mask")}
            model(**batch).logits.float().cpu()
    return (time.perf_counter_ns() - started) / 1e9


def measured_seconds(profiler: InferenceProfiler, texts: Sequence[str], size: int) -> float:
    """The time of one run of the sweep by its own clock."""
    record = workloads.sweep_one_size(profiler, texts, size, 1, num_warmup_runs=0)
    assert record.latency_total_s_median is not None
    return float(record.latency_total_s_median)


def compare(
    model: Any, tokenizer: Any, texts: Sequence[str], size: int, device: torch.device, rounds: int
) -> tuple[float, list[float]]:
    """Seconds a batch bare (median), and what measuring added in each round, in microseconds."""
    profiler, batches = InferenceProfiler(model, tokenizer, device=device), len(texts) // size
    bare_seconds(model, tokenizer, texts, size, device)
    bare, added = [], []
    for i in range(rounds):
        pair = {}
        for name in ("bare", "measured") if i % 2 else ("measured", "bare"):
            pair[name] = (
                bare_seconds(model, tokenizer, texts, size, device)
                if name == "bare"
                else measured_seconds(profiler, texts, size)
            )
        bare.append(pair["bare"] / batches)
        added.append(1e6 * (pair["measured"] - pair["bare"]) / batches)
    return statistics.median(bare), added


def cost_row(check: str, bare_s: float, added_us: Sequence[float]) -> Row:
    """The median over the rounds, compared with the bar for this length of batch."""
    cost_us, spread = statistics.median(added_us), _middle_half(added_us)
    bar_us = 1e6 * bare_s * RELATIVE_BAR if 1e3 * bare_s >= LONG_MS else SHORT_BAR_US
    half = f"half of the rounds {spread[0]:+.0f} to {spread[1]:+.0f} us"
    note = f"{cost_us / (1e6 * bare_s):+.2%} of {1e3 * bare_s:.3g} ms; {half}"
    return Row(
        check=check,
        expected=f"<= {bar_us:.0f} us a batch",
        measured=cost_us,
        unit="us a batch",
        note=note,
        error=f"{cost_us / bar_us:.0%} of the bar",
        status=common.verdict(added_us, -bar_us, bar_us),
    )


def planted_rows(
    device: torch.device, times_ms: Sequence[float], run_s: float, rounds: int
) -> Iterator[Row]:
    """Batches of known time, where even a microsecond shows."""
    rate = workloads.cycles_per_s(device) if device.type == "cuda" else 0.0
    for planted_ms in times_ms:
        batches = max(4, round(run_s * 1e3 / planted_ms))
        for size in (1, 8):
            model = workloads.Planted(planted_ms / 1e3, device, rate=rate)
            bare_s, added = compare(
                model, workloads.ReadyTokens(), ["a"] * size * batches, size, device, rounds
            )
            yield cost_row(f"planted {planted_ms:g} ms, batches of {size}", bare_s, added)


def real_rows(
    device: torch.device, sizes: Sequence[int], run_s: float, rounds: int
) -> Iterator[Row]:
    """A real Qwen2 with a real tokenizer, 64 tokens a row."""
    model, tokenizer = workloads.small_qwen2(device), workloads.word_tokenizer()
    text = workloads.text_of(64)
    for size in sizes:
        bare_seconds(model, tokenizer, [text] * size * 4, size, device)
        once = bare_seconds(model, tokenizer, [text] * size * 8, size, device) / 8
        batches = max(4, round(run_s / once))
        bare_s, added = compare(model, tokenizer, [text] * size * batches, size, device, rounds)
        yield cost_row(f"Qwen2 of 2 layers, batches of {size}", bare_s, added)


FIELD = SimpleNamespace(nvmlReturn=0, valueType=1, value=SimpleNamespace(uiVal=300_000))
# What is no plain number in pynvml.
READINGS: dict[str, Any] = {
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=80, memory=20),
    "nvmlDeviceGetFieldValues": [FIELD],
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=10**9, total=10**10, free=9 * 10**9),
    "nvmlDeviceGetSamples": (1, []),
    "nvmlDeviceGetMigMode": [0, 0],
    "nvmlDeviceGetComputeRunningProcesses_v3": [],
}


class StandInDriver:
    """Replies as ``pynvml`` does.

    Each call takes ``call_us`` on a core, with the interpreter free, as a driver's would.
    """

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU, NVML_SUCCESS = 1, 0, 0

    class NVMLError(Exception):
        pass

    def __init__(self, call_us: float) -> None:
        self.calls, self._iterations = 0, round(call_us * iterations_per_us())

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return uuid

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)
        return lambda *arguments: self._reply(name)

    def _reply(self, name: str) -> Any:
        self.calls += 1
        if self._iterations:
            hashlib.pbkdf2_hmac("sha256", b"", b"", self._iterations)
        return READINGS.get(name, 1000)


def iterations_per_us() -> float:
    """Rounds of a hash a microsecond: work that takes a core but not the interpreter's lock."""
    rates = []
    for _ in range(5):
        started = time.perf_counter_ns()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 20_000)
        rates.append(20_000 * 1e3 / (time.perf_counter_ns() - started))
    return statistics.median(rates)


def thread_share_pct(monitor: GpuMonitor, seconds: float) -> float:
    """Processor time of the sampling thread in percent of one core: nothing else works here."""
    monitor.start()
    time.sleep(0.1)
    cpu, wall = time.process_time(), time.perf_counter()
    time.sleep(seconds)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    monitor.stop()
    return 100 * cpu / wall


def thread_rows(device: torch.device, seconds: float) -> Iterator[Row]:
    """The sampling thread's own processor time."""
    if device.type == "cuda":
        monitor = GpuMonitor(device, INTERVAL_S)
        if monitor.reason:
            yield common.not_here("sampling thread, every 20 ms", monitor.reason)
            return
        yield common.at_most(
            "sampling thread, every 20 ms",
            THREAD_BAR_PCT,
            thread_share_pct(monitor, seconds),
            "% of a core",
        )
        return
    yield common.not_here(
        "sampling thread, every 20 ms, against the driver",
        "no CUDA device; the next rows use a stand-in",
    )
    for call_us in CALLS_US:
        driver = StandInDriver(call_us)
        monitor = GpuMonitor(torch.device("cuda", 0), INTERVAL_S, nvml=driver, uuid=STAND_IN_UUID)
        before = driver.calls
        share = thread_share_pct(monitor, seconds)
        note = f"{(driver.calls - before) / (seconds + 0.1):.0f} calls a second"
        yield common.at_most(
            f"sampling thread, stand-in driver of {call_us} us a call",
            THREAD_BAR_PCT,
            share,
            "% of a core",
            note,
        )


def trace_rows(device: torch.device) -> Iterator[Row]:
    """What a trace leaves behind: CUPTI stays attached to the process (pytorch issue 144455).

    The program times everything before its first trace, so there is no bar. These rows come last,
    because nothing should be timed in this process after them.
    """
    check = "launching a kernel after a trace in the same process"
    if device.type != "cuda":
        yield common.not_here(check, "no CUDA device")
        return
    launches = workloads.tiny_operators(device)
    before_us = launch_us(launches, device)
    tracing.measure_device_busy(lambda _: launches(), steps=1, device=device)
    after_us = launch_us(launches, device)
    yield common.reported("launching a kernel before the first trace", before_us, "us")
    yield common.reported(check, after_us, "us", error=f"{after_us / before_us - 1:+.1%}")


def launch_us(launches: Callable[[], object], device: torch.device) -> float:
    """Microseconds of each of the tiny operators that follow each other."""
    times = time_callable(launches, device, repeats=5)
    return 1e6 * times.fastest_s / workloads.TINY_OPERATORS


def _middle_half(values: Sequence[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


def measure(args: argparse.Namespace) -> Iterator[Row]:
    device = common.resolve(args.device)
    times, sizes = (TIMES_MS[::3], (8,)) if args.quick else (TIMES_MS, (1, 8, 32))
    run_s, rounds, thread_s = (0.05, 5, 1.0) if args.quick else (0.05, 15, 4.0)
    rounds = args.rounds or rounds
    yield from planted_rows(device, times, run_s, rounds)
    yield from real_rows(device, sizes, 2 * run_s, 2 * rounds)
    yield from thread_rows(device, thread_s)
    yield from trace_rows(device)


def main(argv: Sequence[str] | None = None) -> int:
    parser = common.make_parser(__doc__ or "", "python benchmarks/overhead.py --quick")
    common.add_rounds(parser)
    return common.run(parser, measure, argv)


if __name__ == "__main__":
    raise SystemExit(main())
