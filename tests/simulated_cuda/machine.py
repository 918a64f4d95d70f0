"""The simulated machine: its GPUs, their memory, and what the program made the host wait for."""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

BLOCK_BYTES = 512
"""The allocator of PyTorch rounds each request up to blocks of this size."""
GIB = 1 << 30


class SimulationError(AssertionError):
    """The program did what would give wrong numbers on a real GPU."""


@dataclass(slots=True)
class SimulatedGpu:
    """One device: its memory, and how much of the work that was launched on it is known as done.

    ``launched`` counts the operations given to the device; ``completed`` is the last of them that
    the host has waited for. The program resets ``peak_bytes``; ``highest_bytes`` stays.
    """

    index: int
    total_bytes: int
    allocated_bytes: int = 0
    peak_bytes: int = 0
    highest_bytes: int = 0
    requested_bytes: int = 0
    peak_requested_bytes: int = 0
    launched: int = 0
    completed: int = 0
    num_out_of_memory: int = 0

    @property
    def uuid(self) -> str:
        """Without the prefix that NVML gives it."""
        return f"{self.index:08d}-1111-2222-3333-444444444444"

    def allocate(self, num_bytes: int) -> int:
        """Take memory; the size of the block.

        Raises:
            torch.OutOfMemoryError: the device has less memory left.
        """
        block_bytes = -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES
        free_bytes = self.total_bytes - self.allocated_bytes
        if block_bytes > free_bytes:
            self.num_out_of_memory += 1
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {block_bytes / GIB:.2f} GiB. "
                f"GPU {self.index} has a total capacity of {self.total_bytes / GIB:.2f} GiB of "
                f"which {free_bytes / GIB:.2f} GiB is free."
            )
        self.allocated_bytes += block_bytes
        self.requested_bytes += num_bytes
        self.peak_bytes = max(self.peak_bytes, self.allocated_bytes)
        self.highest_bytes = max(self.highest_bytes, self.allocated_bytes)
        self.peak_requested_bytes = max(self.peak_requested_bytes, self.requested_bytes)
        return block_bytes

    def free(self, block_bytes: int, num_bytes: int) -> None:
        self.allocated_bytes -= block_bytes
        self.requested_bytes -= num_bytes

    def wait(self) -> None:
        """The host waits for all that was launched."""
        self.completed = self.launched


@dataclass(slots=True)
class Machine:
    """All devices, and the counts that tests read.

    Args:
        gpus: the devices, by index.
        waits: where the host waited for a device without an explicit synchronisation, and how
            often: ``kind at file:line`` of the program.
        slow_copies: where an asynchronous copy from or to memory that is not pinned was asked for.
        synchronisations: explicit ones.
        busy_waits: where the host waited for an event that keeps a core busy meanwhile.
        event_creations: where an event was recorded first, which is when the driver creates it.
    """

    gpus: list[SimulatedGpu]
    waits: Counter[str] = field(default_factory=Counter)
    slow_copies: Counter[str] = field(default_factory=Counter)
    synchronisations: Counter[str] = field(default_factory=Counter)
    busy_waits: Counter[str] = field(default_factory=Counter)
    event_creations: Counter[str] = field(default_factory=Counter)
    compiled: list[str] = field(default_factory=list)
    current: int = 0
    capability: tuple[int, int] = (9, 0)
    counts_requests: bool = True

    def index_of(self, device: torch.device | str | int | None) -> int:
        """The index of a CUDA device; None and ``cuda`` mean the current one."""
        if isinstance(device, int):
            index = device
        elif device is None:
            index = self.current
        else:
            index = torch.device(device).index or 0
            if torch.device(device).index is None:
                index = self.current
        if not 0 <= index < len(self.gpus):
            raise RuntimeError("CUDA error: invalid device ordinal")
        return index

    def gpu(self, device: torch.device | str | int | None = None) -> SimulatedGpu:
        return self.gpus[self.index_of(device)]


def make_machine(
    *,
    num_gpus: int = 1,
    memory_bytes: int = 16 * GIB,
    capability: tuple[int, int] = (9, 0),
    counts_requests: bool = True,
) -> Machine:
    """A machine with equal GPUs."""
    gpus = [SimulatedGpu(index=index, total_bytes=memory_bytes) for index in range(num_gpus)]
    return Machine(gpus=gpus, capability=capability, counts_requests=counts_requests)


# The device of a tensor is that of its storage: views share it, and PyTorch keeps a storage's
# Python object, with its attributes, as long as the storage lives.


def gpu_index(tensor: torch.Tensor) -> int | None:
    """The simulated device of a tensor; None for a tensor of the host."""
    return getattr(tensor.untyped_storage(), "simulated_gpu", None)


def place(tensor: torch.Tensor, gpu: SimulatedGpu) -> None:
    """Put a tensor's storage on the device; nothing if it is there."""
    storage = tensor.untyped_storage()
    if getattr(storage, "simulated_gpu", None) is not None:
        return
    num_bytes = storage.nbytes()
    block_bytes = gpu.allocate(num_bytes)
    storage.simulated_gpu = gpu.index  # type: ignore[attr-defined]
    weakref.finalize(storage, gpu.free, block_bytes, num_bytes).atexit = False


def is_pinned(tensor: torch.Tensor) -> bool:
    return bool(getattr(tensor.untyped_storage(), "simulated_pinned", False))


def pin(tensor: torch.Tensor) -> None:
    tensor.untyped_storage().simulated_pinned = True  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Transfer:
    """A copy that may still run: bytes of a host storage, and the operation that ends it."""

    gpu: SimulatedGpu
    operation: int
    begin: int
    end: int
    writes_host: bool

    @property
    def is_done(self) -> bool:
        return self.operation <= self.gpu.completed


def byte_range(tensor: torch.Tensor) -> tuple[int, int]:
    """The bytes of its storage from the tensor's first to its last element."""
    size = tensor.element_size()
    begin = tensor.storage_offset() * size
    if not tensor.numel():
        return begin, begin
    last = tensor.storage_offset()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        last += (length - 1) * stride
    return begin, (last + 1) * size


def add_transfer(host: torch.Tensor, gpu: SimulatedGpu, *, writes_host: bool) -> None:
    """Note that the device writes to, or reads from, this host tensor until it is waited for."""
    storage = host.untyped_storage()
    begin, end = byte_range(host)
    running = [transfer for transfer in _transfers(host) if not transfer.is_done]
    running.append(
        Transfer(gpu=gpu, operation=gpu.launched, begin=begin, end=end, writes_host=writes_host)
    )
    storage.simulated_transfers = running  # type: ignore[attr-defined]


def _transfers(host: torch.Tensor) -> list[Transfer]:
    return list(getattr(host.untyped_storage(), "simulated_transfers", ()))


def check_host_access(host: torch.Tensor, name: str, *, writes: bool) -> None:
    """Raise if the host reads what the device still writes, or writes what it still reads.

    Raises:
        SimulationError: the copy was not waited for.
    """
    if not getattr(host.untyped_storage(), "simulated_transfers", None):
        return
    begin, end = byte_range(host)
    for transfer in _transfers(host):
        overlaps = transfer.begin < end and begin < transfer.end
        if transfer.is_done or not overlaps:
            continue
        if transfer.writes_host:
            raise SimulationError(
                f"{name} reads a result before its event was synchronised{caller()}"
            )
        if writes:
            raise SimulationError(
                f"{name} changes host memory that a copy to the device still reads{caller()}"
            )


def program_frames() -> Iterator[str]:
    """``file:line`` of the calling frames that are the program's own, the innermost first."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/utils/" in name and "site-packages" not in name:
            yield f"{name.rpartition('/utils/')[2]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]


def caller() -> str:
    """`` at file:line`` of the program's innermost frame; empty outside the program."""
    for place_of_call in program_frames():
        return f" at {place_of_call}"
    return ""
