"""How a value is shown to a person: digits, unit, or "not measured" with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from utils.core.rounding import round_interval, round_mean_std, round_value
from utils.schema.common import MeasuredRecord

DASH = "–"


class Fact(NamedTuple):
    """A line of a report: what it is about, and the value in words.

    ``is_verbatim``: the value is to be copied, such as a command, so that no line may break it.
    """

    name: str
    text: str
    is_verbatim: bool = False


def format_number(value: float | None, unit: str = "", *, missing: str = DASH) -> str:
    """Show a number whose uncertainty is not known, followed by its unit.

    Whole numbers are shown exactly, because they are counts or settings. Others have three
    significant digits. Commas separate the thousands. ``missing`` stands for None.
    """
    if value is None:
        return missing
    text = f"{value:,.0f}" if float(value).is_integer() else round_value(value).value
    if unit == "%":
        return f"{text}%"
    return f"{text} {unit}".rstrip()


def format_percent(fraction: float | None) -> str:
    """Show a fraction between 0 and 1 in percent."""
    if fraction is None:
        return DASH
    return f"{fraction:.1%}"


def format_mean_std(mean: float | None, std: float | None) -> str:
    """Show the mean with the standard deviation, which a single run does not have."""
    if mean is None or std is None:
        return format_number(mean)
    return " ± ".join(round_mean_std(mean, std))


def format_interval(low: float | None, high: float | None) -> str:
    """Show the two ends of a 95% interval."""
    if low is None or high is None:
        return DASH
    return round_interval(low, high)


def format_with_interval(
    value: float | None, low: float | None, high: float | None, unit: str = ""
) -> str:
    """Show a value, and its 95% interval in brackets where it has one, in as many digits.

    Without a unit, as in a table whose header says so, the brackets hold the ends alone.
    """
    if value is None:
        return DASH
    rounded = round_value(value, low, high)
    if not rounded.interval:
        return format_number(value, unit)
    if not unit:
        return f"{rounded.value} ({rounded.interval})"
    return f"{rounded.value} {unit} (95% interval {rounded.interval})"


def format_score(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Show an accuracy or an F1 in the digits that its 95% interval allows, else in three."""
    if value is None:
        return DASH
    if low is None or high is None or high <= low:
        return f"{value:.3f}"
    return round_value(value, low, high).value


def format_change(
    change: float, interval: tuple[float, float] | None = None, unit: str = ""
) -> str:
    """Show a difference with its sign, in the digits that its 95% interval allows; 0 has none."""
    if change == 0:
        return f"0 {unit}".rstrip()
    low, high = interval or (None, None)
    return f"{_with_sign(round_value(change, low, high).value)} {unit}".rstrip()


def format_change_interval(interval: tuple[float, float] | None) -> str:
    """Show the two ends of the 95% interval of a difference, each with its sign."""
    if interval is None:
        return DASH
    low, _, high = round_interval(*interval).partition(" to ")
    return f"{_with_sign(low)} to {_with_sign(high)}"


def _with_sign(number: str) -> str:
    return number if number.startswith("-") else f"+{number}"


def speedup_text(speedup: float, ci95: tuple[float, float] | None = None) -> str:
    """How many times as fast something is, with the interval of what was measured."""
    low, high = ci95 or (None, None)
    rounded = round_value(speedup, low, high)
    text = f"{rounded.value} times as fast"
    if rounded.interval:
        text += f" (95% interval {rounded.interval})"
    return text


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
