"""No more digits than the uncertainty allows."""

from __future__ import annotations

import math

import pytest

from utils.core.rounding import Rounded, round_mean_std, round_value, three_digits


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (1222.4, 1132.0, 1312.8, Rounded(value="1,220", interval="1,130 to 1,310")),
        (19.17, 4.46, 33.88, Rounded(value="19", interval="4 to 34")),
        (7.2345, 7.2211, 7.2479, Rounded(value="7.234", interval="7.221 to 7.248")),
        (74.161, 73.0, 75.29, Rounded(value="74.2", interval="73.0 to 75.3")),
        (0.0, -1.0, 1.0, Rounded(value="0.0", interval="-1.0 to 1.0")),
    ],
)
def test_an_interval_decides_the_digits(
    value: float, low: float, high: float, expected: Rounded
) -> None:
    assert round_value(value, low, high) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1976.21, "1,980"),
        (64.508, "64.5"),
        (0.012345, "0.0123"),
        (0.0, "0.00"),
        (5.0, "5.00"),
        (0.9998, "1.00"),
        (9.996, "10.0"),
        (999.7, "1,000"),
        (math.inf, "inf"),
    ],
)
def test_without_an_interval_three_digits_are_shown(value: float, expected: str) -> None:
    assert round_value(value) == Rounded(value=expected)


def test_an_interval_without_width_is_not_shown() -> None:
    assert round_value(12.0, 12.0, 12.0) == Rounded(value="12.0")
    assert round_value(12.0, None, 13.0) == Rounded(value="12.0")


def test_a_speed_with_a_wide_interval_is_not_shown_as_zero() -> None:
    assert round_value(46.2, 0.0, 600.0) == Rounded(value="50", interval="0 to 600")
    assert round_value(0.299, 0.01, 11.0) == Rounded(value="0.3", interval="0 to 11")
    assert round_mean_std(46.2, 300.0) == ("50", "300")


def test_a_difference_within_its_interval_is_shown_as_zero() -> None:
    assert round_value(0.0003, -3.0, 3.0) == Rounded(value="0", interval="-3 to 3")


def test_three_digits_have_no_exponent() -> None:
    assert [three_digits(value) for value in (2131.0, 4.0, 0.02264)] == ["2,130", "4", "0.0226"]
