"""The GPU over time: seconds since the first reading, and a mean over time."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

from tests.reporting.conftest import MakeResults
from utils.reporting.page.timeline_charts import time_mean, timeline_charts
from utils.schema.trace_tables import GpuReading

UNIX_TIME_S = 1_795_683_962.0


def test_the_mean_is_over_time_however_dense_the_readings_are() -> None:
    # A second at 0 that is read four times, then nine seconds at 100 that are read twice.
    points = [(0.0, 0.0), (0.25, 0.0), (0.5, 0.0), (1.0, 0.0), (1.0, 100.0), (10.0, 100.0)]
    assert time_mean(points) == 90.0
    assert time_mean([(3.0, 7.0)]) == 7.0


def test_readings_at_one_moment_have_their_plain_mean() -> None:
    assert time_mean([(1.0, 2.0), (1.0, 4.0)]) == 3.0


def test_the_time_starts_at_the_first_reading(make_results: MakeResults) -> None:
    readings = []
    for second in range(5):
        reading = GpuReading(
            time_s=UNIX_TIME_S + second,
            util_pct=50.0,
            power_w=None,
            sm_clock_mhz=None,
            temperature_c=None,
        )
        readings.append(reading)
    results = make_results()
    tables = replace(results.tables, gpu_readings=tuple(readings))
    [utilisation, _] = timeline_charts(replace(results, tables=tables))
    svg = ElementTree.fromstring(str(utilisation.svg))
    texts = [element.text or "" for element in svg.iter("text")]
    assert "time since the first reading (s)" in texts
    # matplotlib writes the offset of large numbers beside the axis.
    assert not any("e9" in text for text in texts)
