"""The text report: all sections, the files' figures, at most 100 columns whatever the files hold."""

from __future__ import annotations

import re

import pytest

from tests.reporting import fixtures
from tests.reporting.conftest import Make
from utils.reporting.text import summary_report

SECTIONS = (
    "The six answers",
    "Run and machine",
    "Full Dataset Performance",
    "Batch Size Analysis",
    "Main bottleneck",
    "Padding",
    "Memory",
    "Warnings",
    "Where the files lie",
)


def line(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_sections_in_order(make: Make) -> None:
    text = summary_report(make())
    places = [text.index(f"\n\n{section}") for section in SECTIONS]
    assert places == sorted(places)


def test_batch_rows_equal_the_file(make: Make) -> None:
    results = make(gpu=True, oom=(64,))
    text = summary_report(results)
    row = next(row for row in results.sweep.rows if row["batch_size"] == 8)
    shown = line(text, "8 ").split()
    assert shown[:5] == [
        "8",
        "ok",
        f"{row['latency_per_sample_ms_mean']:.2f}",
        "±",
        f"{row['latency_per_sample_ms_std']:.3g}",
    ]
    assert shown[5] == f"{row['latency_per_batch_ms_median']:.2f}"
    assert shown[6] == f"{row['throughput_samples_per_sec_mean']:.1f}"
    assert shown[-1] == "no"
    assert line(text, "64 ").split()[1:4] == ["out", "of", "memory"]
    assert "None" not in text and "nan" not in text.lower().split()


def test_cold_and_steady_the_gpu_at_rest_and_whether_the_sample_matters(make: Make) -> None:
    text = " ".join(summary_report(make(gpu=True, sample_sizes=(50, 100))).split())
    steady = make(gpu=True).sweep.rows[0]["latency_per_batch_ms_median"]
    assert f"73.20 ms, cold; {steady:.2f} ms in the steady state" in text
    assert "71.50 W; another process on it: no" in text
    assert "1 50 and 100 1.27 1.19 to 1.36 yes" in text
    assert "Depends on the sample" not in summary_report(make())


def test_why_a_row_has_no_figures(make: Make) -> None:
    text = summary_report(make(gpu=True, oom=(32, 64)))
    assert re.search(r"^32 +out of memory", text, re.M)
    assert re.search(r"^64 +not tried", text, re.M)


def test_wins_and_what_to_set(make: Make) -> None:
    text = summary_report(make())
    assert "1. Invented win 1: up to 41.70 ms (23.50%) of a batch" in text
    assert "(--set evaluation.batching)" in " ".join(text.split())
    flat = " ".join(text.split())
    assert (
        "they do not add up" in text
        and "of a batch, 2.00 times as fast; Cause 1.: Evidence 1. Try: remedy 1" in flat
    )
    assert (
        "of a batch, at most 1.50 times as fast" in flat
        and "Try: remedy 3 (no matching setting)" in flat
    )
    assert (
        "Invented win 1 (evaluation.batching): predicted 2.00 times as fast, measured 1.93 (95% interval 1.90 to 1.96, "
        "7 rounds of 100 texts); 99.88% of the labels equal"
    ) in flat
    assert "Invented win 2 (no setting): not tried: invented, it does not fit" in flat


def test_not_measured_comes_with_its_reason(make: Make) -> None:
    text = summary_report(make(dummy=True, step_03=False))
    assert line(text, "GPU memory peak:").endswith(
        "not measured: the model is not on a CUDA device"
    )
    assert line(text, "Accuracy:").endswith("not measured: the weights are random (dummy)")
    assert "Not measured: step 03 has not run" in text


@pytest.mark.parametrize(
    "peculiar",
    [
        {},
        {"gpu": True},
        {"sizes": (8,)},
        {"sizes": (1, 2), "oom": (1, 2)},
        {"dummy": True, "step_03": False},
        {"labels": (fixtures.HOSTILE, "x" * 300, "two\nlines")},
        {"sample_sizes": (100, 20_000_000)},
    ],
)
def test_no_line_is_wider_than_the_page(make: Make, peculiar: dict[str, object]) -> None:
    lines = summary_report(make(**peculiar)).splitlines()
    assert max(map(len, lines)) <= 100
