"""The device that a name means, and its errors of memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from utils.core.errors import ModelError, reason_of

MEMORY_ERRORS = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "can't allocate memory",
)
"""In messages of RuntimeErrors: cuBLAS, CUDA and the host's allocator have no class for it."""

NOT_ON_CUDA = "the model is not on a CUDA device"
"""Why metrics of a GPU are missing."""
AMPERE = (8, 0)
"""The compute capability from which on a GPU has TF32 and bfloat16. Source: CUDA C++ Programming
Guide, "Compute Capabilities"."""


def resolve_device(name: str | torch.device) -> torch.device:
    """The device that ``cuda``, ``cuda:N``, ``cpu`` or ``auto`` means; CUDA always with its index.

    Raises:
        ModelError: the name is unknown, or PyTorch does not see the device.
    """
    name = str(name)
    has_cuda = torch.cuda.is_available()
    if name in ("cpu", "cpu:0") or (name == "auto" and not has_cuda):
        return torch.device("cpu")
    if not re.fullmatch(r"auto|cuda(:\d+)?", name):
        raise ModelError(
            f"Unknown device: {name!r}.",
            where="model.device",
            fix="use cuda, cuda:N, cpu or auto",
        )
    index = int(name.partition(":")[2] or 0)
    count = torch.cuda.device_count() if has_cuda else 0
    if index >= count:
        raise _missing_device(name, count)
    return torch.device("cuda", index)


def _missing_device(name: str, count: int) -> ModelError:
    fix = "run on the CPU with --set model.device=cpu"
    if count:
        fix += f", or use cuda:0 to cuda:{count - 1}"
    return ModelError(
        f"{name} was requested, but PyTorch sees {count} CUDA devices.",
        where="model.device",
        fix=fix,
    )


def has_ampere_precisions(device: torch.device) -> bool:
    """Whether a CUDA device computes in TF32 and bfloat16 itself.

    ``torch.cuda.is_bf16_supported`` is also true where bfloat16 is emulated, and asks the current
    device.
    """
    return torch.cuda.get_device_capability(device) >= AMPERE


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device's or the host's memory ran out."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    return any(text in str(error) for text in MEMORY_ERRORS)


@dataclass(kw_only=True, slots=True)
class OutOfMemory:
    """Why memory ran out; None if it did not."""

    reason: str | None = None


@contextmanager
def catch_out_of_memory() -> Iterator[OutOfMemory]:
    """Turn running out of memory into a result.

    Memory can be released only after the block: inside, the error still refers to its tensors.
    """
    result = OutOfMemory()
    try:
        yield result
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        result.reason = reason_of(error)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all its work; the CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
