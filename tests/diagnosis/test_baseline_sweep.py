"""Which batch sizes are profiled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import support
from tests.diagnosis.builders import sweep_row, write_metrics
from utils.config_loader import Config
from utils.core.errors import UserError
from utils.diagnosis.baseline_sweep import BaselineSweep, read_sweep


def sweep_of(config: Config) -> BaselineSweep:
    return read_sweep(config.files.metrics, config.model, config.profiling.batch_sizes)


def choice(config: Config) -> tuple[tuple[int, ...], int]:
    sweep = sweep_of(config)
    return sweep.sizes, sweep.optimal


ROWS = (sweep_row(1), sweep_row(2), sweep_row(4), sweep_row(64, status="oom"))
OTHER_MODEL = "model.attn_implementation=eager"


def test_one_the_optimal_and_the_largest_size_that_fits_are_profiled(
    tmp_path: Path, tiny_model: Path
) -> None:
    config = support.small_config(tmp_path, tiny_model)
    write_metrics(config, *ROWS, optimal=2)
    assert choice(config) == ((1, 2, 4), 2)
    assert sweep_of(config).warnings == ()


def test_without_an_optimal_size_the_largest_stands_for_it(
    tmp_path: Path, tiny_model: Path
) -> None:
    config = support.small_config(tmp_path, tiny_model)
    write_metrics(config, *ROWS, optimal=None)
    assert choice(config) == ((1, 4), 4)


def test_of_a_sweep_of_another_model_only_the_sizes_count(tmp_path: Path, tiny_model: Path) -> None:
    write_metrics(support.small_config(tmp_path, tiny_model, OTHER_MODEL), *ROWS, optimal=2)
    sweep = sweep_of(support.small_config(tmp_path, tiny_model))
    assert (sweep.sizes, sweep.rows) == ((1, 2, 4), ())
    assert "other model settings" in sweep.warnings[0]


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


def test_the_sweep_of_the_largest_sample_counts(tmp_path: Path, tiny_model: Path) -> None:
    config = support.small_config(tmp_path, tiny_model)
    rows = (
        sweep_row(1, sample_size=8),
        sweep_row(10**9, status="oom", sample_size=8),
        sweep_row(2, status="oom", sample_size=4),
    )
    write_metrics(config, *rows, optimal=1)
    sweep = sweep_of(config)
    assert sweep.batch_sizes == [1, 10**9]
    assert sweep.out_of_memory == {10**9}
