"""Which batch sizes are profiled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import support
from tests.diagnosis.builders import write_metrics
from utils.config_loader import Config
from utils.core.errors import UserError
from utils.diagnosis.baseline_sweep import BaselineSweep, read_sweep


def sweep_of(config: Config) -> BaselineSweep:
    return read_sweep(config.files.metrics, config.model, config.profiling.batch_sizes)


def choice(config: Config) -> tuple[tuple[int, ...], int]:
    sweep = sweep_of(config)
    return sweep.sizes, sweep.optimal


def test_sizes_from_the_sweep(tmp_path: Path, tiny_model: Path) -> None:
    config = support.small_config(tmp_path, tiny_model)
    write_metrics(config)
    assert choice(config) == ((1, 2, 4), 2)
    write_metrics(config, optimal_batch_size=None)
    assert choice(config) == ((1, 4), 4)
    assert sweep_of(config).warnings == ()
    write_metrics(config, config={"model": {"name": "another"}})
    assert "other model settings" in sweep_of(config).warnings[0]


def test_sizes_without_a_sweep(tmp_path: Path, tiny_model: Path) -> None:
    config = support.small_config(tmp_path, tiny_model, "profiling.batch_sizes=[2, 4, 8]")
    assert choice(config) == ((2, 8), 8)
    assert "02_baseline_inference.py" in sweep_of(config).warnings[0]


def test_a_broken_metrics_file_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    config = support.small_config(tmp_path, tiny_model)
    config.files.metrics.parent.mkdir(parents=True)
    config.files.metrics.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        sweep_of(config)


def test_the_sweep_of_the_largest_sample_and_of_this_model_counts(
    tmp_path: Path, tiny_model: Path
) -> None:
    config = support.small_config(tmp_path, tiny_model)
    rows = [
        {"batch_size": 1, "status": "ok", "sample_size": 8},
        {"batch_size": 10**9, "status": "oom", "sample_size": 8},
        {"batch_size": 2, "status": "oom", "sample_size": 4},
    ]
    write_metrics(config, batch_size_profiling=rows, optimal_batch_size={"batch_size": 1})
    assert sweep_of(config).rows == tuple(rows[:2]), "of the largest sample"
    write_metrics(config, batch_size_profiling=rows, config={"model": {"name": "another"}})
    assert sweep_of(config).rows == ()
