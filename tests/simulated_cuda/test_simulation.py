"""The simulated device follows the rules of a real one: each test names the rule."""

from __future__ import annotations

import gc
import importlib
import threading

import pytest
import torch

from tests.simulated_cuda.machine import GIB, SimulationError
from tests.simulated_cuda.nvml import DriverFaults, NVMLError
from tests.simulated_cuda.simulate import Simulation, simulated_cuda

MIB = 1 << 20


def test_tensors_of_the_host_and_a_device_do_not_mix() -> None:
    with simulated_cuda():
        layer = torch.nn.Linear(3, 2).to("cuda")
        assert layer.weight.device == torch.device("cuda:0")
        assert layer(torch.ones(1, 3, device="cuda")).is_cuda
        with pytest.raises(RuntimeError, match="same device"):
            layer(torch.ones(1, 3))


def test_tensors_of_two_devices_do_not_mix() -> None:
    with simulated_cuda(Simulation(num_gpus=2)):
        first = torch.ones(2, device="cuda:0")
        second = torch.ones(2, device="cuda:1")
        with pytest.raises(RuntimeError, match="cuda:0.*cuda:1"):
            torch.add(first, second)
        assert (first.to("cuda:1") + second).device == torch.device("cuda:1")


def test_a_view_is_where_its_tensor_is() -> None:
    with simulated_cuda():
        tensor = torch.ones(4, 4, device="cuda")
        assert tensor[1:].t().is_cuda
        assert tensor.chunk(2)[0].device.type == "cuda"
        assert not torch.ones(4).is_cuda


def test_memory_is_counted_in_blocks_and_freed_with_the_last_view() -> None:
    with simulated_cuda() as machine:
        tensor = torch.zeros(1000, dtype=torch.uint8, device="cuda")
        view = tensor[:10]
        del tensor
        gc.collect()
        assert torch.cuda.memory_allocated() == 1024
        assert torch.cuda.memory_stats()["requested_bytes.all.current"] == 1000
        del view
        gc.collect()
        assert torch.cuda.memory_allocated() == 0
        assert torch.cuda.max_memory_allocated() == 1024
        torch.cuda.reset_peak_memory_stats()
        assert machine.gpu().peak_bytes == 0


def test_memory_runs_out() -> None:
    with simulated_cuda(Simulation(memory_bytes=MIB)):
        with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
            torch.empty(2 * MIB, dtype=torch.uint8, device="cuda")
        assert torch.empty(MIB, dtype=torch.uint8, device="cuda").is_cuda


@pytest.mark.parametrize(
    "read",
    [
        lambda tensor: tensor.sum().item(),
        lambda tensor: tensor.cpu(),
        lambda tensor: tensor.to("cpu"),
        lambda tensor: bool(tensor[0] > 0),
        lambda tensor: tensor.tolist(),
        lambda tensor: tensor.nonzero(),
        lambda tensor: tensor[tensor > 0],
    ],
)
def test_a_hidden_wait_is_counted(read: object) -> None:
    with simulated_cuda() as machine:
        tensor = torch.ones(3, device="cuda")
        assert not machine.waits
        read(tensor)  # type: ignore[operator]
        assert machine.waits.total() == 1


def test_numpy_refuses_a_device_tensor() -> None:
    with simulated_cuda(), pytest.raises(TypeError, match="cuda"):
        torch.ones(3, device="cuda").numpy()


def test_an_asynchronous_copy_of_unpinned_memory_is_counted() -> None:
    with simulated_cuda() as machine:
        torch.ones(3).to("cuda", non_blocking=True)
        assert machine.slow_copies.total() == 1
        torch.ones(3).pin_memory().to("cuda", non_blocking=True)
        assert machine.slow_copies.total() == 1


def test_a_result_may_be_read_after_its_event_and_not_before() -> None:
    with simulated_cuda() as machine:
        result = torch.ones(3, device="cuda") * 2
        host = torch.empty(3, pin_memory=True)
        host.copy_(result, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        with pytest.raises(SimulationError, match="before its event"):
            host.numpy()
        with pytest.raises(SimulationError, match="before its event"):
            host + 1
        copied.synchronize()
        assert host.tolist() == [2, 2, 2]
        assert not machine.waits


def test_an_event_before_the_copy_is_not_its_event() -> None:
    with simulated_cuda():
        event = torch.cuda.Event()
        event.record()
        host = torch.empty(3, pin_memory=True)
        host.copy_(torch.ones(3, device="cuda"), non_blocking=True)
        event.synchronize()
        with pytest.raises(SimulationError):
            host.numpy()


def test_memory_that_a_copy_still_reads_is_not_changed() -> None:
    with simulated_cuda():
        source = torch.ones(3).pin_memory()
        source.to("cuda", non_blocking=True)
        with pytest.raises(SimulationError, match="still reads"):
            source.zero_()
        torch.cuda.synchronize()
        source.zero_()


def test_elapsed_time_needs_events_that_were_waited_for() -> None:
    with simulated_cuda():
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        end.record()
        with pytest.raises(SimulationError, match="elapsed_time"):
            begin.elapsed_time(end)
        end.synchronize()
        assert begin.elapsed_time(end) >= 0


def test_threads_see_the_device() -> None:
    devices = []
    with simulated_cuda():
        tensor = torch.ones(1, device="cuda")
        thread = threading.Thread(target=lambda: devices.append((tensor + 1).device))
        thread.start()
        thread.join()
    assert devices == [torch.device("cuda:0")]


def test_the_results_are_those_of_the_host() -> None:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    texts = torch.randn(2, 5, 8)
    expected = layer(texts)
    with simulated_cuda():
        result = layer.to("cuda")(texts.to("cuda")).cpu()
    assert torch.equal(result, expected)


def test_tensors_without_values_stay_without_values() -> None:
    with simulated_cuda():
        assert torch.empty(2, device="meta").is_meta
        assert torch.ones(2).to("meta").is_meta
        with torch.device("meta"):
            assert torch.nn.Linear(2, 2).weight.is_meta


def test_nothing_is_left_of_the_simulation() -> None:
    before = torch.cuda.is_available()
    with simulated_cuda():
        assert torch.cuda.is_available()
    assert torch.cuda.is_available() == before
    assert not torch.ones(1).is_cuda


def test_nvml_knows_the_devices_by_their_names_and_in_its_own_order() -> None:
    with simulated_cuda(Simulation(num_gpus=2)):
        pynvml = importlib.import_module("pynvml")
        uuid = f"GPU-{torch.cuda.get_device_properties(1).uuid}"
        by_uuid = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        assert by_uuid is not pynvml.nvmlDeviceGetHandleByIndex(1)
        assert by_uuid is pynvml.nvmlDeviceGetHandleByIndex(0)
        torch.ones(GIB >> 10, device="cuda:1")


def test_nvml_fails_after_a_number_of_calls() -> None:
    with simulated_cuda(Simulation(faults=DriverFaults(failing_after=1))):
        pynvml = importlib.import_module("pynvml")
        pynvml.nvmlInit()
        with pytest.raises(NVMLError, match="lost"):
            pynvml.nvmlInit()


def test_nvml_may_be_missing() -> None:
    with simulated_cuda(Simulation(has_nvml=False)), pytest.raises(ImportError):
        importlib.import_module("pynvml")


def test_what_would_be_compiled_is_recorded_and_runs_uncompiled() -> None:
    with simulated_cuda() as machine:
        layer = torch.nn.Linear(2, 2)
        assert torch.compile(layer) is layer
        layer.compile(dynamic=True)
        assert machine.compiled == ["Linear", "Linear"]
