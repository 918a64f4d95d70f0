"""Durations and costs in words."""

from __future__ import annotations

import pytest

from utils.pipeline.durations import cost_text, duration_text, num_paid_gpus


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1 second"),
        (12.4, "12 seconds"),
        (89.0, "89 seconds"),
        (720.0, "12 minutes"),
        (9000.0, "2.5 hours"),
    ],
)
def test_a_duration_is_in_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_cost_names_the_price_that_it_follows_from() -> None:
    assert cost_text(2160.0, 2.0) == "about $1.20 at $2.00 per hour"
    assert cost_text(1.0, 2.0) == "less than $0.01 at $2.00 per hour"
    assert cost_text(360_000.0, 2.5) == "about $250 at $2.50 per hour"
    assert cost_text(3600.0, 2.0, 4) == "about $8.00 at $2.00 per hour for each of 4 GPUs"


def test_each_worker_pays_for_a_gpu_of_its_own() -> None:
    assert num_paid_gpus("cuda", 4) == 4
    assert num_paid_gpus("cpu", 4) == 1
