"""What the program reads of a simulated device: its names, its memory and its events."""

from __future__ import annotations

import pytest
import torch

from tests.simulated_cuda.nvml import DriverFaults
from tests.simulated_cuda.simulate import Simulation, simulated_cuda
from utils.metrics import MetricsCollector
from utils.system.environment import read_environment

KIB = 1 << 10


@pytest.mark.parametrize(
    ("simulation", "prefix"),
    [
        (Simulation(), "GPU-"),
        (Simulation(has_nvml=False), "GPU-"),
        (Simulation(faults=DriverFaults(mig=True)), "MIG-"),
    ],
    ids=["a board", "no NVML", "MIG"],
)
def test_the_record_names_the_device_as_nvml_does(simulation: Simulation, prefix: str) -> None:
    with simulated_cuda(simulation) as machine:
        gpu = read_environment("cuda:0").gpu
        assert gpu is not None
        assert gpu.uuid == f"{prefix}{machine.gpu().uuid}"


def test_activations_are_what_tensors_asked_for() -> None:
    with simulated_cuda():
        collector = MetricsCollector("cuda")
        with collector.measure(batch_size=1, num_samples=1) as measurement:
            held = [torch.empty(KIB + 1, dtype=torch.uint8, device="cuda") for _ in range(10)]
        assert len(held) == 10
    assert measurement.run is not None
    assert measurement.run.activation_bytes == 10 * (KIB + 1)
    assert measurement.run.allocated_change_bytes == 10 * (KIB + 512), "in blocks"
