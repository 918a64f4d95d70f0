"""Turn the simulation on: for a block of a test, or for a whole process."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from tests.simulated_cuda import cuda_api
from tests.simulated_cuda.machine import GIB, Machine, make_machine
from tests.simulated_cuda.mode import SimulatedCudaMode
from tests.simulated_cuda.nvml import DriverFaults, SimulatedNvml

VARIABLE = "SIMULATED_CUDA"
"""In the environment of a process to simulate: a ``Simulation`` as JSON."""
REPORT_VARIABLE = "SIMULATED_CUDA_REPORT"
"""A folder; each simulated process writes its counts there when it ends."""


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What is simulated.

    Args:
        has_nvml: whether the package nvidia-ml-py is installed.
        capability: the compute capability; a GPU has bfloat16 and TF32 from 8.0 on.
        counts_requests: whether the allocator counts what tensors asked for, as PyTorch's own does.
    """

    num_gpus: int = 1
    memory_bytes: int = 16 * GIB
    has_nvml: bool = True
    capability: tuple[int, int] = (9, 0)
    counts_requests: bool = True
    faults: DriverFaults = field(default_factory=DriverFaults)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Simulation:
        values: dict[str, Any] = json.loads(text)
        faults = DriverFaults(**values.pop("faults"))
        # JSON has no tuples.
        major, minor = values.pop("capability")
        return cls(faults=faults, capability=(major, minor), **values)


@contextmanager
def simulated_cuda(simulation: Simulation | None = None) -> Iterator[Machine]:
    """While the block runs, PyTorch sees simulated GPUs; all threads that it starts too."""
    simulation = simulation or Simulation()
    machine = make_machine(
        num_gpus=simulation.num_gpus,
        memory_bytes=simulation.memory_bytes,
        capability=simulation.capability,
        counts_requests=simulation.counts_requests,
    )
    with ExitStack() as stack:
        _replace_all(stack, machine, simulation)
        stack.enter_context(SimulatedCudaMode(machine))
        yield machine


def _replace_all(stack: ExitStack, machine: Machine, simulation: Simulation) -> None:
    for name, value in cuda_api.replacements(machine).items():
        stack.enter_context(mock.patch.object(torch.cuda, name, value, create=True))
    stack.enter_context(mock.patch.object(torch.version, "cuda", "13.0"))
    stack.enter_context(mock.patch.object(torch, "Generator", _HostGenerator))
    stack.enter_context(mock.patch.object(torch, "compile", _recorded_compile(machine)))
    stack.enter_context(
        mock.patch.object(torch.nn.Module, "compile", _recorded_module_compile(machine))
    )
    stack.enter_context(
        mock.patch.object(torch.profiler.profile, "__init__", _init_host_profiler())
    )
    stack.enter_context(mock.patch.object(threading.Thread, "run", _run_simulated(machine)))
    nvml = SimulatedNvml(machine, simulation.faults) if simulation.has_nvml else None
    # None in sys.modules makes an import fail, as where the package is not installed.
    stack.enter_context(_replaced_module("pynvml", nvml))


@contextmanager
def _replaced_module(name: str, module: Any) -> Iterator[None]:
    """Only this entry of ``sys.modules`` is put back: what the block imports stays imported.

    ``mock.patch.dict`` would drop those modules, and their classes would exist twice.
    """
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


class _HostGenerator(torch.Generator):
    """A generator of the host, whichever device was asked for."""

    def __new__(cls, device: Any = "cpu") -> Any:
        return torch._C.Generator.__new__(cls, device="cpu")


def _recorded_compile(machine: Machine) -> Any:
    """Up to the compiler's call: what would be compiled is recorded and stays as it is."""

    def compile_(target: Any = None, **options: Any) -> Any:
        if target is None:
            return lambda function: compile_(function, **options)
        machine.compiled.append(getattr(target, "__qualname__", type(target).__name__))
        return target

    return compile_


def _recorded_module_compile(machine: Machine) -> Any:
    def compile_(module: torch.nn.Module, *_: Any, **__: Any) -> None:
        machine.compiled.append(type(module).__name__)

    return compile_


def _init_host_profiler() -> Any:
    """``profile.__init__`` without the CUDA activity, which needs a CUDA build: no kernels.

    Nor are there stacks: most of their frames would be the simulation's, and take long to read.
    """
    init = torch.profiler.profile.__init__

    def init_host_profiler(profiler: Any, *, activities: Any = None, **options: Any) -> None:
        if activities is not None:
            activities = set(activities) - {torch.profiler.ProfilerActivity.CUDA}
            activities = activities or {torch.profiler.ProfilerActivity.CPU}
        init(profiler, activities=activities, **{**options, "with_stack": False})

    return init_host_profiler


def _run_simulated(machine: Machine) -> Any:
    """``Thread.run`` with a mode of its own: modes belong to the thread that entered them."""
    run = threading.Thread.run

    def run_simulated(thread: threading.Thread) -> None:
        with SimulatedCudaMode(machine):
            run(thread)

    return run_simulated


def simulate_process() -> None:
    """Simulate the rest of this process, as the environment says; report at its end."""
    stack = ExitStack()
    machine = stack.enter_context(simulated_cuda(Simulation.from_json(os.environ[VARIABLE])))
    # Never left: the interpreter's end would turn the simulation off too early.
    _OPEN.append(stack)
    folder = os.environ.get(REPORT_VARIABLE)
    if folder:
        threading._register_atexit(  # type: ignore[attr-defined]
            write_report, machine, Path(folder) / f"{os.getpid()}.json"
        )


_OPEN: list[ExitStack] = []


def write_report(machine: Machine, file: Path) -> None:
    """Write what the process made the host wait for."""
    report = {
        "script": Path(sys.argv[0]).name,
        "waits": machine.waits,
        "slow_copies": machine.slow_copies,
        "synchronisations": machine.synchronisations,
        "compiled": machine.compiled,
        "peak_bytes": [gpu.peak_bytes for gpu in machine.gpus],
        "num_out_of_memory": [gpu.num_out_of_memory for gpu in machine.gpus],
    }
    file.write_text(json.dumps(report, indent=2))
