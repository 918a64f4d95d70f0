"""Stand-ins for ``torch.cuda``: streams, events, memory figures and properties of the devices."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch

from tests.simulated_cuda.machine import Machine, SimulationError, caller

NAME = "NVIDIA Simulated GPU"


def make_event_class(machine: Machine) -> type:
    """The class that stands in for ``torch.cuda.Event``."""

    class Event:
        """Completes when the host has waited for it, or for something later."""

        def __init__(
            self,
            enable_timing: bool = False,
            blocking: bool = False,
            interprocess: bool = False,
        ) -> None:
            self.enable_timing = enable_timing
            self.blocking = blocking
            self.time_s: float | None = None
            self.operation = 0
            self.gpu = machine.gpu()

        def record(self, stream: Any = None) -> None:
            self.gpu = machine.gpu(None if stream is None else stream.device)
            if self.time_s is None:
                machine.event_creations[f"event{caller()}"] += 1
            self.gpu.launched += 1
            self.operation = self.gpu.launched
            self.time_s = time.perf_counter()

        def synchronize(self) -> None:
            assert self.time_s is not None, "the event was not recorded"
            machine.synchronisations[f"event{caller()}"] += 1
            if not self.blocking:
                machine.busy_waits[f"event{caller()}"] += 1
            self.gpu.completed = max(self.gpu.completed, self.operation)

        def wait(self, stream: Any = None) -> None:
            assert self.time_s is not None, "the event was not recorded"

        def query(self) -> bool:
            return self.operation <= self.gpu.completed

        def elapsed_time(self, end: Event) -> float:
            if not (self.enable_timing and end.enable_timing):
                raise ValueError("Both events must be created with argument 'enable_timing=True'.")
            if self.time_s is None or end.time_s is None:
                raise ValueError("Both events must be recorded before calculating elapsed time.")
            if not (self.query() and end.query()):
                raise SimulationError(f"elapsed_time before the events were synchronised{caller()}")
            return (end.time_s - self.time_s) * 1e3

    return Event


def make_stream_class(machine: Machine, event_class: type) -> type:
    """The class that stands in for ``torch.cuda.Stream``; all streams of a device run in order."""

    class Stream:
        cuda_stream = 0

        def __init__(self, device: Any = None, priority: int = 0, **_: Any) -> None:
            self.device = torch.device("cuda", machine.index_of(device))

        def synchronize(self) -> None:
            machine.synchronisations[f"stream{caller()}"] += 1
            machine.gpu(self.device).wait()

        def wait_stream(self, stream: Any) -> None: ...

        def wait_event(self, event: Any) -> None: ...

        def record_event(self, event: Any = None) -> Any:
            event = event or event_class()
            event.record(self)
            return event

        def __enter__(self) -> Stream:
            return self

        def __exit__(self, *_: object) -> None: ...

    return Stream


def memory_stats(machine: Machine, device: Any = None) -> dict[str, int]:
    gpu = machine.gpu(device)
    requests = {
        "requested_bytes.all.current": gpu.requested_bytes,
        "requested_bytes.all.peak": gpu.peak_requested_bytes,
    }
    return {
        **(requests if machine.counts_requests else {}),
        "allocated_bytes.all.current": gpu.allocated_bytes,
        "allocated_bytes.all.peak": gpu.peak_bytes,
        "reserved_bytes.all.current": gpu.allocated_bytes,
        "reserved_bytes.all.peak": gpu.peak_bytes,
        "num_ooms": gpu.num_out_of_memory,
        "num_alloc_retries": 0,
        "inactive_split_bytes.all.current": 0,
    }


def replacements(machine: Machine) -> dict[str, Any]:
    """Each replaced name of ``torch.cuda`` with its stand-in."""
    event_class = make_event_class(machine)
    stream_class = make_stream_class(machine, event_class)
    streams = [stream_class(gpu.index) for gpu in machine.gpus]
    return {
        "Event": event_class,
        "Stream": stream_class,
        "current_stream": lambda device=None: streams[machine.index_of(device)],
        "default_stream": lambda device=None: streams[machine.index_of(device)],
        "stream": lambda stream: contextlib.nullcontext(),
        **_device_functions(machine),
        **_property_functions(machine),
        **_memory_functions(machine),
        **_random_functions(),
    }


def _device_functions(machine: Machine) -> dict[str, Callable[..., Any]]:
    def synchronize(device: Any = None) -> None:
        machine.synchronisations[f"device{caller()}"] += 1
        machine.gpu(device).wait()

    def set_device(device: Any) -> None:
        machine.current = machine.index_of(device)

    @contextlib.contextmanager
    def device_block(device: Any) -> Iterator[None]:
        before = machine.current
        machine.current = machine.index_of(device)
        try:
            yield
        finally:
            machine.current = before

    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "init": lambda: None,
        "_lazy_init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "device_count": lambda: len(machine.gpus),
        "current_device": lambda: machine.current,
        "set_device": set_device,
        "device": device_block,
        "synchronize": synchronize,
        "is_current_stream_capturing": lambda: False,
        "ipc_collect": lambda: None,
        "_sleep": lambda cycles: time.sleep(cycles / 1.98e9),
    }


def _property_functions(machine: Machine) -> dict[str, Callable[..., Any]]:
    def properties(device: Any = None) -> SimpleNamespace:
        gpu = machine.gpu(device)
        return SimpleNamespace(
            name=NAME,
            total_memory=gpu.total_bytes,
            major=machine.capability[0],
            minor=machine.capability[1],
            multi_processor_count=132,
            uuid=gpu.uuid,
            L2_cache_size=50 << 20,
            warp_size=32,
            max_threads_per_multi_processor=2048,
            regs_per_multiprocessor=65536,
            shared_memory_per_block=49152,
            is_integrated=0,
            is_multi_gpu_board=0,
            gcnArchName="",
        )

    return {
        "get_device_name": lambda device=None: NAME,
        "get_device_properties": properties,
        "get_device_capability": lambda device=None: machine.capability,
        "get_arch_list": lambda: ["sm_90"],
        # PyTorch counts emulated bfloat16, which all GPUs have.
        "is_bf16_supported": lambda including_emulation=True: (
            including_emulation or machine.capability[0] >= 8
        ),
        "clock_rate": lambda device=None: 1980,
    }


def _memory_functions(machine: Machine) -> dict[str, Callable[..., Any]]:
    def reset_peak(device: Any = None) -> None:
        gpu = machine.gpu(device)
        gpu.peak_bytes = gpu.allocated_bytes
        gpu.peak_requested_bytes = gpu.requested_bytes

    def mem_get_info(device: Any = None) -> tuple[int, int]:
        gpu = machine.gpu(device)
        return gpu.total_bytes - gpu.allocated_bytes, gpu.total_bytes

    return {
        "memory_allocated": lambda device=None: machine.gpu(device).allocated_bytes,
        "max_memory_allocated": lambda device=None: machine.gpu(device).peak_bytes,
        "memory_reserved": lambda device=None: machine.gpu(device).allocated_bytes,
        "max_memory_reserved": lambda device=None: machine.gpu(device).peak_bytes,
        "reset_peak_memory_stats": reset_peak,
        "memory_stats": lambda device=None: memory_stats(machine, device),
        "mem_get_info": mem_get_info,
        "empty_cache": lambda: None,
    }


def _random_functions() -> dict[str, Callable[..., Any]]:
    # Random numbers come from the host's generator, which the caller has seeded.
    return {
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda *_, **__: None,
    }
