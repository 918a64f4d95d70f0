"""Runs of the evaluation on several workers, and a Ray cluster on this machine, for tests."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path

import psutil
import pytest

from tests import support
from tests.evaluation.ray_cluster import PREFIX
from utils.config_loader import Config, load_config
from utils.core.files import PROJECT_ROOT
from utils.evaluation import runner
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.model_utils import load_model
from utils.schema.evaluation import EvaluationMetrics

SCRIPT = "scripts/02_baseline_inference.py"
TEXTS = tuple(
    f'{text}"quoted, é漢字\nover lines {i}"' if i % 3 else text
    for i, text in enumerate(support.TEXTS * 50)
)
SETTINGS = (
    "evaluation.max_tokens_per_batch=256",
    "evaluation.chunk_rows=100",
    "profiling.max_length=32",
)
CHUNKS = len(TEXTS) // 100
RAY_S = 480
Driver = Callable[..., EvaluationMetrics]


@contextmanager
def marked_processes() -> Iterator[None]:
    """Processes that are started inside the block carry a mark, and are killed at its end."""
    # multiprocessing's own helper stays without the mark.
    resource_tracker.ensure_running()
    mark = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTRIBUTED_TEST", mark)
        yield
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("DISTRIBUTED_TEST") == mark:
                process.kill()


def overrides(folder: Path, model: Path, *more: str) -> list[str]:
    return [*support.small_overrides(folder, model), *SETTINGS, *more]


def configured(folder: Path, model: Path, *more: str) -> Config:
    support.write_dataset(folder / "data", TEXTS)
    return load_config(overrides=overrides(folder, model, *more))


def makers(folder: Path) -> set[str]:
    """The workers that have stored a chunk."""
    records = (folder / "results" / ".state" / "evaluation").glob("*/rows-*.json")
    return {json.loads(file.read_text())["worker"] for file in records}


def finished(folder: Path) -> int:
    return len(list((folder / "results" / ".state" / "evaluation").glob("*/rows-*.json")))


def same_quality(one: EvaluationMetrics, other: EvaluationMetrics) -> bool:
    names = ("num_samples", "accuracy", "f1_macro", "num_tokens", "padding_fraction")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def wait_until(ready: Callable[[], bool], timeout_s: float = 300) -> None:
    end = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.02)


class Cluster:
    """Two nodes of one core each, in a process of its own; a dead one is noticed within seconds."""

    def __init__(self) -> None:
        words = [sys.executable, "-m", "tests.evaluation.ray_cluster"]
        self.process = subprocess.Popen(
            words, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.address = self._read_reply()

    def kill_a_node(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        assert self._read_reply() == "killed"

    def _read_reply(self) -> str:
        assert self.process.stdout is not None
        return next(
            line.removeprefix(PREFIX).strip()
            for line in self.process.stdout
            if line.startswith(PREFIX)
        )


def evaluated(folder: Path, model: Path, *more: str) -> EvaluationMetrics:
    """The evaluation with ``model`` here and, where ``more`` names another, that in the workers."""
    loaded = load_model(load_config(overrides=overrides(folder, model)))
    return runner.evaluate_dataset(loaded, EvaluationSettings.of(configured(folder, model, *more)))
