"""Numbers with no more digits than their uncertainty allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

DIGITS_WITHOUT_INTERVAL = 3
MOST_DECIMALS = 6
"""Decimals after which a number is written with an exponent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounded:
    """A value and the ends of its interval, in the same number of digits.

    Args:
        interval: empty where the value has none.
    """

    value: str
    interval: str = ""


def three_digits(value: float) -> str:
    """At most three significant digits, without an exponent below ten billion: 1,650 or 4."""
    return f"{float(f'{value:.3g}'):,.10g}"


def round_mean_std(mean: float, std: float) -> tuple[str, str]:
    """A mean and its standard deviation, in the digits that the deviation allows."""
    if std <= 0:
        return round_value(mean).value, round_value(std).value
    place = _place_of(std / 2)
    return _to_place(mean, _place_to_show(mean, place)), _to_place(std, place)


def round_interval(low: float, high: float) -> str:
    """The two ends of an interval, in the digits that its width allows."""
    interval = round_value(low, low, high).interval
    return interval or f"{round_value(low).value} to {round_value(high).value}"


def round_value(value: float, low: float | None = None, high: float | None = None) -> Rounded:
    """Round to the place where the interval's half width has its first digit.

    A half width that begins with 1 keeps one more digit: rounding it would change it by up to half.
    A value without an interval has three significant digits. A positive value whose interval has no
    negative end, such as a speed, keeps its first digit however wide the interval is.
    """
    if low is None or high is None or high <= low:
        # Rounding may add a digit: 9.996 becomes 10.0.
        first = _place_of(float(f"{value:.{DIGITS_WITHOUT_INTERVAL}g}"))
        return Rounded(value=_to_place(value, first - DIGITS_WITHOUT_INTERVAL + 1))
    place = _place_of((high - low) / 4)
    interval = f"{_to_place(low, place)} to {_to_place(high, place)}"
    if low >= 0:
        return Rounded(value=_to_place(value, _place_to_show(value, place)), interval=interval)
    return Rounded(value=_to_place(value, place), interval=interval)


def _place_to_show(value: float, place: int) -> int:
    """The place to round to: ``place``, or a finer one where a positive value would become 0."""
    if value <= 0 or round(value, -place) != 0:
        return place
    return _place_of(value)


def _place_of(value: float) -> int:
    """The power of ten of the first digit."""
    if value == 0 or not math.isfinite(value):
        return 0
    return math.floor(math.log10(abs(value)))


def _to_place(value: float, place: int) -> str:
    if not math.isfinite(value):
        return str(value)
    # Adding zero makes a negative zero positive.
    rounded = round(value, -place) + 0.0
    decimals = max(0, -place)
    if decimals > MOST_DECIMALS:
        digits = max(1, _place_of(value) - place + 1)
        return f"{rounded:.{digits}g}"
    return f"{rounded:,.{decimals}f}"
