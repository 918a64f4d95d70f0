"""How a figure is said to a person: digits, unit, or "not measured" with the reason."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

DASH = "–"


def number(value: Any, unit: str = "", *, missing: str = DASH) -> str:
    """Digits that carry meaning: at most three significant below 1, thousands apart. Counts are whole; None and NaN are absent."""
    if pd.isna(value):
        return missing
    decimals = 0 if float(value).is_integer() else 1 if abs(value) >= 100 else 2
    text = f"{value:,.{decimals}f}" if decimals == 0 or abs(value) >= 1 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def percent(fraction: Any) -> str:
    """A fraction of 0..1 in percent."""
    return DASH if pd.isna(fraction) else f"{fraction:.1%}"


def spread(mean: Any, std: Any) -> str:
    """Mean and standard deviation; the mean alone from a single run."""
    return number(mean) if pd.isna(std) else f"{number(mean)} ± {number(std)}"


def interval(low: Any, high: Any) -> str:
    """A 95% interval."""
    return DASH if pd.isna(low) else f"{number(low)} to {number(high)}"


def yes_no(value: bool | None) -> str:
    """A verdict that may be unknown."""
    return {True: "yes", False: "no", None: "unknown"}[value]


def not_measured(why: str | None = None) -> str:
    """``not measured``, with the reason where there is one."""
    return f"not measured: {why}" if why else "not measured"


def unmeasured(name: str, warnings: Iterable[str], otherwise: str | None = None) -> str:
    """``not measured``, with the reason that a warning gives, or ``otherwise``."""
    return not_measured(reason(name, warnings) or otherwise)


def reason(name: str, warnings: Iterable[str]) -> str | None:
    """Why the figure ``name`` is null: what the first warning that names it says, or None."""
    stem = re.escape(re.sub(r"(_(per_sample|mean|median|pct|w|j))+$", "", name))
    # A warning may speak of all GPU figures at once, also within another's words.
    names = rf"\b{stem}|^GPU figures" if re.search("gpu|energy", name) else rf"\b{stem}"
    warning = next((warning for warning in warnings if re.search(names, warning)), None)
    return warning and warning.split(": ", 1)[-1].removeprefix("GPU figures: ")


def shorten(name: str, width: int) -> str:
    """A name of at most ``width`` characters; of a longer one, such as a path, the end distinguishes it."""
    return name if len(name) <= width else f"…{name[1 - width :]}"
