"""The steps on a simulated CUDA device: precisions, lost memory, two devices, a failing driver."""

from __future__ import annotations

import inspect
import json
import logging
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partialmethod
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests import support
from tests.simulated_cuda.cuda_lines import LineRecorder
from tests.simulated_cuda.machine import Machine, make_machine
from tests.simulated_cuda.nvml import DriverFaults
from tests.simulated_cuda.simulate import Simulation, simulated_cuda
from utils.core.files import PROJECT_ROOT
from utils.diagnosis import roofline, tracing
from utils.pipeline import cli, step_process
from utils.pipeline.steps import Step
from utils.sweep.batch_runner import BatchRunner
from utils.system import gpu_readings
from utils.system.gpu_monitor import GpuMonitor

MODEL_CHECK = "scripts/00_test_model_loading.py"
BASELINE = "scripts/02_baseline_inference.py"
PROFILING = "scripts/03_detailed_profiling.py"
PIPELINE = "run_week1.py"
Steps = Callable[..., Machine]
RECORDER = LineRecorder()
"""Collects over all tests of this module, in one process, which lines for CUDA have run."""


NUM_TESTS = 20
SMALL_BATCHES = ("evaluation.max_tokens_per_batch=64", "evaluation.compare_batching=false")
"""With these the evaluation takes less memory than a batch of all texts in the sweep."""
NOT_SIMULATED = {
    ("utils/diagnosis/forecast.py", "model = overlapped"): (
        "the host's times show no overlap; tests/diagnosis/test_forecast.py"
    ),
    ("utils/diagnosis/memory.py", "other_mb = max(0.0, step.before / 1e6 - weights_mb)"): (
        "needs the allocator's events in a trace; tests/diagnosis/test_memory.py"
    ),
    ("utils/diagnosis/tracing.py", "return DeviceBusy(reason=NONE_READABLE)"): (
        "the host's traces are readable; tests/diagnosis/test_tracing.py"
    ),
    (
        "utils/diagnosis/tracing.py",
        "return DeviceBusy(ms=merged_length(spans(kernels)) / steps / 1e3)",
    ): "needs kernels in a trace; tests/diagnosis/test_tracing.py",
    ("utils/reporting/diagnosis_facts.py", 'return "time on the device (CUDA)"'): (
        "needs kernels in a trace; tests/reporting/test_html_report.py"
    ),
    **dict.fromkeys(
        [
            ("utils/evaluation/distributed.py", 'loaded.model.to("cpu")'),
            ("utils/evaluation/distributed.py", "torch.cuda.empty_cache()"),
            ("utils/evaluation/distributed.py", "try:"),
            ("utils/evaluation/distributed.py", "yield"),
            ("utils/evaluation/distributed.py", "loaded.model.to(loaded.device)"),
            (
                "utils/evaluation/ray_worker.py",
                "process = torch.cuda.get_device_properties(0).uuid "
                "if job.on_cuda else os.getpid()",
            ),
        ],
        "runs in processes that Ray starts on GPUs; tests/evaluation/test_distributed.py",
    ),
}
"""Lines that the simulation cannot reach, by file and text, and what tests them instead."""


@pytest.fixture
def run_step(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    """Run a script in this process on a simulated device; its exit code must be 0."""
    support.write_dataset(tmp_path / "data")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    logged = list(logging.getLogger().handlers)
    # Products of a real GPU's sizes take minutes on the host.
    monkeypatch.setitem(roofline.MATMUL_SIZES, "cuda", (64, 128))
    monkeypatch.setitem(roofline.COPY_BYTES, "cuda", (1 << 16, 1 << 20))
    monkeypatch.setitem(roofline.CEILING_PRODUCT_AT_LEAST_S, "cuda", 0.002)
    monkeypatch.setitem(roofline.REPEAT_AT_LEAST_S, "cuda", 0.002)
    monkeypatch.setattr(cli, "exit_at_once", sys.exit)
    # The simulated readings of an idle device are the same after two seconds.
    monkeypatch.setattr(gpu_readings, "LOOK_BACK_S", 0.05)
    monkeypatch.setattr(GpuMonitor, "idle", partialmethod(GpuMonitor.idle, seconds=0.2))

    def run(
        script: str,
        *more: str,
        simulation: Simulation | None = None,
        flags: tuple[str, ...] = (),
        exit_code: int = 0,
        is_simulated: bool = True,
    ) -> Machine:
        overrides = [
            *support.small_overrides(tmp_path, tiny_model),
            "model.device=cuda",
            "profiling.min_window_seconds=0",
            "evaluation.compare_batching=true",
            *more,
        ]
        monkeypatch.setattr(sys, "argv", [script, *support.set_flags(overrides), *flags])
        devices = simulated_cuda(simulation) if is_simulated else nullcontext(make_machine())
        with devices as machine, RECORDER.recording(), pytest.raises(SystemExit) as end:
            runpy.run_path(str(PROJECT_ROOT / script), run_name="__main__")
        assert end.value.code == exit_code
        return machine

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    logging.getLogger().handlers[:] = logged


def metrics_of(folder: Path) -> dict[str, Any]:
    text = (folder / "results" / "baseline_metrics.json").read_text(encoding="utf-8")
    metrics: dict[str, Any] = json.loads(text)
    return metrics


def predictions_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "results" / "predictions").sort_values("row_id")


def run_steps_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``run_week1.py`` run its steps in its own process, where the device is simulated."""

    def run_here(step: Step, arguments: Sequence[str]) -> float:
        monkeypatch.setattr(sys, "argv", [str(step.path), *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(step.path), run_name="__main__")
        assert end.value.code == 0
        return 1.0

    monkeypatch.setattr(step_process, "run_step", run_here)
    # A step runs under the lock of its parent process.
    monkeypatch.setattr(os, "getppid", os.getpid)


def test_the_pipeline_runs_whole_in_bfloat16(
    run_step: Steps,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_steps_in_this_process(monkeypatch)
    source = tmp_path / "source.csv"
    labels = [support.LABELS[number % 3] for number in range(len(support.TEXTS))]
    pd.DataFrame({"query": support.TEXTS, "label": labels}).to_csv(source, index=False)
    machine = run_step(PIPELINE, "model.dtype=bfloat16", f"dataset.hf_name={source}")
    check_baseline(metrics_of(tmp_path), machine, "bfloat16")
    diagnosis = json.loads((tmp_path / "results" / "bottlenecks.json").read_text())
    assert [row["batch_size"] for row in diagnosis["batch_sizes"]] == [1, 4]
    assert diagnosis["device"] == "cuda:0"
    assert diagnosis["unavailable"]["kernels"]
    for row in diagnosis["batch_sizes"]:
        reason = row["evidence"]["unavailable"]["device_busy_ms"]
        assert reason == tracing.NO_KERNELS, "it was traced"
    assert {use["batch_size"] for use in diagnosis["attention"]} == {1, 4}
    report = (tmp_path / "results" / "baseline_summary_report.txt").read_text()
    for words in ("bfloat16", "NVIDIA", "Attention kernel"):
        assert words in report
    assert (tmp_path / "results" / "report.html").stat().st_size > 0
    assert "WEEK 1 COMPLETE!" in capsys.readouterr().out


def test_the_model_check_runs_on_the_device(
    run_step: Steps, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = run_step(MODEL_CHECK)
    shown = capsys.readouterr().out
    assert "float32 on cuda:0" in shown
    assert "One text at a time and a batch agree" in shown
    assert machine.gpu().highest_bytes > 0


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_baseline_runs_in_every_precision(run_step: Steps, tmp_path: Path, dtype: str) -> None:
    machine = run_step(BASELINE, f"model.dtype={dtype}")
    check_baseline(metrics_of(tmp_path), machine, dtype)


def check_baseline(metrics: dict[str, Any], machine: Machine, dtype: str) -> None:
    """What the baseline measures only on a CUDA device."""
    assert metrics["model_info"]["device"] == "cuda:0"
    assert metrics["model_info"]["dtype"] == dtype
    for row in metrics["batch_size_profiling"]:
        assert row["status"] == "ok"
        assert row["peak_gpu_mem"] > 0
        assert row["forward_ms_mean"] > 0
    evaluation = metrics["full_dataset_metrics"]
    assert evaluation["peak_gpu_mem"] > 0
    assert evaluation["attention_kernels"] == {
        "batch_size_sweep": ["flash", "memory_efficient", "cudnn", "math"],
        "evaluation": ["flash", "memory_efficient", "math"],
        "repeats_key_value_heads": dtype == "float32",
    }
    assert machine.gpu().num_out_of_memory == 0


def test_the_evaluation_never_waits_for_the_device_within_a_batch(run_step: Steps) -> None:
    few = run_step(BASELINE, "evaluation.chunk_rows=60", "evaluation.compare_batching=false")
    many = run_step(
        BASELINE,
        "evaluation.chunk_rows=60",
        "evaluation.compare_batching=false",
        "evaluation.max_tokens_per_batch=64",
    )

    def waits(machine: Machine) -> dict[str, int]:
        return {at: count for at, count in machine.waits.items() if " at evaluation/" in at}

    assert waits(many) == waits(few), "more batches, and no more waits"
    for machine in (few, many):
        assert not machine.slow_copies
        assert not machine.busy_waits, "a thread that waits leaves its core to the tokenizer"


def test_no_event_is_created_while_the_sweep_is_timed(run_step: Steps) -> None:
    machine = run_step(BASELINE)
    lines, first = inspect.getsourcelines(BatchRunner.run_timed)
    timed = {f"event at sweep/batch_runner.py:{first + line}" for line in range(len(lines))}
    created = {at for at in machine.event_creations if "sweep/batch_runner.py" in at}
    assert created, "the sweep has events"
    assert not created & timed


def test_predictions_are_those_of_the_host(run_step: Steps, tmp_path: Path) -> None:
    host_results = f"output.results_dir={tmp_path / 'host' / 'results'}"
    run_step(BASELINE, "model.device=cpu", host_results, is_simulated=False)
    run_step(BASELINE)
    on_host = predictions_of(tmp_path / "host")
    on_device = predictions_of(tmp_path)
    assert on_device["predicted_id"].tolist() == on_host["predicted_id"].tolist()
    assert on_device["predicted_probability"].tolist() == pytest.approx(
        on_host["predicted_probability"].tolist(), abs=1e-5
    )


def test_the_second_of_two_devices_is_used_alone_and_suggestions_are_verified_on_it(
    run_step: Steps, tmp_path: Path
) -> None:
    older = Simulation(num_gpus=2, capability=(7, 5), counts_requests=False)
    machine = run_step(BASELINE, "model.device=cuda:1", simulation=older)
    assert metrics_of(tmp_path)["model_info"]["device"] == "cuda:1"
    profiled = run_step(PROFILING, "model.device=cuda:1", simulation=older, flags=("--verify",))
    for used in (machine, profiled):
        assert used.gpus[0].highest_bytes == 0
        assert used.gpus[1].highest_bytes > 0
    diagnosis = json.loads((tmp_path / "results" / "bottlenecks.json").read_text())
    assert diagnosis["suggestions"]


def test_a_batch_size_without_memory_is_a_result_and_the_sweep_goes_on(
    run_step: Steps, tmp_path: Path
) -> None:
    peak_bytes = run_step(BASELINE, *SMALL_BATCHES).gpu().highest_bytes
    memory_bytes = peak_bytes + (1 << 17)
    machine = run_step(
        BASELINE,
        *SMALL_BATCHES,
        "dataset.sample_sizes=[60]",
        "profiling.batch_sizes=[1, 60]",
        simulation=Simulation(memory_bytes=memory_bytes),
    )
    rows = metrics_of(tmp_path)["batch_size_profiling"]
    assert [row["status"] for row in rows] == ["ok", "oom"]
    assert machine.gpu().num_out_of_memory > 0


def test_the_diagnosis_goes_on_without_a_batch_size_that_does_not_fit(
    run_step: Steps, tmp_path: Path
) -> None:
    settings = (
        "model.dtype=float16",
        "dataset.sample_sizes=[60]",
        "profiling.batch_sizes=[1, 60]",
    )
    small = run_step(BASELINE, *SMALL_BATCHES, "model.dtype=float16")
    memory_bytes = small.gpu().highest_bytes + (1 << 17)
    run_step(BASELINE, *settings)
    # The copies that find the ceilings stop where the memory does.
    run_step(PROFILING, *settings, simulation=Simulation(memory_bytes=memory_bytes))
    diagnosis = json.loads((tmp_path / "results" / "bottlenecks.json").read_text())
    assert [row["batch_size"] for row in diagnosis["batch_sizes"]] == [1]


def test_the_evaluation_halves_batches_that_do_not_fit(
    run_step: Steps, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("evaluation.compare_batching=false", "evaluation.chunk_rows=60")
    machine = run_step(BASELINE, *settings, "evaluation.max_tokens_per_batch=64")
    expected = predictions_of(tmp_path)
    memory_bytes = machine.gpu().highest_bytes + (1 << 18)
    run_step(
        BASELINE,
        *settings,
        "evaluation.max_tokens_per_batch=100000",
        simulation=Simulation(memory_bytes=memory_bytes),
    )
    assert "memory ran out" in capsys.readouterr().err
    rows = predictions_of(tmp_path)
    assert rows["predicted_id"].tolist() == expected["predicted_id"].tolist()


def test_random_weights_are_made_on_the_device(run_step: Steps, tmp_path: Path) -> None:
    run_step(BASELINE, "model.load_format=dummy")
    metrics = metrics_of(tmp_path)
    assert metrics["model_info"]["weights"] == "dummy"
    assert metrics["full_dataset_metrics"]["accuracy"] is None


@pytest.mark.parametrize(
    ("memory_bytes", "problem"),
    [(1 << 16, "does not fit into the device's memory"), (150_000, "leaves no memory")],
)
def test_a_model_that_does_not_fit_is_refused_with_advice(
    run_step: Steps, capsys: pytest.CaptureFixture[str], memory_bytes: int, problem: str
) -> None:
    run_step(BASELINE, simulation=Simulation(memory_bytes=memory_bytes), exit_code=2)
    message = capsys.readouterr().err
    assert problem in message
    assert "model.dtype=bfloat16" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    "simulation",
    [
        Simulation(has_nvml=False),
        Simulation(faults=DriverFaults(failing_after=40)),
        Simulation(faults=DriverFaults(mig=True)),
        Simulation(faults=DriverFaults(hides_processes=True)),
    ],
    ids=["no NVML", "lost on the way", "MIG", "hidden processes"],
)
def test_a_driver_that_fails_costs_its_readings_alone(
    run_step: Steps, tmp_path: Path, simulation: Simulation
) -> None:
    run_step(BASELINE, simulation=simulation)
    metrics = metrics_of(tmp_path)
    for row in metrics["batch_size_profiling"]:
        assert row["status"] == "ok"
        assert row["latency_per_sample_ms_mean"] > 0
        assert row["peak_gpu_mem"] > 0


def test_compiling_the_evaluation_reaches_the_compiler(run_step: Steps) -> None:
    machine = run_step(BASELINE, "evaluation.compile=true")
    assert set(machine.compiled) == {"Qwen2DecoderLayer"}, "its layers share a program"
    verified = run_step(PROFILING, flags=("--verify", "evaluation.compile=true"))
    assert set(verified.compiled) == {"Qwen2DecoderLayer"}


def test_every_line_that_only_cuda_runs_has_run(request: pytest.FixtureRequest) -> None:
    """The last of the module: it needs what the others have recorded."""
    module = request.node.getparent(pytest.Module)
    if len([item for item in request.session.items if item.parent is module]) < NUM_TESTS:
        pytest.skip("the other tests of this module did not run")
    shown = []
    for name, number, text in RECORDER.missing():
        if (name, text) not in NOT_SIMULATED:
            shown.append(f"{name}:{number}: {text}")
    assert not shown, "\n".join(shown)
