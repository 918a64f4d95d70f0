"""Ceilings of this machine, and what is attainable under given ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.diagnosis.builders import make_ceilings
from utils.diagnosis import roofline
from utils.diagnosis.roofline import attainable
from utils.schema.ceilings import Ceilings, CopyRate
from utils.system.timing import CallTimes

COPIES = ((1000, 4e6), (10_000, 5e6), (100_000, 1e6))


def ceilings(**changes: Any) -> Ceilings:
    rates = tuple(CopyRate(num_bytes=size, bytes_per_s=rate) for size, rate in COPIES)
    settings = {"matmul_flops_per_s": 1e9, "copy_bytes_per_s": 1e6, "copy_rates": rates}
    return make_ceilings(**{**settings, **changes})


def test_the_ceiling_that_takes_longer_decides() -> None:
    given = ceilings()
    assert attainable(given, 10**9, 1000) == (1.0, "matmul")
    assert attainable(given, 1000, 10**6) == (1.0, "copy")
    assert attainable(given, None, 50_000) == (0.05, "copy")
    assert attainable(given, 0, 0) == (0.0, "copy")


def test_a_copy_is_compared_with_the_best_rate_for_as_many_bytes_or_more() -> None:
    assert attainable(ceilings(), 0, 500) == (pytest.approx(0.0001), "copy")


def test_ceilings_are_measured_once_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, calls = (
        ceilings(bfloat16_matmul_flops_per_s=2e9, measured_at="2030-01-01T00:00:00+0000"),
        [],
    )

    def measure(*_: Any) -> Ceilings:
        calls.append(1)
        return given

    monkeypatch.setattr(roofline, "measure_ceilings", measure)
    file, cpu = tmp_path / "ceilings.json", torch.device("cpu")
    assert (
        roofline.load_or_measure_ceilings(cpu, torch.float32, file)
        == roofline.load_or_measure_ceilings(cpu, torch.float32, file)
        == given
    )
    assert len(calls) == 1
    roofline.load_or_measure_ceilings(cpu, torch.bfloat16, file)
    assert len(calls) == 2, "another precision"
    saved = json.loads(file.read_text())
    saved["machine"]["torch"]["num_threads"] += 1
    for left in (json.dumps(saved), json.dumps({**saved, "machine": {}}), "{"):
        file.write_text(left)
        roofline.load_or_measure_ceilings(cpu, torch.bfloat16, file)
        assert json.loads(file.read_text())["machine"]["dtype"] == "torch.bfloat16"
    assert len(calls) == 5, "other threads, another machine, damaged"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ceilings_of_this_machine_are_plausible(dtype: torch.dtype) -> None:
    measured = roofline.measure_ceilings(torch.device("cpu"), dtype)
    assert measured.matmul_flops_per_s > 1e8 and measured.copy_bytes_per_s > 1e8
    sizes = [rate.num_bytes for rate in measured.copy_rates]
    assert sizes == [2 * size for size in roofline.COPY_BYTES["cpu"]]
    assert 1e-8 < measured.dispatch_s < 1e-3
    assert measured.matmul_spread_pct >= 0 and measured.copy_spread_pct >= 0
    assert (measured.bfloat16_matmul_flops_per_s is not None) == (dtype == torch.float32), (
        "of bfloat16 it is the ceiling itself"
    )
    assert measured.tf32_matmul_flops_per_s is None, "no CUDA device"
    assert "CUDA" in measured.unavailable["tf32_matmul_flops_per_s"]
    assert measured.dtype == str(dtype).removeprefix("torch.")


def test_products_are_timed_at_their_own_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[tuple[tuple[int, ...], torch.dtype]] = []

    def time_repeated(run: Any, _: torch.device, at_least_s: float) -> CallTimes:
        assert at_least_s == roofline.REPEAT_AT_LEAST_S["cpu"]
        left, _ = run.args
        timed.append((tuple(left.shape), left.dtype))
        seconds_a_row = 1.0 if left.dtype == torch.float32 else 0.25
        return CallTimes(seconds=(seconds_a_row * left.shape[0],))

    monkeypatch.setattr(roofline, "_time_repeated", time_repeated)
    cpu = torch.device("cpu")
    products = [
        roofline.MatrixProduct(rows=8, inner=16, columns=4, calls=2.0),
        roofline.MatrixProduct(rows=10**9, inner=2**10, columns=2**9, calls=1.0),
    ]
    given = ceilings(bfloat16_matmul_flops_per_s=2e9)
    assert roofline.product_speedups(products, cpu, given) == {"model.dtype=bfloat16": 4.0}
    slow_rows = int(roofline.SLOWEST_PRODUCT_S * given.matmul_flops_per_s / 2**20)
    expected = [((8, 16), torch.float32), ((slow_rows, 2**10), torch.float32)]
    assert timed[:2] == expected, "minutes are not spent"
    assert roofline.product_speedups([], cpu, given) == {}
    assert roofline.product_speedups(products, cpu, ceilings()) == {}
