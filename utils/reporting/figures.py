"""How a figure is said to a person: digits, unit, or "not measured" with the reason."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from utils.reporting.results import reason

NOT_MEASURED = "not measured"
DASH = "–"


def absent(value: Any) -> bool:
    """Whether a figure was not measured: None, or the NaN that a table has in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: Any, unit: str = "", *, missing: str = DASH) -> str:
    """Digits that carry meaning: at least three significant, thousands apart. Counts are whole."""
    if absent(value):
        return missing
    if float(value).is_integer():
        text = f"{int(value):,}"
    else:
        decimals = 1 if abs(value) >= 100 else 2
        text = f"{value:,.{decimals}f}" if abs(value) >= 1 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def percent(fraction: Any, *, missing: str = DASH) -> str:
    """A fraction of 0..1 in percent."""
    return missing if absent(fraction) else f"{fraction:.1%}"


def spread(mean: Any, std: Any) -> str:
    """Mean and standard deviation; the mean alone from a single run."""
    return number(mean) if absent(std) or absent(mean) else f"{number(mean)} ± {number(std)}"


def interval(low: Any, high: Any) -> str:
    """A 95% interval."""
    return DASH if absent(low) or absent(high) else f"{number(low)} to {number(high)}"


def yes_no(value: bool | None) -> str:
    """A verdict that may be unknown."""
    return "unknown" if value is None else "yes" if value else "no"


def unmeasured(name: str, warnings: Iterable[str], otherwise: str | None = None) -> str:
    """``not measured``, with the reason that a warning gives, or ``otherwise``."""
    why = reason(name, warnings) or otherwise
    return f"{NOT_MEASURED}: {why}" if why else NOT_MEASURED
