"""The pipeline as a part of the check: the 0.5B architecture with random weights."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu_parts import inputs, pipeline_results
from benchmarks.gpu_parts.part import Part

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = ROOT / "configs" / "architectures" / "qwen2.5-0.5b.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pipeline:
    """What a pipeline measures on the GPU.

    Args:
        flags: of ``run_week1.py``.
        settings: beside those that all pipelines have.
    """

    dtype: str
    batch_sizes: tuple[int, ...]
    num_runs: int
    max_samples: int
    flags: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


def pipeline_part(
    work: Path, pipeline: Pipeline, *, starts: float, work_s: float, is_dry_run: bool
) -> Part:
    """The steps on the 0.5B architecture with random weights and texts of random words."""
    dtype = pipeline.dtype
    command = [sys.executable, str(ROOT / "run_week1.py"), "--config", "configs/demo.yaml"]
    command += pipeline.flags
    settings = common_settings(work, dtype)
    settings += dry_run_settings(work) if is_dry_run else gpu_settings(pipeline)
    for setting in settings:
        command += ["--set", setting]
    return Part(
        name=f"pipeline, {dtype}",
        command=command,
        starts=starts,
        work_s=work_s,
        results_folder=work / dtype,
        rows=lambda code: pipeline_results.pipeline_rows(
            work / dtype,
            dtype,
            code,
            uses_gpu=not is_dry_run,
            is_diagnosed="--skip-profiling" not in pipeline.flags,
        ),
    )


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


def gpu_settings(pipeline: Pipeline) -> list[str]:
    """The 0.5B architecture on the GPU."""
    sizes: Sequence[int] = pipeline.batch_sizes
    return [
        f"model.name={ARCHITECTURE}",
        "model.device=cuda",
        "dataset.sample_sizes=[64]",
        f"profiling.batch_sizes={list(sizes)}",
        f"profiling.num_measurement_runs={pipeline.num_runs}",
        "profiling.trace_steps=1",
        f"evaluation.max_samples={pipeline.max_samples}",
        *pipeline.settings,
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
