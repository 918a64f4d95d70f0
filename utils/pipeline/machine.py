"""What may change between two processes on the same code, without importing PyTorch."""

from __future__ import annotations

import os
import platform
from importlib import metadata

LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "datasets",
    "numpy",
    "pyarrow",
    "nvidia-ml-py",
    "peft",
)
"""Libraries that decide results or speed."""
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
    "NVIDIA_TF32_OVERRIDE",
    "TOKENIZERS_PARALLELISM",
)
"""Environment variables that decide speed."""


def library_version(name: str) -> str | None:
    """The installed version of a library; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def read_libraries() -> dict[str, str | None]:
    """The versions of Python and of the libraries that decide results or speed."""
    versions: dict[str, str | None] = {"Python": platform.python_version()}
    for name in LIBRARIES:
        versions[name] = library_version(name)
    return versions


def read_machine() -> dict[str, str | None]:
    """Host, Python, libraries and environment variables: processes that differ are no repeats."""
    machine: dict[str, str | None] = {"host": platform.node(), **read_libraries()}
    for name in VARIABLES:
        machine[name] = os.environ.get(name)
    return machine
