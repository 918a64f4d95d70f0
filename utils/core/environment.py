"""The machine's record: what another week needs to hold its figures against ours, or to refuse to."""

from __future__ import annotations

import importlib
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

from utils.core.artifacts import PROJECT_ROOT
from utils.core.process import usable_cores

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "datasets", "numpy", "pyarrow", "nvidia-ml-py", "peft")
DRIVER_SETTINGS: dict[str, tuple[str, tuple[int, ...], float | None]] = {  # NVML's function, its arguments, units a figure
    "driver": ("nvmlSystemGetDriverVersion", (), None),
    "max_sm_clock_mhz": ("nvmlDeviceGetMaxClockInfo", (1,), 1),
    "max_memory_clock_mhz": ("nvmlDeviceGetMaxClockInfo", (2,), 1),
    "power_limit_w": ("nvmlDeviceGetEnforcedPowerLimit", (), 1e3),
    "persistence_mode": ("nvmlDeviceGetPersistenceMode", (), 1),
    "ecc_mode": ("nvmlDeviceGetEccMode", (), 1),
}
VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF",
             "NVIDIA_TF32_OVERRIDE")


def environment_record(device: str) -> dict[str, Any]:
    """Hardware, libraries, precision flags and thread counts, as JSON values; ``device`` is the model's: ``cpu``, ``cuda:0``."""
    return {
        "platform": platform.platform(), "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "cpu": {
            "name": _cpu_name(), "physical_cores": psutil.cpu_count(logical=False), "logical_cores": psutil.cpu_count(),
            "usable_cores": usable_cores(), "memory_bytes": psutil.virtual_memory().total,
        },
        "gpu": _gpu_record(device) if device.startswith("cuda") else None,
        "torch": {
            "num_threads": torch.get_num_threads(), "num_interop_threads": torch.get_num_interop_threads(),
            "matmul_precision": torch.get_float32_matmul_precision(), "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(), "cuda_build": torch.version.cuda,
        },
        "variables": {name: os.environ.get(name) for name in VARIABLES},
        "git": _git_record(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_record() -> dict[str, Any]:
    """Commit of this project and whether files differ from it; both None outside a checkout."""
    words = ("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        said = subprocess.run(words, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    return {"commit": said.removesuffix("-dirty"), "dirty": said.endswith("-dirty")}


def _cpu_name() -> str:
    file = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", file.read_text(encoding="utf-8") if file.exists() else "", re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def _gpu_record(device: str) -> dict[str, Any]:
    card = torch.cuda.get_device_properties(device)
    return {
        "name": card.name, "uuid": f"GPU-{card.uuid}", "compute_capability": f"{card.major}.{card.minor}",
        "multiprocessors": card.multi_processor_count, "memory_bytes": card.total_memory, **driver_record(f"GPU-{card.uuid}"),
    }


def driver_record(uuid: str, nvml: Any = None) -> dict[str, Any]:
    """What the driver says of how the GPU is set: what may differ between two machines with the same card.

    Every value None where NVML, the device or the function is not there. ``nvml`` is for tests.
    """
    try:
        nvml = nvml or importlib.import_module("pynvml")
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    except (ImportError, getattr(nvml, "NVMLError", ImportError)):
        return dict.fromkeys(DRIVER_SETTINGS)

    def read(function: str, arguments: tuple[int, ...], scale: float | None) -> Any:
        try:
            value = getattr(nvml, function)(*([] if scale is None else [handle]), *arguments)
        except (nvml.NVMLError, AttributeError):
            return None
        value = value[0] if isinstance(value, (list, tuple)) else value
        return str(value) if scale is None else value / scale

    return {name: read(*how) for name, how in DRIVER_SETTINGS.items()}
