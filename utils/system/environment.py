"""The record of the machine: what decides whether results of two runs can be compared."""

from __future__ import annotations

import importlib
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from utils.core.files import PROJECT_ROOT, JsonObject
from utils.pipeline.machine import LIBRARIES, VARIABLES, library_version
from utils.schema.run import CpuInfo, Environment, GitState, GpuInfo, TorchSettings
from utils.system.gpu_monitor import device_uuids
from utils.system.process import TOKENIZER_THREADS, tokenizer_threads_of_sweep, usable_cores


@dataclass(frozen=True, kw_only=True)
class DriverSetting:
    """How NVML reads one setting of a device: its function, arguments and units per value."""

    function: str
    arguments: tuple[int, ...] = ()
    scale: float = 1.0


DRIVER_VERSION = "driver"
DEVICE_SETTINGS = {
    "max_sm_clock_mhz": DriverSetting(function="nvmlDeviceGetMaxClockInfo", arguments=(1,)),
    "max_memory_clock_mhz": DriverSetting(function="nvmlDeviceGetMaxClockInfo", arguments=(2,)),
    "power_limit_w": DriverSetting(function="nvmlDeviceGetEnforcedPowerLimit", scale=1e3),
    "persistence_mode": DriverSetting(function="nvmlDeviceGetPersistenceMode"),
    "ecc_mode": DriverSetting(function="nvmlDeviceGetEccMode"),
}
DRIVER_SETTINGS = (DRIVER_VERSION, *DEVICE_SETTINGS)


def read_environment(device: str) -> Environment:
    """Hardware, libraries, precision flags and thread counts.

    Args:
        device: the model's, such as ``cpu`` or ``cuda:0``.
    """
    gpu = None
    if device.startswith("cuda"):
        gpu = _gpu_info(device)
    return Environment(
        platform=platform.platform(),
        python=platform.python_version(),
        libraries={name: library_version(name) for name in LIBRARIES},
        cpu=_cpu_info(),
        gpu=gpu,
        torch=_torch_settings(),
        variables=_variables(torch.device(device).type),
        git=_git_state(),
    )


def _variables(device_type: str) -> dict[str, str | None]:
    variables = {name: os.environ.get(name) for name in VARIABLES}
    # The sweep may set it for itself.
    variables[TOKENIZER_THREADS] = tokenizer_threads_of_sweep(device_type)
    return variables


def _cpu_info() -> CpuInfo:
    return CpuInfo(
        name=_cpu_name(),
        physical_cores=psutil.cpu_count(logical=False),
        logical_cores=psutil.cpu_count(),
        usable_cores=usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
    )


def _cpu_name() -> str:
    file = Path("/proc/cpuinfo")
    if file.exists():
        match = re.search(r"^model name\s*: (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
        if match:
            return match[1]
    return platform.processor() or platform.machine()


def _torch_settings() -> TorchSettings:
    return TorchSettings(
        num_threads=torch.get_num_threads(),
        num_interop_threads=torch.get_num_interop_threads(),
        matmul_precision=torch.get_float32_matmul_precision(),
        cudnn_allow_tf32=torch.backends.cudnn.allow_tf32,
        deterministic_algorithms=torch.are_deterministic_algorithms_enabled(),
        cuda_build=torch.version.cuda,
    )


def _git_state() -> GitState:
    """Commit of this project and whether files differ from it; both None outside a checkout."""
    command = ("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        done = subprocess.run(
            command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return GitState()
    description = done.stdout.strip()
    return GitState(commit=description.removesuffix("-dirty"), dirty=description.endswith("-dirty"))


def _gpu_info(device: str) -> GpuInfo:
    card = torch.cuda.get_device_properties(device)
    uuids = device_uuids(torch.device(device))
    known_uuid = find_known_uuid(uuids)
    return GpuInfo(
        name=card.name,
        uuid=known_uuid or uuids[-1],
        compute_capability=f"{card.major}.{card.minor}",
        multiprocessors=card.multi_processor_count,
        memory_bytes=card.total_memory,
        **driver_record(known_uuid or uuids[-1]),
    )


def find_known_uuid(uuids: Sequence[str], nvml: Any = None) -> str | None:
    """The first name that NVML knows; None where it knows none or is missing.

    Args:
        nvml: the module ``pynvml``, or a stand-in for tests.
    """
    try:
        nvml = nvml or importlib.import_module("pynvml")
        nvml.nvmlInit()
    except (ImportError, getattr(nvml, "NVMLError", ImportError)):
        return None
    for uuid in uuids:
        if _read_driver(nvml, "nvmlDeviceGetHandleByUUID", uuid) is not None:
            return uuid
    return None


def driver_record(uuid: str, nvml: Any = None) -> JsonObject:
    """How the driver has set up the GPU: what may differ between machines with the same card.

    A value is None if NVML, the device or the function is missing.

    Args:
        nvml: the module ``pynvml``, or a stand-in for tests.
    """
    record: JsonObject = dict.fromkeys(DRIVER_SETTINGS)
    try:
        nvml = nvml or importlib.import_module("pynvml")
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    except (ImportError, getattr(nvml, "NVMLError", ImportError)):
        return record
    version = _read_driver(nvml, "nvmlSystemGetDriverVersion")
    if version is not None:
        record[DRIVER_VERSION] = str(version)
    for name, setting in DEVICE_SETTINGS.items():
        value = _read_driver(nvml, setting.function, handle, *setting.arguments)
        if value is not None:
            record[name] = value / setting.scale
    return record


def _read_driver(nvml: Any, function: str, *arguments: Any) -> Any:
    """What NVML returns, of a pair the first: the present value; None if it fails."""
    try:
        value = getattr(nvml, function)(*arguments)
    except (nvml.NVMLError, AttributeError):
        return None
    if isinstance(value, (list, tuple)):
        return value[0]
    return value
