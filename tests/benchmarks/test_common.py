"""Rows, bars, the table and the exit code."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import common
from benchmarks.common import MISS, NOT_HERE, PASS, UNDECIDED, Row, within


def test_the_larger_of_both_tolerances_counts() -> None:
    assert within("latency", 0.2, 0.249, "ms", relative=0.01, absolute=0.05).status == PASS
    assert within("latency", 0.2, 0.251, "ms", relative=0.01, absolute=0.05).status == MISS
    assert within("latency", 100, 100.9, "ms", relative=0.01, absolute=0.05).status == PASS
    assert within("latency", 100, 101.1, "ms", relative=0.01, absolute=0.05).status == MISS


def test_without_a_tolerance_it_is_exact() -> None:
    assert within("peak", 1 << 30, 1 << 30, "bytes").status == PASS
    assert within("peak", 1 << 30, (1 << 30) + 512, "bytes").status == MISS
    assert within("padding", 0.4375, 0.4375 + 1e-6, "").status == MISS


def test_a_value_that_is_null_is_a_miss() -> None:
    assert within("latency", 5, None, "ms", relative=1).status == MISS


def test_what_is_not_here_is_not_among_the_passed_and_says_why() -> None:
    rows = [common.not_here("energy", "no CUDA device"), common.at_most("thread", 1, 0.5, "%")]
    assert common.tally(rows).startswith("1 passed, 0 missed")
    assert "1 not here" in common.tally(rows)
    assert "not here: no CUDA device" in common.table(rows)
    with pytest.raises(AssertionError):
        Row(check="energy", status=NOT_HERE)


@pytest.mark.parametrize(
    ("rounds", "status"),
    [
        ([1, 1.1, 0.9, 1] * 3, PASS),
        ([4, 4.1, 3.9, 4] * 3, MISS),
        ([-4, -4.1, -3.9, -4] * 3, MISS),
        ([1, 9, -9, 1] * 3, UNDECIDED),
    ],
)
def test_noise_larger_than_the_bar_decides_nothing(rounds: list[float], status: str) -> None:
    assert common.verdict(rounds, -2, 2) == status
    assert common.verdict([*rounds, 1000], -2, 2) == status  # one disturbed round changes nothing


@pytest.mark.parametrize(("measured", "code"), [(0.5, 0), (1.5, 1)])
def test_exit_code_and_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], measured: float, code: int
) -> None:
    def measure(args: argparse.Namespace) -> list[Row]:
        return [
            common.at_most("thread", 1, measured, "%"),
            common.not_here("energy", "no CUDA device"),
        ]

    parser, path = (
        common.make_parser("What it shows.", "python x.py"),
        tmp_path / "deep" / "rows.json",
    )
    assert common.run(parser, measure, ["--json", str(path)]) == code
    assert common.read_rows(path) == measure(argparse.Namespace())
    assert json.loads(path.read_text())["environment"]["python"]
    assert f"{1 - code} passed, {code} missed" in capsys.readouterr().out
