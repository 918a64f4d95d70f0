"""Which device a name means."""

from __future__ import annotations

import re

import torch

from utils.core.errors import ModelError

# In the messages of RuntimeErrors: cuBLAS, CUDA itself and the host's allocator have no class of their own for it.
MEMORY_ERRORS = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory", "can't allocate memory")


def resolve_device(name: str | torch.device) -> torch.device:
    """The device that ``cuda``, ``cuda:N``, ``cpu`` or ``auto`` means; CUDA always with its index. ModelError: not there."""
    name = str(name)
    if name in ("cpu", "cpu:0") or name == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    if not re.fullmatch(r"auto|cuda(:\d+)?", name):
        raise ModelError(f"The device cannot be {name!r}.", where="model.device", fix="cuda, cuda:N, cpu or auto")
    index = int(name.partition(":")[2] or 0)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        fix = "run on the CPU with --set model.device=cpu" + (f", or use cuda:0 to cuda:{count - 1}" if count else "")
        raise ModelError(f"{name} was asked for, but PyTorch sees {count} CUDA devices.", where="model.device", fix=fix)
    return torch.device("cuda", index)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's or the host's memory ran out."""
    told = isinstance(error, RuntimeError) and any(text in str(error) for text in MEMORY_ERRORS)
    return told or isinstance(error, torch.OutOfMemoryError)
