"""NVML's readings on a real GPU against known work, nvidia-smi and a second process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from utils.schema.sweep_checkpoint import GpuReadings
from utils.system import gpu_readings
from utils.system.gpu_monitor import GpuMonitor

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30

WHICH = """
import sys, torch
from utils.system.gpu_monitor import GpuMonitor
monitor = GpuMonitor(torch.device("cuda:0"))
assert monitor.reason is None, monitor.reason
torch.zeros(1, device="cuda:0")  # the context takes memory of its own: it has to be there before
torch.cuda.synchronize()
before = monitor._device.read("memory_bytes")
kept = torch.empty(2 * 2**30, dtype=torch.uint8, device="cuda:0")
torch.cuda.synchronize()
nvml = monitor._device._nvml
grown = int(monitor._device.read("memory_bytes") - before)
print(nvml.nvmlDeviceGetUUID(monitor._device._handle), grown)
"""
LOAD = """
import time, torch
cycles = 20_000_000
torch.cuda._sleep(cycles)
torch.cuda.synchronize()
print("ready", flush=True)
until = time.monotonic() + 120
while time.monotonic() < until:
    torch.cuda._sleep(cycles)
    torch.cuda.synchronize()
"""


@pytest.fixture(scope="session", autouse=True)
def cuda() -> torch.device:
    """The device; whether there is one is asked once."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    return torch.device("cuda", 0)


@pytest.fixture
def monitor(cuda: torch.device) -> GpuMonitor:
    torch.zeros(1, device=cuda)
    made = GpuMonitor(cuda)
    if made.reason is not None:
        pytest.skip(made.reason)
    if made._device is None or "util_pct" not in made._device._calls:
        pytest.skip("MIG: no utilisation, power or energy")
    return made


@pytest.fixture(scope="session")
def spin(cuda: torch.device) -> Callable[[float], None]:
    """Keeps one kernel after another on the device for some seconds; returns when they are done."""
    cycles = 20_000_000  # some 10 ms
    torch.cuda._sleep(cycles)
    torch.cuda.synchronize(cuda)
    began_s = time.perf_counter()
    for _ in range(20):
        torch.cuda._sleep(cycles)
    torch.cuda.synchronize(cuda)
    kernel_s = (time.perf_counter() - began_s) / 20

    def run(seconds: float) -> None:
        for _ in range(round(seconds / kernel_s)):
            torch.cuda._sleep(cycles)
        torch.cuda.synchronize(cuda)

    return run


def multiply(cuda: torch.device, seconds: float) -> None:
    """Matrix products, so that power is far from idle; waited for, so that it ends in time."""
    a = torch.randn(4096, 4096, device=cuda)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for _ in range(8):
            a @ a
        torch.cuda.synchronize(cuda)


def measured(
    monitor: GpuMonitor, work: Callable[[float], None], seconds: float
) -> tuple[GpuReadings, float]:
    monitor.start()
    began_s = time.perf_counter()
    work(seconds)
    took_s = time.perf_counter() - began_s
    return monitor.stop(), took_s


@contextmanager
def process(code: str) -> Iterator[subprocess.Popen[str]]:
    """A second process; it is ready when the block begins, and gone afterwards."""
    started = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline().strip() == "ready"
        yield started
    finally:
        started.kill()
        started.wait()


def smi(uuid: str, *fields: str) -> list[float]:
    """The fields of one GPU by nvidia-smi, in its units: MiB, MHz, °C, W."""
    if shutil.which("nvidia-smi") is None:
        pytest.skip("no nvidia-smi")
    command = [
        "nvidia-smi",
        f"--id={uuid}",
        f"--query-gpu={','.join(fields)}",
        "--format=csv,noheader,nounits",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(value) for value in done.stdout.split(",")]


def uuids() -> list[str]:
    """Of the GPUs that this process sees, in CUDA's order."""
    return [
        f"GPU-{torch.cuda.get_device_properties(index).uuid}"
        for index in range(torch.cuda.device_count())
    ]


@pytest.mark.slow
def test_the_handle_is_that_of_the_models_device_in_any_order_of_visible_devices(
    cuda: torch.device,
) -> None:
    """CUDA's device 0 is what comes first in CUDA_VISIBLE_DEVICES: its memory alone grows."""
    names = uuids()
    orders = [[name[:12] for name in names[::-1]]]
    for order in ([names[0]], names[::-1], names[1:] + names[:1]):
        if order not in orders:
            orders.append(order)
    for order in orders:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(order)}
        done = subprocess.run(
            [sys.executable, "-c", WHICH], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        uuid, grown = done.stdout.split()
        assert uuid.startswith(order[0]), order
        assert int(grown) == pytest.approx(2 * GIB, rel=0.02), order


def test_utilisation_is_near_100_while_a_kernel_is_there_and_near_0_when_idle(
    monitor: GpuMonitor, spin: Callable[[float], None]
) -> None:
    readings, _ = measured(monitor, spin, 3.0)
    assert readings.util_pct_mean is not None and readings.util_pct_mean > 95
    idle = monitor.idle()
    if not idle.shared:
        assert idle.util_pct_mean is not None and idle.util_pct_mean <= gpu_readings.IDLE_UTIL_PCT
        assert idle.power_w_mean is not None and idle.power_w_mean < readings.power_w_mean


def test_the_energy_counter_agrees_with_integrated_power(
    monitor: GpuMonitor, cuda: torch.device
) -> None:
    # Until clocks and power are steady.
    multiply(cuda, 2.0)
    readings, seconds = measured(monitor, lambda s: multiply(cuda, s), 5.0)
    if readings.energy_source != "counter":
        pytest.skip("this GPU has no energy counter")
    assert readings.power_w_mean is not None, readings.warnings
    assert readings.energy_j == pytest.approx(readings.power_w_mean * seconds, rel=0.15)


def test_readings_agree_with_nvidia_smi(
    monitor: GpuMonitor, cuda: torch.device, spin: Callable[[float], None]
) -> None:
    """Asked in the middle of a steady load, from a process of its own."""
    allocated = torch.empty(GIB, dtype=torch.uint8, device=cuda)
    spin(2.0)
    monitor.start()
    beside: list[float] = []
    for _ in range(2):
        for _ in range(300):
            # Queued, some 3 s: the device stays busy while nvidia-smi reads.
            torch.cuda._sleep(20_000_000)
        beside = smi(
            uuids()[0], "memory.used", "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw"
        )
        torch.cuda.synchronize(cuda)
    readings = monitor.stop()
    memory_mib, sm_mhz, memory_mhz, celsius, watts = beside
    assert allocated.numel() == GIB
    assert readings.device_memory_bytes == pytest.approx(
        memory_mib * 2**20, abs=16 * 2**20
    )  # nvidia-smi rounds
    assert readings.sm_clock_mhz_mean == pytest.approx(sm_mhz, rel=0.05)
    assert readings.memory_clock_mhz_mean == pytest.approx(memory_mhz, rel=0.01)
    assert readings.temperature_c_max == pytest.approx(celsius, abs=3)
    assert readings.power_w_mean == pytest.approx(watts, rel=0.15)


@pytest.mark.slow
def test_a_second_process_that_loads_the_gpu_is_reported(monitor: GpuMonitor) -> None:
    with process(LOAD):
        busy = monitor.idle()
    assert busy.shared is True
    assert any(text.startswith("shared:") for text in busy.warnings)
    after = monitor.idle()
    if after.shared:
        pytest.skip("someone else computes on this GPU")
    assert not any(text.startswith("shared:") for text in after.warnings)


def test_the_thread_takes_under_a_percent_of_a_core(
    monitor: GpuMonitor, spin: Callable[[float], None]
) -> None:
    with monitor.sampling():
        shares = [
            measured(monitor, spin, seconds)[0].thread_cpu_share for seconds in (0.1, 0.3, 1.0, 3.0)
        ]
    assert all(share is not None and share < 0.01 for share in shares), shares


def test_the_drivers_buffers_keep_the_systems_time(
    monitor: GpuMonitor, spin: Callable[[float], None]
) -> None:
    """Else they are never used: worth knowing of a new driver."""
    began_s = time.perf_counter()
    spin(1.5)
    ended_s, device = time.perf_counter(), monitor._device
    assert device is not None
    for metric in ("util_pct", "power_w"):
        points = device.buffered(metric, began_s, time.time() - time.perf_counter())
        if "buffers" in device.errors:
            pytest.skip(device.errors["buffers"])
        assert points, f"no sample of {metric} within 1.5 s, or on another clock"
        assert all(began_s < time_s < ended_s + 0.5 for time_s, _ in points)
    assert (
        max(
            value
            for _, value in device.buffered("util_pct", began_s, time.time() - time.perf_counter())
        )
        > 50
    )
