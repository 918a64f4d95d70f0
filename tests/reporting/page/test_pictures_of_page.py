"""The page's pictures: inline SVG with text, values on hover, and reasons where one is missing."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from markupsafe import Markup
from matplotlib.figure import Figure

from tests.reporting.conftest import MakeResults
from utils.reporting.formatting import format_number
from utils.reporting.page.batch_axis import labelled_sizes
from utils.reporting.page.blocks import Chart, charts_block, draw_chart
from utils.reporting.page.bottleneck_chart import bottleneck_chart, time_parts
from utils.reporting.page.colours import COMPUTE, VARIABLES
from utils.reporting.page.inline_svg import Tips, new_figure
from utils.reporting.page.roofline_chart import roofline_charts
from utils.reporting.page.speed_charts import panel_charts, tradeoff_chart
from utils.reporting.page.time_charts import module_charts, operator_chart, phases_chart
from utils.reporting.page.timeline_charts import timeline_charts
from utils.reporting.results import Results
from utils.schema.diagnosis import BatchSizeDiagnosis


def all_charts(results: Results) -> list[Chart]:
    return [
        tradeoff_chart(results),
        *panel_charts(results),
        bottleneck_chart(results),
        *roofline_charts(results),
        phases_chart(results),
        operator_chart(results),
        *module_charts(results),
        *timeline_charts(results),
    ]


def draw_bar(tips: Tips) -> Figure:
    figure = new_figure()
    axes = figure.subplots()
    bars = axes.bar([1], [2], color=COMPUTE)
    axes.set_xlabel(f"a <b>label</b> & its colour {COMPUTE}")
    tips.add(bars.patches[0], '2 ms </title><script>alert("x")</script>')
    return figure


def test_a_picture_has_text_variables_and_values_on_hover() -> None:
    svg = str(draw_chart("bar", "Title", "Caption.", draw_bar).svg)
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Title. Caption."
    assert "fill: var(--compute)" in svg
    texts = [element.text for element in root.iter("text")]
    assert f"a <b>label</b> & its colour {COMPUTE}" in texts
    titles = [element.text for element in root.iter("title")]
    assert titles == ['2 ms </title><script>alert("x")</script>']
    assert "<script" not in svg
    assert "font-family" not in svg


def test_every_colour_is_a_variable_of_the_style_sheet(make_results: MakeResults) -> None:
    for chart in all_charts(make_results(gpu=True)):
        styles = re.findall(r"#[0-9a-f]{6}", str(chart.svg or ""))
        assert styles == []
    assert len(set(VARIABLES.values())) == len(VARIABLES)


def test_two_pictures_share_no_ids(make_results: MakeResults) -> None:
    ids: list[str] = []
    for chart in all_charts(make_results(gpu=True)):
        if chart.svg is not None:
            root = ElementTree.fromstring(str(chart.svg))
            ids += [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("gpu", [True, False])
def test_every_picture_is_drawn_or_says_why_not(make_results: MakeResults, gpu: bool) -> None:
    for chart in all_charts(make_results(gpu=gpu)):
        if chart.svg is None:
            assert chart.missing.startswith("not measured: ")


def test_without_step_03_its_pictures_name_the_command(make_results: MakeResults) -> None:
    results = make_results(has_diagnosis=False)
    for chart in (bottleneck_chart(results), operator_chart(results), *module_charts(results)):
        assert chart.svg is None
        assert "scripts/03_detailed_profiling.py" in chart.missing


def test_values_are_shown_on_hover(make_results: MakeResults) -> None:
    results = make_results(out_of_memory=(64,))
    svg = str(panel_charts(results)[0].svg)
    for size, value in results.sweep.values("throughput_samples_per_sec_mean").items():
        assert f"batch size {size}: {format_number(value)} " in svg
    assert "batch size 8: " in svg
    assert "(not stable)" in svg
    assert "batch size 64: out of memory" in svg


def one_verdict(results: Results, **changes: object) -> BatchSizeDiagnosis:
    assert results.diagnosis is not None
    return results.diagnosis.batch_sizes[0].model_copy(update=changes)


def test_the_parts_of_a_batch_add_up_to_its_time(make_results: MakeResults) -> None:
    item = one_verdict(make_results())
    evidence = item.evidence
    parts = {part.name: part.time_ms for part in time_parts(item)}
    expected = evidence.tokenize_ms + evidence.forward_ms
    assert sum(parts.values()) == pytest.approx(expected)
    assert parts["input"] == pytest.approx(evidence.tokenize_ms)
    assert parts["compute"] == pytest.approx(evidence.matmul_limited_ms)
    # The file has no overhead in milliseconds: it is the share of the forward.
    assert parts["overhead"] == pytest.approx(0.1 * evidence.forward_ms)


def test_causes_that_overlap_are_shortened_to_the_forward(make_results: MakeResults) -> None:
    item = one_verdict(make_results())
    forward_ms = item.evidence.forward_ms
    evidence = item.evidence.model_copy(
        update={"matmul_limited_ms": forward_ms, "copy_limited_ms": 0.0}
    )
    item = item.model_copy(update={"evidence": evidence, "overhead_ms": forward_ms})
    parts = {part.name: part.time_ms for part in time_parts(item)}
    assert parts["compute"] == pytest.approx(forward_ms / 2)
    assert parts["overhead"] == pytest.approx(forward_ms / 2)
    assert parts["slower than the ceilings"] == 0.0


def test_padding_is_part_of_the_work_and_not_of_the_overhead(make_results: MakeResults) -> None:
    item = one_verdict(make_results(), overhead_ms=1.0)
    evidence = item.evidence.model_copy(update={"padding_fraction": 0.5})
    parts = {
        part.name: part.time_ms
        for part in time_parts(item.model_copy(update={"evidence": evidence}))
    }
    assert parts["overhead"] == pytest.approx(1.0)
    assert parts["padding"] == pytest.approx((evidence.forward_ms - 1.0) / 2)


def test_pictures_that_are_missing_for_one_reason_share_a_place() -> None:
    drawn = Chart(title="Drawn", svg=Markup("<svg></svg>"))
    block = charts_block(
        [
            Chart(title="Power", missing="no GPU"),
            drawn,
            Chart(title="Clock", missing="no GPU"),
            Chart(title="Labels", missing="no labels"),
        ]
    )
    assert block.charts[0] is drawn
    missing = [(chart.title, chart.missing) for chart in block.charts[1:]]
    assert missing == [("Power, Clock", "no GPU"), ("Labels", "no labels")]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([8], [8]),
        ([1, 4, 8, 16, 32, 64], [1, 4, 8, 16, 32, 64]),
        (list(range(1, 21)), [1, 2, 3, 5, 7, 10, 14, 20]),
    ],
)
def test_labels_of_batch_sizes_do_not_print_over_each_other(
    sizes: list[int], expected: list[int]
) -> None:
    assert labelled_sizes(sizes) == expected
