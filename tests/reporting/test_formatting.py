"""Values as a person reads them."""

from __future__ import annotations

import pytest

from utils.reporting.formatting import (
    format_bool,
    format_change,
    format_change_interval,
    format_durations,
    format_interval,
    format_mean_std,
    format_metric,
    format_number,
    format_percent,
    format_score,
    format_with_interval,
    shorten,
    speedup_text,
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
        (99.94, "99.9"),
        (1234.56, "1,230"),
        (-0.5, "-0.500"),
        (None, "–"),
    ],
)
def test_a_number_has_the_digits_that_carry_meaning(value: float | None, text: str) -> None:
    assert format_number(value) == text


def test_a_number_has_its_unit() -> None:
    assert format_number(12.5, "ms") == "12.5 ms"
    assert format_number(None, "ms", missing="unknown") == "unknown"


def test_a_fraction_is_shown_in_percent() -> None:
    assert format_percent(0.1234) == "12.3%"
    assert format_percent(None) == "–"


def test_a_mean_of_a_single_run_has_no_standard_deviation() -> None:
    assert format_mean_std(2.5, 0.25) == "2.5 ± 0.2"
    assert format_mean_std(2.5, None) == "2.50"


def test_a_value_has_the_digits_of_its_interval() -> None:
    assert format_with_interval(1222.4, 1132.0, 1312.8) == "1,220 (1,130 to 1,310)"
    assert format_with_interval(12.34, 12.1, 12.5, "ms") == "12.3 ms (95% interval 12.1 to 12.5)"
    assert format_with_interval(12.345, None, None, "ms") == "12.3 ms"
    assert format_with_interval(None, None, None) == "–"


def test_a_score_without_an_interval_has_three_decimals() -> None:
    assert format_score(1.0) == "1.000"
    assert format_score(0.92073, 0.9199, 0.9216) == "0.9207"
    assert format_score(None) == "–"


def test_a_difference_has_its_sign_and_the_digits_of_its_interval() -> None:
    assert format_change(-6.67, (-9.1, -4.2), "pp") == "-7 pp"
    assert format_change(0.0, (-1.0, 1.0), "pp") == "0 pp"
    assert format_change_interval((-0.123, 0.456)) == "-0.1 to +0.5"
    assert format_change_interval(None) == "–"


def test_a_speedup_has_the_interval_of_what_was_measured() -> None:
    assert speedup_text(71.55) == "71.5 times as fast"
    assert speedup_text(1.934, (1.902, 1.961)) == "1.93 times as fast (95% interval 1.90 to 1.96)"


def test_an_interval_has_both_ends_or_none() -> None:
    assert format_interval(1.5, 2.5) == "1.5 to 2.5"
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
