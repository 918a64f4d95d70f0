"""The processes of the check for a GPU machine: three groups, in each the most valuable first.

The times are those of one H100 whose host is slow: see ``SLOW_START_S``. Benchmarks that can share
a process do, so that PyTorch is imported once. None is timed in a process in which another one has
traced: that slows later launches, see ``utils/diagnosis/measurement.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import Row
from benchmarks.gpu_parts.part import Part, file_stem, log_name
from benchmarks.gpu_parts.pipelines import ARCHITECTURE, ROOT, Pipeline, pipeline_part
from benchmarks.gpu_parts.rows import benchmark_rows, rows_of_tests

GPU_PEERS = ("plain loop", "pipeline", "Trainer.predict", "this evaluator, compiled")
# For all parts of a call together. The rest of 4 and of 9 minutes is for installing what is missing
# and for packing.
BUDGET_S = {"quick": 220.0, "figures": 510.0, "speed": 510.0}
# Parts of a start: step 01, step 04 and run_week1.py itself import less than steps 02 and 03.
START_OF_ALL_STEPS = 3.25
START_OF_STEP_02 = 1.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A benchmark of this folder with its options.

    Args:
        title: in its rows; the name of the benchmark where it is empty.
    """

    name: str
    options: tuple[str, ...] = ()
    title: str = ""

    @property
    def shown_name(self) -> str:
        return self.title or self.name


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

    All steps in bfloat16; in float32 step 02 alone, because step 03 needs 20 s more for its
    ceilings there and runs in ``figures``. The pipelines keep the windows for the GPU's readings:
    2 s for each batch size.
    """
    short = ("evaluation.compare_batching=false",)
    bfloat16 = Pipeline(
        dtype="bfloat16", batch_sizes=(1, 8, 64), num_runs=3, max_samples=1000, settings=short
    )
    float32 = Pipeline(
        dtype="float32",
        batch_sizes=(1, 8, 64),
        num_runs=3,
        max_samples=500,
        flags=("--skip-download", "--skip-profiling", "--skip-viz"),
        settings=short,
    )
    return [
        pipeline_part(work, bfloat16, starts=START_OF_ALL_STEPS, work_s=65, is_dry_run=is_dry_run),
        pipeline_part(work, float32, starts=START_OF_STEP_02, work_s=32, is_dry_run=is_dry_run),
        tests_part(work, starts=1, work_s=35, are_slow=False),
    ]


def figure_parts(work: Path, *, is_dry_run: bool) -> list[Part]:
    """Whether the numbers are right: those that are known by construction, then the predictions."""
    numbers = (
        Benchmark(name="known_times"),
        Benchmark(name="gpu_devices"),
        # It traces.
        Benchmark(name="known_answers", options=("--quick",)),
    )
    verified = Pipeline(
        dtype="float32",
        batch_sizes=(1, 8, 32, 128),
        num_runs=3,
        max_samples=1000,
        flags=("--verify",),
    )
    return [
        # gpu_devices starts two more processes, one of which imports PyTorch alone.
        benchmarks_part(
            work, "known numbers", numbers, starts=2.4, work_s=155, is_dry_run=is_dry_run
        ),
        pipeline_part(work, verified, starts=START_OF_ALL_STEPS, work_s=200, is_dry_run=is_dry_run),
        # They start three processes that import PyTorch alone.
        tests_part(work, starts=2.5, work_s=20, are_slow=True),
    ]


def speed_parts(work: Path, *, is_dry_run: bool) -> list[Part]:
    """The evaluator and its peers, what measuring costs, and whether results repeat."""
    bfloat16 = Benchmark(
        name="evaluation_peers", options=peer_options(work, "bfloat16", is_dry_run=is_dry_run)
    )
    float32 = Benchmark(
        name="evaluation_peers",
        options=peer_options(work, "float32", is_dry_run=is_dry_run),
        title="evaluation_peers, float32",
    )
    few_rounds = ("--quick", "--rounds", "5")
    costs = (
        Benchmark(name="measurement_peers", options=few_rounds),
        # Its last rows trace.
        Benchmark(name="overhead", options=few_rounds),
    )
    repeats = Benchmark(name="repeatability", options=("--processes", "3", "--runs", "10"))
    return [
        # It also makes the embedded corpus.
        benchmarks_part(work, "float32", (float32,), starts=1.3, work_s=75, is_dry_run=is_dry_run),
        benchmarks_part(work, "bfloat16", (bfloat16,), starts=1, work_s=225, is_dry_run=is_dry_run),
        benchmarks_part(
            work, "cost of measuring", costs, starts=1, work_s=55, is_dry_run=is_dry_run
        ),
        benchmarks_part(
            work, "repeatability", (repeats,), starts=4.5, work_s=20, is_dry_run=is_dry_run
        ),
    ]


def benchmarks_part(
    work: Path,
    name: str,
    benchmarks: Sequence[Benchmark],
    *,
    starts: float,
    work_s: float,
    is_dry_run: bool,
) -> Part:
    """Benchmarks in one process, each of which writes its rows as JSON as they come."""
    words: list[str] = []
    for benchmark in benchmarks:
        if words:
            words.append("+")
        words += [benchmark.name, "--json", str(rows_file(work, benchmark))]
        words += ["--device", "cpu" if is_dry_run else "cuda", *benchmark.options]
        if is_dry_run and "--quick" not in benchmark.options:
            words.append("--quick")

    def read_rows(code: int | None) -> list[Row]:
        rows: list[Row] = []
        for benchmark in benchmarks:
            rows += benchmark_rows(benchmark.shown_name, rows_file(work, benchmark), code)
        return rows

    script = ROOT / "benchmarks" / "gpu_parts" / "several.py"
    return Part(
        name=name,
        command=[sys.executable, str(script), *words],
        starts=starts,
        work_s=work_s,
        rows=read_rows,
    )


def rows_file(work: Path, benchmark: Benchmark) -> Path:
    """Where a benchmark writes its rows."""
    return work / f"{file_stem(benchmark.shown_name)}.json"


def peer_options(work: Path, dtype: str, *, is_dry_run: bool) -> tuple[str, ...]:
    """The evaluator's peers on the 0.5B architecture with the embedded corpus."""
    options: list[str] = []
    for setting in embedded_settings(work):
        options += ["--set", setting]
    if is_dry_run:
        # The small embedded model itself.
        return (*options, "--peers", "plain loop")
    options += ["--architecture", str(ARCHITECTURE), "--dtype", dtype]
    # With the demo's chunks of 1,024 rows a quarter of the tokens is padding.
    options += ["--set", "evaluation.chunk_rows=2048"]
    if dtype == "bfloat16":
        return (*options, "--rows", "4096", "--rounds", "3", "--peers", *GPU_PEERS)
    return (*options, "--tf32", "--rows", "1024", "--rounds", "1", "--peers", "plain loop")


def tests_part(work: Path, *, starts: float, work_s: float, are_slow: bool) -> Part:
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
        starts=starts,
        work_s=work_s,
        needs=folder,
        rows=lambda code: rows_of_tests(report, code, work / log_name(name), name),
    )


def embedded_settings(work: Path) -> list[str]:
    """The corpus and its tokenizer: the same for both peers, so that one model is trained."""
    return [f"embedded.dir={work / 'demo'}", "embedded.training_rows=2000", "embedded.epochs=1"]
