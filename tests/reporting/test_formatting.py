"""Values as a person reads them."""

from __future__ import annotations

import pytest

from utils.reporting.formatting import (
    format_bool,
    format_durations,
    format_interval,
    format_mean_std,
    format_metric,
    format_number,
    format_percent,
    shorten,
)
from utils.schema.baseline import SweepMeasurement


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12, "12"),
        (1234567, "1,234,567"),
        (3.0, "3"),
        (0.012345, "0.0123"),
        (3.14159, "3.14"),
        (99.987, "99.99"),
        (1234.56, "1,234.6"),
        (-0.5, "-0.5"),
        (None, "–"),
    ],
)
def test_a_number_has_the_digits_that_carry_meaning(value: float | None, text: str) -> None:
    assert format_number(value) == text


def test_a_number_has_its_unit() -> None:
    assert format_number(12.5, "ms") == "12.50 ms"
    assert format_number(None, "ms", missing="unknown") == "unknown"


def test_a_fraction_is_shown_in_percent() -> None:
    assert format_percent(0.1234) == "12.3%"
    assert format_percent(None) == "–"


def test_a_mean_of_a_single_run_has_no_standard_deviation() -> None:
    assert format_mean_std(2.5, 0.25) == "2.50 ± 0.25"
    assert format_mean_std(2.5, None) == "2.50"


def test_an_interval_has_both_ends_or_none() -> None:
    assert format_interval(1.5, 2.5) == "1.50 to 2.50"
    assert format_interval(None, None) == "–"


@pytest.mark.parametrize(("value", "text"), [(True, "yes"), (False, "no"), (None, "unknown")])
def test_a_statement_may_be_unknown(value: bool | None, text: str) -> None:
    assert format_bool(value) == text


def test_durations_are_listed_from_the_longest() -> None:
    assert format_durations({"copy": 1.5, "attention": 12.0}) == "attention 12 ms, copy 1.50 ms"
    assert format_durations({}) == "none"


def test_a_missing_metric_has_the_reason_of_its_record() -> None:
    measurement = SweepMeasurement(unavailable={"idle_gpu_power_w": "no GPU was used"})
    text = format_metric(measurement, "idle_gpu_power_w", "W")
    assert text == "not measured: no GPU was used"


def test_a_missing_metric_without_a_reason_has_the_default_reason() -> None:
    measurement = SweepMeasurement()
    assert format_metric(measurement, "idle_gpu_power_w", "W") == "not measured"
    text = format_metric(measurement, "idle_gpu_power_w", "W", default_reason="no NVML")
    assert text == "not measured: no NVML"


def test_a_long_name_keeps_its_end() -> None:
    assert shorten("short", 10) == "short"
    assert shorten("a/long/path/model", 8) == "…h/model"
