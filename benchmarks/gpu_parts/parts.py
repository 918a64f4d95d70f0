"""The processes of the check for a GPU machine, each with its command and the time it may take."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import Row
from benchmarks.gpu_parts import pipeline_results
from benchmarks.gpu_parts.rows import benchmark_rows, rows_of_tests

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = ROOT / "configs" / "architectures" / "qwen2.5-0.5b.json"
GPU_PEERS = ("plain loop", "pipeline", "Trainer.predict", "this evaluator, compiled")
BATCH_SIZES = {"float32": [1, 4, 8, 16, 32, 64, 256], "bfloat16": [1, 4, 8, 16, 32, 64, 256, 1024]}
PIPELINE_SECONDS = {"float32": 110.0, "bfloat16": 45.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One process of the check.

    Args:
        seconds: what it may take even where every other part takes its own. When it has used these
            and those that earlier parts have left, it is ended with all processes it has started.
        rows: reads the rows from what the process left, given its exit code.
        needs: a file without which the part does not run.
    """

    name: str
    command: list[str]
    seconds: float
    rows: Callable[[int], list[Row]]
    needs: Path | None = None

    @property
    def file_name(self) -> str:
        """The name, with an underscore for all that a file name should not have."""
        return re.sub(r"\W+", "_", self.name)


def all_parts(work: Path, *, is_dry_run: bool) -> list[Part]:
    """All parts, the cheapest first, so that a slow one at the end cannot cost the others.

    Args:
        work: the folder into which they write.
        is_dry_run: small stand-ins on the CPU.
    """

    def benchmark(name: str, seconds: float, *options: str, title: str = "") -> Part:
        words = ["--device", "cpu" if is_dry_run else "cuda", *options]
        if is_dry_run:
            words.append("--quick")
        return benchmark_part(work, name, seconds, words, title=title or name)

    peers = [] if is_dry_run else peer_options(work, "bfloat16")
    peers_float32 = ["--peers", "plain loop"] if is_dry_run else peer_options(work, "float32")
    return [
        benchmark("known_times", 30),
        benchmark("known_answers", 40, "--quick"),
        benchmark("gpu_devices", 25),
        benchmark("overhead", 30, "--quick", "--rounds", "5"),
        benchmark("measurement_peers", 30, "--quick", "--rounds", "5"),
        tests_part(work),
        pipeline_part(work, "float32", is_dry_run=is_dry_run),
        pipeline_part(work, "bfloat16", is_dry_run=is_dry_run),
        benchmark("evaluation_peers", 95, *peers),
        benchmark("evaluation_peers", 45, *peers_float32, title="evaluation_peers, float32"),
        benchmark("repeatability", 30, "--processes", "3", "--runs", "10"),
    ]


def benchmark_part(work: Path, name: str, seconds: float, options: list[str], title: str) -> Part:
    """A benchmark of this folder, which writes its rows as JSON."""
    script = ROOT / "benchmarks" / f"{name}.py"
    file_name = re.sub(r"\W+", "_", title)
    out = work / f"{file_name}.json"
    return Part(
        name=title,
        command=[sys.executable, str(script), "--json", str(out), *options],
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


def tests_part(work: Path) -> Part:
    """The tests that need a GPU."""
    folder = ROOT / "tests" / "gpu"
    report = work / "tests.xml"
    options = ["-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
    return Part(
        name="tests/gpu",
        command=[sys.executable, "-m", "pytest", *options, str(folder)],
        seconds=40,
        needs=folder,
        rows=lambda code: rows_of_tests(report, code),
    )


def pipeline_part(work: Path, dtype: str, *, is_dry_run: bool) -> Part:
    """All four steps on the 0.5B architecture with random weights and the embedded corpus."""
    command = [sys.executable, str(ROOT / "run_week1.py"), "--config", "configs/demo.yaml"]
    if dtype == "float32":
        command.append("--verify")
    for setting in pipeline_settings(work, dtype, is_dry_run=is_dry_run):
        command += ["--set", setting]
    return Part(
        name=f"pipeline, {dtype}",
        command=command,
        seconds=PIPELINE_SECONDS[dtype],
        rows=lambda code: pipeline_results.pipeline_rows(
            work / dtype, dtype, code, uses_gpu=not is_dry_run
        ),
    )


def embedded_settings(work: Path) -> list[str]:
    """The corpus and its tokenizer: the same for all parts, so that one model is trained."""
    return [f"embedded.dir={work / 'demo'}", "embedded.training_rows=2000", "embedded.epochs=1"]


def pipeline_settings(work: Path, dtype: str, *, is_dry_run: bool) -> list[str]:
    """What differs from ``configs/demo.yaml``."""
    settings = [
        "model.load_format=dummy",
        "model.tokenizer=embedded",
        f"model.dtype={dtype}",
        "model.matmul_precision=highest",
        *embedded_settings(work),
        f"dataset.local_path={work / 'data' / 'val_df.csv'}",
        "profiling.max_length=512",
        f"output.results_dir={work / dtype}",
    ]
    if is_dry_run:
        return [
            *settings,
            f"model.name={write_small_architecture(work)}",
            "model.device=cpu",
            "dataset.sample_sizes=[8]",
            "profiling.batch_sizes=[1, 4]",
            "profiling.num_measurement_runs=3",
            "evaluation.max_samples=40",
        ]
    return [
        *settings,
        f"model.name={ARCHITECTURE}",
        "model.device=cuda",
        "dataset.sample_sizes=[64]",
        f"profiling.batch_sizes={BATCH_SIZES[dtype]}",
        "profiling.num_measurement_runs=5",
        "evaluation.max_samples=5000",
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
