#!/usr/bin/env python
"""Whose card is measured: a second process on it is noticed, and CUDA_VISIBLE_DEVICES is obeyed.

A process of its own loads the card while the sweep runs: each record then has a warning that the
GPU is shared, and has none when the process has gone. Children with CUDA_VISIBLE_DEVICES by UUID
and, with two cards, in another order must measure and read the card that was named. Without CUDA
the same processes run on the CPU, and no check counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import common, workloads
from benchmarks.common import Row
from utils.profiler import InferenceProfiler
from utils.system.environment import read_environment

WARNING = "shared"
"""How the warning begins."""
# Runs back to back for the GPU's readings: NVML averages utilisation over up to a second.
WINDOW_S = 2.0
START_TIMEOUT_S, CHILD_TIMEOUT_S = 60, 120
BESIDE_CHECK = "a second process loads the card: warned"
ALONE_CHECK = "the second process has gone: not warned"
LOAD = """
import sys, time, torch
cuda = sys.argv[1] == "cuda"
a = torch.ones(1024, 1024, device=sys.argv[1])
print("ready", flush=True)
while True:
    a @ a
    if cuda:
        torch.cuda.synchronize()
"""


@contextmanager
def loaded_by_another_process(device: torch.device) -> Iterator[None]:
    """A second process works on the device inside the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOAD, device.type], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(
                f"the loading process ended with exit code {process.wait(START_TIMEOUT_S)}"
            )
        yield
    finally:
        process.kill()
        process.wait()


def sweep(device: torch.device, seconds: float) -> dict[str, Any]:
    """One batch size of planted 5 ms, in runs that are long for GPU readings."""
    rate = workloads.cycles_per_s(device) if device.type == "cuda" else 0.0
    batches = max(4, round(seconds / 0.005))
    profiler = InferenceProfiler(
        workloads.Planted(0.005, device, rate=rate), workloads.ReadyTokens(), device=device
    )
    texts = ["a"] * 4 * batches
    record = workloads.sweep_one_size(
        profiler, texts, 4, 3, max_length=64, min_window_seconds=WINDOW_S
    )
    return record.to_dict()


def shared_warnings(row: dict[str, Any]) -> list[str]:
    """What a row says of others on the card."""
    return [text for text in row["warnings"] if text.lower().startswith(WARNING)]


def sharing_rows(device: torch.device, seconds: float) -> Iterator[Row]:
    """With the other process and, as the control, without it."""
    with loaded_by_another_process(device):
        beside = shared_warnings(sweep(device, seconds))
        num_listed = count_listed_processes(device)
    alone = shared_warnings(sweep(device, seconds))
    if device.type != "cuda":
        for check in (BESIDE_CHECK, ALONE_CHECK):
            yield common.not_here(check, "no CUDA device; the same steps ran on the CPU")
        return
    yield from compare_warnings(beside, alone, num_listed)


def count_listed_processes(device: torch.device) -> int | None:
    """How many compute processes NVML lists on the device; None where it cannot list any."""
    if device.type != "cuda":
        return None
    import pynvml

    uuid = torch.cuda.get_device_properties(device).uuid
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        return len(pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
    except pynvml.NVMLError:
        return None


def compare_warnings(
    beside: Sequence[str], alone: Sequence[str], num_listed: int | None
) -> Iterator[Row]:
    """The warnings with and without a second process.

    Args:
        num_listed: how many processes NVML listed while two were there. A container may hide both,
            or the other one; without a warning nothing is then said of this program.
    """
    is_hidden = num_listed is None or num_listed < 2
    if is_hidden and not beside:
        listed = "no processes" if num_listed is None else f"{num_listed} of 2 processes"
        for check in (BESIDE_CHECK, ALONE_CHECK):
            yield common.not_here(check, f"NVML lists {listed}; a container may hide the others")
        return
    measured = "; ".join(beside) or "none"
    yield common.checked(BESIDE_CHECK, bool(beside), expected="a warning", measured=measured)
    measured = "; ".join(alone) or "none"
    yield common.checked(ALONE_CHECK, not alone, expected="none", measured=measured)


def in_a_child(visible: str | None, device: torch.device, seconds: float) -> dict[str, Any]:
    """What a new process with this CUDA_VISIBLE_DEVICES reads of its first device."""
    variables = {**os.environ, **({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})}
    command = [
        sys.executable,
        str(Path(__file__).resolve()),
        "--device",
        device.type,
        "--child",
        str(seconds),
    ]
    done = subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=CHILD_TIMEOUT_S, check=True
    )
    readings: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return readings


def child(device: torch.device, seconds: float) -> None:
    """Measure, and say on which device and with which readings."""
    row = sweep(device, seconds)
    gpu = read_environment(str(device)).gpu
    print(
        json.dumps(
            {
                "uuid": None if gpu is None else gpu.uuid,
                "util_pct": row["gpu_util_pct_mean"],
                "warnings": row["warnings"],
            }
        )
    )


def uuid_rows(device: torch.device, seconds: float) -> Iterator[Row]:
    """By UUID, and in reverse order where there are two cards."""
    by_uuid, reversed_order = (
        "CUDA_VISIBLE_DEVICES by UUID: the device",
        "CUDA_VISIBLE_DEVICES reversed: the device",
    )
    if device.type != "cuda":
        in_a_child(None, device, 0.1)
        for check in (by_uuid, reversed_order):
            yield common.not_here(check, "no CUDA device; a child process measured on the CPU")
        return
    uuids = [
        f"GPU-{torch.cuda.get_device_properties(i).uuid}" for i in range(torch.cuda.device_count())
    ]
    readings = in_a_child(uuids[-1], device, seconds)
    yield common.checked(
        by_uuid, readings["uuid"] == uuids[-1], expected=uuids[-1], measured=readings["uuid"]
    )
    util_pct = readings["util_pct"]
    yield common.checked(
        "CUDA_VISIBLE_DEVICES by UUID: utilisation of a card that spins all the time",
        util_pct is not None and util_pct >= 90,
        expected=">= 90 %",
        measured=f"{util_pct} %" if util_pct is not None else "; ".join(readings["warnings"]),
    )
    if len(uuids) < 2:
        yield common.not_here(reversed_order, "one card only")
        return
    order = ",".join(str(i) for i in reversed(range(len(uuids))))
    readings = in_a_child(order, device, seconds)
    yield common.checked(
        reversed_order, readings["uuid"] == uuids[-1], expected=uuids[-1], measured=readings["uuid"]
    )


def measure(args: argparse.Namespace) -> Iterator[Row]:
    device = common.resolve(args.device)
    seconds = 1.5 if device.type == "cuda" else 0.1
    yield from sharing_rows(device, seconds)
    yield from uuid_rows(device, seconds)


def main(argv: Sequence[str] | None = None) -> int:
    parser = common.make_parser(__doc__ or "", "python benchmarks/gpu_devices.py")
    parser.add_argument("--child", type=float, metavar="SECONDS", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child is not None:
        child(common.resolve(args.device), args.child)
        return 0
    return common.run(parser, measure, argv)


if __name__ == "__main__":
    raise SystemExit(main())
