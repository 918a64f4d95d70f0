#!/usr/bin/env python
"""The sweep's results compared with known values: time, tokens, padding, memory, energy.

Models and tokenizers take a planted time (a busy loop on the CPU, a kernel of counted cycles on
CUDA) and clock themselves, so that a core or card that others use, too, shows as such; texts have a
known number of tokens, blocks of memory a known size. Everything goes through InferenceProfiler and
MetricsCollector.
Bars: latency within 1% or 50 microseconds, whichever is more; tokens and padding exact; memory
exact to the allocator's rounding. On CUDA a batch also copies, and a forward is launched and
waited for: the expected times include the copies as the sweep measures them, and the rest as a
plain loop beside it takes it.
"""

from __future__ import annotations

import argparse
import mmap
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
import torch

from benchmarks import common, workloads
from benchmarks.common import Row, within
from utils.metrics import MetricsCollector
from utils.profiler import InferenceProfiler
from utils.system.gpu_monitor import GpuMonitor

TIMES_MS = (0.2, 1.0, 5.0, 20.0, 100.0)
TOLERANCE, TOLERANCE_MS = 0.01, 0.05
# Planted time measured at each size, and in how many runs. A GPU has no other programs on it.
SECONDS_A_SIZE = {"cpu": 2.0, "cuda": 1.0}
RUNS = 4
GIB = 1 << 30
# The allocator's smallest block is 512 bytes; a handful of small tensors differ from run to run.
ALLOCATOR_ROUNDING = 8 * 512
# Resident memory is counted in pages, for each thread in a cache that the kernel adds up at times.
RESIDENT_ROUNDING_MB = 1.0
# Rows of the square matrix whose products draw much power.
POWERFUL_PRODUCT = 8192
# The card's clock moves between counting and reading.
CLOCK_TOLERANCE = 0.05
CLOCK_CHECK = "cycles a second of a spinning kernel: SM clock"
# How long the kernel spins: long enough for several readings.
SPIN_S = 1.0
# Power is sampled 25% of the time on an H100 (arXiv 2312.02741).
ENERGY_TOLERANCE = 0.10
ENERGY_CHECK = "matrix products: energy against power x time"


def sweep(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    size: int,
    runs: int,
    max_length: int = 512,
) -> Any:
    """The record of one batch size."""
    profiler = InferenceProfiler(model, tokenizer, device=model.device)
    return workloads.sweep_one_size(profiler, texts, size, runs, max_length=max_length)


def time_row(check: str, expected_ms: float, measured_ms: float | None) -> Row:
    """Within 1% or 50 microseconds."""
    return within(check, expected_ms, measured_ms, "ms", relative=TOLERANCE, absolute=TOLERANCE_MS)


def copies_ms(record: Any, device: torch.device) -> float:
    """The copies of a batch to the device and back, with the wait for them; 0 on the CPU."""
    if device.type != "cuda":
        return 0.0
    return (record.host_to_device_ms_mean or 0.0) + (record.device_to_host_ms_mean or 0.0)


def latency_rows(
    device: torch.device, rate: float, times_ms: Sequence[float], seconds: float
) -> Iterator[Row]:
    """A forward of known time: the median batch and the mean forward, against its own clock."""
    for planted_ms in times_ms:
        for size in (1, 4):
            model = workloads.Planted(planted_ms / 1e3, device, rate=rate)
            batches = max(8, round(seconds * 1e3 / planted_ms / RUNS))
            beside_ms = [waiting_ms(model, size, batches)]
            record = sweep(model, workloads.ReadyTokens(), ["a"] * size * batches, size, RUNS)
            taken = model.taken_ms(RUNS * batches)
            beside_ms.append(waiting_ms(model, size, batches))
            own = statistics.median(taken)
            waiting = statistics.fmean(beside_ms)
            name = f"forward of {planted_ms:g} ms, batches of {size}"
            yield common.reported(
                f"{name}: by its own clock",
                own,
                "ms",
                expected=planted_ms,
                error=f"{own / planted_ms - 1:+.2%}",
            )
            yield time_row(
                f"{name}: latency a batch, median",
                own + waiting + copies_ms(record, device),
                record.latency_per_batch_ms_median,
            )
            yield time_row(
                f"{name}: forward, mean", statistics.fmean(taken) + waiting, record.forward_ms_mean
            )


def waiting_ms(
    model: workloads.Planted, size: int, batches: int, pause_seconds: float = 0.0
) -> float:
    """What launching a kernel and waiting for its end takes beside the kernel itself.

    The median of a plain loop: call, synchronise, read the clock. 0 on the CPU, which does not
    wait.

    Args:
        pause_seconds: before each call; a device that was idle starts more slowly.
    """
    if model.device.type != "cuda":
        return 0.0
    ids = torch.ones((size, 8), dtype=torch.long, device=model.device)
    walls_ms = []
    for _ in range(batches):
        torch.cuda.synchronize(model.device)
        time.sleep(pause_seconds)
        started_ns = time.perf_counter_ns()
        model(ids, ids)
        torch.cuda.synchronize(model.device)
        walls_ms.append((time.perf_counter_ns() - started_ns) / 1e6)
    kernels_ms = model.taken_ms(batches)
    return statistics.median(
        wall - kernel for wall, kernel in zip(walls_ms, kernels_ms, strict=True)
    )


def phase_rows(device: torch.device, rate: float) -> Iterator[Row]:
    """A slow tokeniser before a faster model: 30 ms and 10 ms in series are 40."""
    model, tokenizer = workloads.Planted(0.01, device, rate=rate), workloads.ReadyTokens(0.03)
    record = sweep(model, tokenizer, ["a"] * 80, 8, RUNS)
    # The clock of a GPU moves after its cycles were counted, so the kernel's own time counts.
    forward_ms = statistics.fmean(model.taken_ms(RUNS * 10)) + waiting_ms(model, 8, 10, 0.03)
    batch_ms = 30 + forward_ms + copies_ms(record, device)
    name = "tokeniser 30 ms, forward 10 ms"
    yield time_row(f"{name}: latency a batch, median", batch_ms, record.latency_per_batch_ms_median)
    yield time_row(f"{name}: tokenise, mean", 30, record.tokenize_ms_mean)
    yield time_row(f"{name}: forward, mean", forward_ms, record.forward_ms_mean)
    yield within(
        f"{name}: 8 rows in 40 ms",
        8e3 / batch_ms,
        record.throughput_samples_per_sec_median,
        "samples/s",
        relative=TOLERANCE,
    )


def first_rows(device: torch.device, rate: float) -> Iterator[Row]:
    """A cold first inference is distinguished from the steady state."""
    beside_ms = empty_call_ms(device, rate)
    model = workloads.Planted(0.02, device, rate=rate, first_seconds=0.06)
    profiler = InferenceProfiler(model, workloads.ReadyTokens(), device=device)
    for call in ("first inference", "the second"):
        measured_ms = profiler.first_inference_ms(["a"], 512)
        (own_ms,) = model.taken_ms(1)
        check = f"first call 60 ms, later ones 20 ms: {call}"
        yield time_row(check, own_ms + beside_ms, measured_ms)


def empty_call_ms(device: torch.device, rate: float) -> float:
    """What one inference takes beside its forward: on CUDA copies, launch and synchronisation.

    0 on the CPU, where there is nothing beside it.
    """
    if device.type != "cuda":
        return 0.0
    model = workloads.Planted(0.0, device, rate=rate)
    profiler = InferenceProfiler(model, workloads.ReadyTokens(), device=device)
    return statistics.median(profiler.first_inference_ms(["a"], 512) for _ in range(5))


def block_rows(device: torch.device, rate: float) -> Iterator[Row]:
    """Any block through MetricsCollector; on CUDA it returns before the device has finished."""
    collector, medians = MetricsCollector(device), []
    model = workloads.Planted(0.05, device, rate=rate)
    ids = torch.ones((4, 8), dtype=torch.long, device=device)
    for _ in range(5):
        with collector.measure(batch_size=4, num_samples=8) as measurement:
            model(ids, ids)
        assert measurement.record is not None
        medians.append(measurement.record)
    middle = sorted(medians, key=lambda record: record.latency_total_s_median or 0.0)[2]
    own_ms = statistics.median(model.taken_ms(5))
    yield time_row(
        "a block of 50 ms, 8 rows: total", own_ms, 1e3 * (middle.latency_total_s_median or 0.0)
    )
    yield time_row(
        "a block of 50 ms, 8 rows: latency a row", own_ms / 8, middle.latency_per_sample_ms_median
    )


def token_rows(device: torch.device) -> Iterator[Row]:
    """Known lengths through a real tokenizer: padding, real tokens, truncation."""
    short, long = workloads.text_of(16), workloads.text_of(128)
    model, tokenizer = workloads.Planted(0.0002, device), workloads.word_tokenizer()
    for name, texts, size, padding in (
        ("16 and 128 tokens alternating, batches of 2", [short, long] * 8, 2, 0.4375),
        ("16 and 128 tokens alternating, batches of 8", [short, long] * 8, 8, 0.4375),
        ("16 and 128 tokens alternating, batches of 1", [short, long] * 8, 1, 0.0),
        ("16 and 128 tokens sorted, batches of 8", [short] * 8 + [long] * 8, 8, 0.0),
    ):
        record = sweep(model, tokenizer, texts, size, 3)
        yield within(f"{name}: padding", padding, record.padding_fraction, "of tokens")
        yield within(f"{name}: real tokens a row", 72, _tokens_a_row(record), "tokens")
    texts = [workloads.text_of(n) for n in (10, 100, 300, 500)]
    record = sweep(model, tokenizer, texts, 4, 3, max_length=100)
    yield within(
        "10, 100, 300, 500 tokens truncated at 100: real tokens a row",
        77.5,
        _tokens_a_row(record),
        "tokens",
    )
    yield within(
        "10, 100, 300, 500 tokens truncated at 100: padding",
        90 / 400,
        record.padding_fraction,
        "of tokens",
    )
    yield within(
        "10, 100, 300, 500 tokens truncated at 100: rows truncated", 2, record.num_truncated, "rows"
    )


def _tokens_a_row(record: Any) -> float | None:
    """Tokens over rows of the same runs: their time cancels out, to a double's rounding."""
    tokens, rows = record.throughput_tokens_per_sec_median, record.throughput_samples_per_sec_median
    return round(tokens / rows, 9) if tokens and rows else None


def memory_rows(device: torch.device) -> Iterator[Row]:
    """Known blocks of memory: on the host by touching pages, on the device by the allocator."""
    size = 256 << 20
    collector = MetricsCollector(device)
    with collector.measure(batch_size=1, num_samples=1):
        pass  # what the first measurement itself imports and allocates is not the block's
    before = psutil.Process().memory_info().rss
    with collector.measure(batch_size=1, num_samples=1) as measurement:
        block = mmap.mmap(-1, size)
        for page in range(0, size, mmap.PAGESIZE):
            block[page] = 1
    assert measurement.record is not None and measurement.record.cpu_mem_used is not None
    grown_mb = measurement.record.cpu_mem_used - before / 1e6
    block.close()
    yield within(
        "256 MiB of host memory touched: resident memory up by",
        size / 1e6,
        grown_mb,
        "MB",
        absolute=RESIDENT_ROUNDING_MB,
    )
    if device.type != "cuda":
        for check in (
            "1 GiB allocated on the device: memory up by",
            "1 GiB allocated during a forward: peak up by",
        ):
            yield common.not_here(check, "no CUDA device")
        return
    with collector.measure(batch_size=1, num_samples=1) as measurement:
        allocated = torch.empty(GIB, dtype=torch.uint8, device=device)
    assert measurement.record is not None
    yield within(
        "1 GiB allocated on the device: memory up by",
        GIB,
        _bytes(measurement.record.gpu_mem_change),
        "bytes",
    )
    del allocated
    yield held_during_forward_row(device)


def held_during_forward_row(device: torch.device) -> Row:
    """Memory that a forward takes and gives back shows in the peak alone."""
    peaks = []
    for hold in (0, GIB):
        model = workloads.Planted(0.001, device, rate=1e9, hold_bytes=hold)
        record = sweep(model, workloads.ReadyTokens(), ["a"] * 8, 4, 3)
        peaks.append(_bytes(record.peak_gpu_mem))
    check = "1 GiB allocated during a forward: peak up by"
    up = None if None in peaks else peaks[1] - peaks[0]  # type: ignore[operator]
    return within(check, GIB, up, "bytes", absolute=ALLOCATOR_ROUNDING)


def _bytes(megabytes: float | None) -> int | None:
    return None if megabytes is None else round(1e6 * megabytes)


def device_rows(device: torch.device, rate: float, seconds: float) -> Iterator[Row]:
    """The card's clock and energy: NVML's readings against counted cycles, power and time."""
    if device.type != "cuda":
        for check in (CLOCK_CHECK, ENERGY_CHECK):
            yield common.not_here(check, "no CUDA device")
        return
    yield clock_row(device, rate)
    yield energy_row(device, seconds)


def clock_row(device: torch.device, rate: float) -> Row:
    """The clock that NVML reads while a kernel of counted cycles runs."""
    monitor = GpuMonitor(device)
    torch.cuda._sleep(round(SPIN_S * rate))
    monitor.start()
    # The kernel is still running when the window ends.
    time.sleep(SPIN_S / 2)
    readings = monitor.stop()
    torch.cuda.synchronize(device)
    clock_mhz = readings.sm_clock_mhz_mean
    if clock_mhz is None:
        return common.not_here(CLOCK_CHECK, readings.unavailable["sm_clock_mhz_mean"])
    return within(CLOCK_CHECK, clock_mhz, rate / 1e6, "MHz", relative=CLOCK_TOLERANCE)


def energy_row(device: torch.device, seconds: float) -> Row:
    """The energy that NVML counts while products run, against its power and the time."""
    a = torch.randn(POWERFUL_PRODUCT, POWERFUL_PRODUCT, device=device, dtype=torch.bfloat16)
    collector = MetricsCollector(device)
    with collector.measure(batch_size=1, num_samples=1) as measurement:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            a @ a
            torch.cuda.synchronize(device)
    record = measurement.record
    assert record is not None
    if record.gpu_power_w_mean is None or record.energy_per_sample_j is None:
        reason = record.reason("gpu_power_w_mean") or record.reason("energy_per_sample_j")
        return common.not_here(ENERGY_CHECK, reason or "this card gives no power or no energy")
    expected_j = record.gpu_power_w_mean * (record.latency_total_s_mean or 0.0)
    return within(
        ENERGY_CHECK, expected_j, record.energy_per_sample_j, "J", relative=ENERGY_TOLERANCE
    )


def measure(args: argparse.Namespace) -> Iterator[Row]:
    device = common.resolve(args.device)
    rate = workloads.cycles_per_s(device) if device.type == "cuda" else 0.0
    times: Sequence[float] = TIMES_MS
    seconds = SECONDS_A_SIZE[device.type]
    if args.quick:
        times = TIMES_MS[:3]
        seconds = 0.2
    yield from latency_rows(device, rate, times, seconds)
    yield from phase_rows(device, rate)
    yield from first_rows(device, rate)
    yield from block_rows(device, rate)
    yield from token_rows(device)
    yield from memory_rows(device)
    yield from device_rows(device, rate, 3.0)


def main(argv: Sequence[str] | None = None) -> int:
    parser = common.make_parser(__doc__ or "", "python benchmarks/known_times.py --quick")
    return common.run(parser, measure, argv)


if __name__ == "__main__":
    raise SystemExit(main())
