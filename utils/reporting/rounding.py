"""Numbers with no more digits than their uncertainty allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

DIGITS_WITHOUT_INTERVAL = 3
MOST_DECIMALS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounded:
    """A value and the ends of its interval, in the same number of digits.

    Args:
        interval: empty where the value has none.
    """

    value: str
    interval: str = ""


def round_value(value: float, low: float | None = None, high: float | None = None) -> Rounded:
    """Round to the place where the interval's half width has its first digit.

    A half width that begins with 1 keeps one more digit: rounding it would change it by up to half.
    A value without an interval has three significant digits.
    """
    if low is None or high is None or high <= low:
        return Rounded(value=_to_place(value, _place_of(value) - DIGITS_WITHOUT_INTERVAL + 1))
    place = _place_of((high - low) / 4)
    interval = f"{_to_place(low, place)} to {_to_place(high, place)}"
    return Rounded(value=_to_place(value, place), interval=interval)


def _place_of(value: float) -> int:
    """The power of ten of the first digit."""
    if value == 0 or not math.isfinite(value):
        return 0
    return math.floor(math.log10(abs(value)))


def _to_place(value: float, place: int) -> str:
    if not math.isfinite(value):
        return str(value)
    decimals = min(MOST_DECIMALS, max(0, -place))
    return f"{round(value, -place):,.{decimals}f}"
