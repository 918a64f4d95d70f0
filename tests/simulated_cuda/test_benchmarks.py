"""The lines of the benchmarks that run on a CUDA device alone.

What they measure here is the host; what is exact by construction must be exact all the same.
"""

from __future__ import annotations

import io
import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from benchmarks import (
    evaluation_peers,
    gpu_devices,
    known_answers,
    known_times,
    measurement_peers,
    overhead,
    workloads,
)
from benchmarks.common import MISS, NOT_HERE, PASS, Row
from benchmarks.peers import contestants, time_spent
from tests import support
from tests.simulated_cuda.nvml import DriverFaults
from tests.simulated_cuda.simulate import Simulation, simulated_cuda
from utils.diagnosis import roofline
from utils.model_utils import load_model

CUDA = torch.device("cuda", 0)


def by_check(rows: list[Row]) -> dict[str, Row]:
    return {row.check: row for row in rows}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes and times of a real GPU take minutes on the host."""
    monkeypatch.setattr(workloads, "CALIBRATION_CYCLES", 2_000_000)
    monkeypatch.setattr(known_times, "POWERFUL_PRODUCT", 64)
    monkeypatch.setattr(known_times, "TIMES_MS", (1.0, 5.0))
    monkeypatch.setattr(overhead, "TIMES_MS", (2.0,))
    monkeypatch.setitem(roofline.MATMUL_SIZES, "cuda", (64,))
    monkeypatch.setitem(roofline.COPY_BYTES, "cuda", (1 << 16,))
    monkeypatch.setitem(roofline.CEILING_PRODUCT_AT_LEAST_S, "cuda", 0.002)
    monkeypatch.setitem(roofline.REPEAT_AT_LEAST_S, "cuda", 0.002)


def test_known_times_on_cuda() -> None:
    with simulated_cuda():
        rows = list(known_times.measure(Namespace(device="cuda", quick=True)))
    shown = by_check(rows)
    assert not [row.check for row in rows if row.status == NOT_HERE]
    for check in (
        "1 GiB allocated on the device: memory up by",
        "1 GiB allocated during a forward: peak up by",
        "16 and 128 tokens alternating, batches of 8: padding",
        "matrix products: energy against power x time",
    ):
        assert shown[check].status == PASS, shown[check]
    latency = shown["forward of 5 ms, batches of 4: latency a batch, median"]
    # The host's clock stands in for the cycles, whose rate is taken beside other programs.
    assert isinstance(latency.measured, float) and latency.measured >= 2


def test_a_card_without_energy_says_so() -> None:
    with simulated_cuda(Simulation(has_nvml=False)):
        collector_rows = list(known_times.memory_rows(CUDA))
        assert (
            by_check(collector_rows)["1 GiB allocated on the device: memory up by"].status == PASS
        )


def test_what_measuring_costs_on_cuda() -> None:
    args = Namespace(device="cuda", quick=True, rounds=2)
    with simulated_cuda():
        rows = list(overhead.measure(args))
    assert by_check(rows)["sampling thread, every 20 ms"].status in (PASS, MISS)
    assert rows[-1].check == "launching a kernel after a trace in the same process"
    assert isinstance(rows[-1].measured, float)
    with simulated_cuda(Simulation(has_nvml=False)):
        (row,) = overhead.thread_rows(CUDA, 0.1)
    assert row.status == NOT_HERE


def test_a_peers_forward_waits_for_the_device() -> None:
    with simulated_cuda() as machine:
        work = measurement_peers.Workload(
            model=workloads.small_qwen2(CUDA),
            tokenizer=workloads.word_tokenizer(),
            device=CUDA,
            texts=(workloads.text_of(4),) * 2,
            seconds=0.01,
        )
        forward = work.forward()
        before = machine.synchronisations.total()
        forward()
        assert machine.synchronisations.total() == before + 1


def test_ceilings_of_a_gpu_are_measured_once_for_all_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    stock = roofline.measure_ceilings

    def measure(device: torch.device, dtype: torch.dtype) -> object:
        measured.append(device)
        return stock(device, dtype)

    monkeypatch.setattr(roofline, "measure_ceilings", measure)
    known_answers.ceilings_file.cache_clear()
    with simulated_cuda():
        first = known_answers.measure_ceilings(CUDA, tmp_path / "first" / "ceilings.json")
        known_answers.tokeniser_rows(tmp_path / "second", CUDA)
        loaded, config = workloads.ready(tmp_path / "third", workloads.small_qwen2(CUDA), [8] * 4)
        known_answers.measure_ceilings(CUDA, config.files.ceilings)
        # As a diagnosis reads them.
        same = roofline.load_or_measure_ceilings(
            loaded.device, torch.float32, config.files.ceilings
        )
    assert measured == [CUDA]
    assert same == first


def test_what_the_evaluator_shows_on_cuda_after_its_rounds(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = list(support.TEXTS)
    with simulated_cuda() as machine:
        config = support.small_config(tmp_path, tiny_model, "model.device=cuda:0")
        evaluator = contestants.Evaluator(load_model(config), config)
        rounds: list[evaluation_peers.Comparison] = []
        peers = [contestants.PLAIN, contestants.COMPILED]
        comparison = evaluation_peers.compare(evaluator, texts, peers, 2, rounds.append)
        args = Namespace(tf32=True, dtype="float32", rounds=2, peers=peers)
        further = list(evaluation_peers.further_rows(evaluator, texts, args, comparison))
        evaluator.close()
    assert [set(one.timings.seconds) for one in rounds] == [
        {contestants.EVALUATOR},
        {contestants.EVALUATOR, contestants.PLAIN},
        {contestants.EVALUATOR, contestants.PLAIN},
    ], "rows are there before the peers have run"
    early = evaluation_peers.comparison_rows(rounds[0], args, len(texts), is_cuda=True)
    assert by_check(early)[f"speed over {contestants.PLAIN}"].status == NOT_HERE
    assert "share of the limit" in by_check(early)
    shown = by_check(further)
    assert shown["TF32: labels as float32"].measured == "100.000%"
    assert shown["device busy"].status == NOT_HERE, "the host's profiler sees no kernels"
    assert shown[f"labels as {contestants.COMPILED}"].measured == "100.000%"
    assert machine.compiled


def test_shares_on_cuda_are_those_of_the_kernels() -> None:
    """Kernels of 30 us in a product and of 10 us in an addition, whatever the host took."""
    events = []
    for name, kernel_us in (("aten::mm", 30.0), ("aten::add", 10.0)):
        event = torch.autograd.profiler_util.FunctionEvent(
            id=1, name=name, thread=1, start_us=0, end_us=1000
        )
        event.append_kernel("kernel", 0, kernel_us)
        events.append(event)
    assert time_spent.shares_by_category(events, "cuda") == {
        "matrix product": 75.0,
        "element-wise": 25.0,
    }


def test_a_process_says_which_device_it_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_devices, "WINDOW_S", 0.05)
    with simulated_cuda() as machine:
        gpu_devices.child(CUDA, 0.02)
        assert gpu_devices.count_listed_processes(CUDA) == 1
        uuid = machine.gpu().uuid
    readings = json.loads(capsys.readouterr().out)
    assert readings["uuid"] == f"GPU-{uuid}"
    with simulated_cuda(Simulation(faults=DriverFaults(failing_after=0))):
        assert gpu_devices.count_listed_processes(CUDA) is None


@pytest.mark.parametrize("num_gpus", [1, 2])
def test_a_named_device_must_be_the_one_that_was_measured(
    monkeypatch: pytest.MonkeyPatch, num_gpus: int
) -> None:
    """The processes measure the first device whatever was named: right where there is only one."""
    asked = []
    with simulated_cuda(Simulation(num_gpus=num_gpus)) as machine:
        names = [f"GPU-{gpu.uuid}" for gpu in machine.gpus]

        def run(command: list[str], env: dict[str, str], **_: object) -> Namespace:
            asked.append(env["CUDA_VISIBLE_DEVICES"])
            readings = {"uuid": names[0], "util_pct": 95.0, "warnings": []}
            return Namespace(stdout=f"a line before\n{json.dumps(readings)}\n")

        monkeypatch.setattr(gpu_devices.subprocess, "run", run)
        rows = list(gpu_devices.uuid_rows(CUDA, 0.1))
    expected = {1: [PASS, PASS, NOT_HERE], 2: [MISS, PASS, MISS]}
    assert [row.status for row in rows] == expected[num_gpus]
    assert asked == [names[-1], "1,0"][:num_gpus]


def test_the_sweep_beside_another_process_is_compared_with_the_one_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Process:
        def __init__(self, *_: object, **__: object) -> None:
            self.stdout = io.StringIO("ready\n")

        def kill(self) -> None: ...

        def wait(self, timeout: float | None = None) -> int:
            return 0

    monkeypatch.setattr(gpu_devices.subprocess, "Popen", Process)
    monkeypatch.setattr(gpu_devices, "WINDOW_S", 0.05)
    with simulated_cuda():
        rows = list(gpu_devices.sharing_rows(CUDA, 0.02))
    assert [row.status for row in rows] == [NOT_HERE, NOT_HERE], "NVML lists one process"
