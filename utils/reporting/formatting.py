"""How a value is shown to a person: digits, unit, or "not measured" with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from utils.schema.common import MeasuredRecord

DASH = "–"


class Fact(NamedTuple):
    """A line of a report: what it is about, and the value in words."""

    name: str
    text: str


def format_number(value: float | None, unit: str = "", *, missing: str = DASH) -> str:
    """Show a number with the digits that carry meaning, followed by its unit.

    Whole numbers have no decimals. Others have three significant digits below 1, two decimals
    below 100 and one above. Commas separate the thousands. ``missing`` stands for None.
    """
    if value is None:
        return missing
    return f"{_digits(float(value))} {unit}".rstrip()


def _digits(value: float) -> str:
    if value.is_integer():
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:,.1f}"
    if abs(value) >= 1:
        return f"{value:,.2f}"
    return f"{value:.3g}"


def format_percent(fraction: float | None) -> str:
    """Show a fraction between 0 and 1 in percent."""
    if fraction is None:
        return DASH
    return f"{fraction:.1%}"


def format_mean_std(mean: float | None, std: float | None) -> str:
    """Show the mean with the standard deviation, which a single run does not have."""
    if std is None:
        return format_number(mean)
    return f"{format_number(mean)} ± {format_number(std)}"


def format_interval(low: float | None, high: float | None) -> str:
    """Show the two ends of a 95% interval."""
    if low is None:
        return DASH
    return f"{format_number(low)} to {format_number(high)}"


def format_bool(value: bool | None) -> str:
    """Show a statement that is true, false or not known."""
    if value is None:
        return "unknown"
    return "yes" if value else "no"


def format_durations(milliseconds: Mapping[str, float]) -> str:
    """List named durations, the longest first."""
    longest_first = sorted(milliseconds.items(), key=lambda item: -item[1])
    parts = [f"{name} {format_number(duration, 'ms')}" for name, duration in longest_first]
    return ", ".join(parts) or "none"


def not_measured(reason: str | None = None) -> str:
    """``not measured``, followed by the reason where there is one."""
    if not reason:
        return "not measured"
    return f"not measured: {reason}"


def format_metric(
    record: MeasuredRecord, name: str, unit: str, *, default_reason: str | None = None
) -> str:
    """Show a metric of a record, or why it was not measured.

    Args:
        default_reason: the reason where the record has none.
    """
    value: float | None = getattr(record, name)
    reason = record.reason(name) or default_reason
    return format_number(value, unit, missing=not_measured(reason))


def shorten(name: str, width: int) -> str:
    """Shorten a name to ``width`` characters. Its end is kept, because it distinguishes paths."""
    if len(name) <= width:
        return name
    return f"…{name[1 - width :]}"
