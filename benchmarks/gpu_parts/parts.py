"""The processes of the check for a GPU machine, each with its command and the time it may take."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import Row
from benchmarks.gpu_parts import inputs, pipeline_results
from benchmarks.gpu_parts.rows import benchmark_rows, rows_of_tests

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = ROOT / "configs" / "architectures" / "qwen2.5-0.5b.json"
GPU_PEERS = ("plain loop", "pipeline", "Trainer.predict", "this evaluator, compiled")
BATCH_SIZES = {"float32": [1, 8, 32, 128], "bfloat16": [1, 8, 32, 128, 512]}
SHORT_BATCH_SIZES = (1, 8, 64)
# For all parts of a call together. The rest of 4 and of 9 minutes is for installing what is missing
# and for packing.
BUDGET_S = {"quick": 220.0, "figures": 510.0, "speed": 510.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One process of the check.

    Args:
        seconds: what it may take even where every other part takes its own. When it has used these
            and those that earlier parts have left, it is ended with all processes it has started.
        rows: reads the rows from what the process left, given its exit code.
        needs: a file without which the part does not run.
        results_folder: where a pipeline leaves its results.
    """

    name: str
    command: list[str]
    seconds: float
    rows: Callable[[int], list[Row]]
    needs: Path | None = None
    results_folder: Path | None = None

    @property
    def log_name(self) -> str:
        """The file of its output in the work folder."""
        return log_name(self.name)


def log_name(name: str) -> str:
    """The part's name as a file's, with an underscore for all that it should not have."""
    return re.sub(r"\W+", "_", name) + ".log"


def parts_of(group: str, work: Path, *, is_dry_run: bool) -> list[Part]:
    """The parts of one call.

    Args:
        group: ``quick``, ``figures`` or ``speed``.
        work: the folder into which they write.
        is_dry_run: small stand-ins on the CPU.
    """
    if group == "quick":
        return quick_parts(work, is_dry_run=is_dry_run)
    if group == "figures":
        return figure_parts(work, is_dry_run=is_dry_run)
    return speed_parts(work, is_dry_run=is_dry_run)


def quick_parts(work: Path, *, is_dry_run: bool) -> list[Part]:
    """Whether the program works on this GPU at all.

    On one H100's virtual machine each step took 10 to 16 s to start. The pipelines keep the windows
    for the GPU's readings: three batch sizes of 2 s each.
    """
    return [
        tests_part(work, 50, are_slow=False),
        pipeline_part(work, "float32", 100, is_short=True, is_dry_run=is_dry_run),
        pipeline_part(
            work, "bfloat16", 70, is_short=True, uses_data_before=True, is_dry_run=is_dry_run
        ),
    ]


def figure_parts(work: Path, *, is_dry_run: bool) -> list[Part]:
    """Whether the numbers are right, the cheapest part first."""
    return [
        benchmark_part(work, "known_times", 45, is_dry_run=is_dry_run),
        benchmark_part(work, "gpu_devices", 50, is_dry_run=is_dry_run),
        benchmark_part(work, "known_answers", 60, ["--quick"], is_dry_run=is_dry_run),
        tests_part(work, 35, are_slow=True),
        pipeline_part(work, "bfloat16", 130, is_dry_run=is_dry_run),
        pipeline_part(
            work,
            "float32",
            180,
            is_verified=True,
            uses_data_before=True,
            is_dry_run=is_dry_run,
        ),
    ]


def speed_parts(work: Path, *, is_dry_run: bool) -> list[Part]:
    """The evaluator and its peers, what measuring costs, and whether results repeat."""
    few_rounds = ["--quick", "--rounds", "5"]
    peers: list[str] = []
    peers_float32 = ["--peers", "plain loop"]
    if not is_dry_run:
        peers = peer_options(work, "bfloat16")
        peers_float32 = peer_options(work, "float32")
    repeats = ["--processes", "3", "--runs", "10"]
    return [
        benchmark_part(work, "overhead", 50, few_rounds, is_dry_run=is_dry_run),
        benchmark_part(work, "measurement_peers", 50, few_rounds, is_dry_run=is_dry_run),
        benchmark_part(work, "evaluation_peers", 200, peers, is_dry_run=is_dry_run),
        benchmark_part(
            work,
            "evaluation_peers",
            120,
            peers_float32,
            title="evaluation_peers, float32",
            is_dry_run=is_dry_run,
        ),
        benchmark_part(work, "repeatability", 80, repeats, is_dry_run=is_dry_run),
    ]


def benchmark_part(
    work: Path,
    name: str,
    seconds: float,
    options: Sequence[str] = (),
    *,
    title: str = "",
    is_dry_run: bool,
) -> Part:
    """A benchmark of this folder, which writes its rows as JSON as they come."""
    title = title or name
    words = ["--device", "cpu" if is_dry_run else "cuda", *options]
    if is_dry_run:
        words.append("--quick")
    script = ROOT / "benchmarks" / f"{name}.py"
    file_name = re.sub(r"\W+", "_", title)
    out = work / f"{file_name}.json"
    return Part(
        name=title,
        command=[sys.executable, str(script), "--json", str(out), *words],
        seconds=seconds,
        needs=script,
        rows=lambda code: benchmark_rows(title, out, code),
    )


def peer_options(work: Path, dtype: str) -> list[str]:
    """The evaluator's peers on the 0.5B architecture with the embedded corpus."""
    options = ["--architecture", str(ARCHITECTURE), "--dtype", dtype]
    for setting in embedded_settings(work):
        options += ["--set", setting]
    if dtype == "bfloat16":
        return [*options, "--rows", "4096", "--rounds", "3", "--peers", *GPU_PEERS]
    return [*options, "--tf32", "--rows", "1024", "--rounds", "1", "--peers", "plain loop"]


def tests_part(work: Path, seconds: float, *, are_slow: bool) -> Part:
    """The tests that need a GPU: those that start other processes, or all others."""
    folder = ROOT / "tests" / "gpu"
    marks = "gpu and slow" if are_slow else "gpu and not slow"
    name = "tests/gpu, slow ones" if are_slow else "tests/gpu"
    report = work / f"{log_name(name)}.xml"
    # With -v each test writes a line, which is all that is left of a run that is killed.
    options = ["-v", "-m", marks, "-p", "no:cacheprovider", f"--junitxml={report}"]
    return Part(
        name=name,
        command=[sys.executable, "-m", "pytest", *options, str(folder)],
        seconds=seconds,
        needs=folder,
        rows=lambda code: rows_of_tests(report, code, work / log_name(name), name),
    )


def pipeline_part(
    work: Path,
    dtype: str,
    seconds: float,
    *,
    is_short: bool = False,
    is_verified: bool = False,
    uses_data_before: bool = False,
    is_dry_run: bool,
) -> Part:
    """The steps on the 0.5B architecture with random weights and texts of random words.

    Args:
        is_short: few batch sizes and rows.
        is_verified: suggestions are tried, which takes most of the time.
        uses_data_before: an earlier pipeline of the same call has run step 01.
    """
    command = [sys.executable, str(ROOT / "run_week1.py"), "--config", "configs/demo.yaml"]
    if is_verified:
        command.append("--verify")
    if uses_data_before:
        command.append("--skip-download")
    settings = common_settings(work, dtype)
    if is_dry_run:
        settings += dry_run_settings(work)
    elif is_short:
        settings += gpu_settings(SHORT_BATCH_SIZES, num_runs=3, max_samples=1000)
        settings.append("profiling.trace_steps=1")
    else:
        settings += gpu_settings(BATCH_SIZES[dtype], num_runs=5, max_samples=inputs.NUM_ROWS)
    for setting in settings:
        command += ["--set", setting]
    return Part(
        name=f"pipeline, {dtype}",
        command=command,
        seconds=seconds,
        results_folder=work / dtype,
        rows=lambda code: pipeline_results.pipeline_rows(
            work / dtype, dtype, code, uses_gpu=not is_dry_run
        ),
    )


def embedded_settings(work: Path) -> list[str]:
    """The corpus and its tokenizer: the same for both peers, so that one model is trained."""
    return [f"embedded.dir={work / 'demo'}", "embedded.training_rows=2000", "embedded.epochs=1"]


def common_settings(work: Path, dtype: str) -> list[str]:
    """What differs from ``configs/demo.yaml`` in all pipelines."""
    return [
        "model.load_format=dummy",
        f"model.tokenizer={inputs.write_tokenizer(work / 'tokenizer')}",
        f"model.dtype={dtype}",
        "model.matmul_precision=highest",
        f"dataset.hf_name={inputs.write_texts(work / 'texts' / 'texts.csv')}",
        f"dataset.local_path={work / 'data' / 'val_df.csv'}",
        "profiling.max_length=512",
        f"output.results_dir={work / dtype}",
    ]


def dry_run_settings(work: Path) -> list[str]:
    """A small model on the CPU."""
    return [
        f"model.name={write_small_architecture(work)}",
        "model.device=cpu",
        "dataset.sample_sizes=[8]",
        "profiling.batch_sizes=[1, 4]",
        "profiling.num_measurement_runs=3",
        "evaluation.max_samples=40",
    ]


def gpu_settings(batch_sizes: Sequence[int], num_runs: int, max_samples: int) -> list[str]:
    """The 0.5B architecture on the GPU."""
    return [
        f"model.name={ARCHITECTURE}",
        "model.device=cuda",
        "dataset.sample_sizes=[64]",
        f"profiling.batch_sizes={list(batch_sizes)}",
        f"profiling.num_measurement_runs={num_runs}",
        f"evaluation.max_samples={max_samples}",
    ]


def write_small_architecture(work: Path) -> Path:
    """The same kind of model, small for a CPU; its file."""
    architecture = json.loads(ARCHITECTURE.read_text(encoding="utf-8"))
    architecture.update(
        num_hidden_layers=2,
        hidden_size=64,
        num_attention_heads=4,
        intermediate_size=128,
        vocab_size=9000,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    path = work / "small.json"
    path.write_text(json.dumps(architecture), encoding="utf-8")
    return path
