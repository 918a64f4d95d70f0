"""A comparison as text, Markdown and page: complete, narrow, and safe with any names."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.comparison.builders import (
    Payload,
    compare,
    write_predictions,
    write_process,
    write_processes,
)
from tests.reporting.builders import Scenario
from utils.comparison.costs import GivenPrices
from utils.reporting.comparison_facts import SPEED, repeats_text
from utils.reporting.comparison_forest import LEFT, RIGHT, forest_plot
from utils.reporting.comparison_markdown import escape, render_markdown
from utils.reporting.comparison_page import render_comparison_page
from utils.reporting.comparison_report import write_comparison
from utils.reporting.comparison_text import render_text
from utils.schema.comparison import Comparison, load_comparison

HOSTILE = "<script>alert(1)</script> | `x` \x1b[31mred \u202eright\r\n# @all" + "a" * 300


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Three processes a side on a GPU: faster, less accurate, one batch size out of memory."""
    folder = tmp_path_factory.mktemp("full")

    def change(payload: Payload) -> None:
        payload["model_info"]["dtype"] = "bfloat16"

    before = write_processes(folder, "before", [0.99, 1.0, 1.02], scenario=Scenario(gpu=True))
    after = write_processes(
        folder,
        "after",
        [0.7, 0.71, 0.69],
        scenario=Scenario(gpu=True, out_of_memory=(64,)),
        change=change,
    )
    labels = np.arange(600) % 3
    predicted = labels.copy()
    predicted[:40] = (labels[:40] + 1) % 3
    for results in before:
        write_predictions(results, labels, labels)
    for results in after:
        write_predictions(results, predicted, labels)
    gates = ("throughput@8<-5%", "accuracy<-0.5pp", "energy>+10%")
    return compare(before, after, fail_if=gates, prices=GivenPrices(both=2.0))


@pytest.fixture
def hostile(tmp_path: Path) -> Comparison:
    """Names that a terminal, Markdown or a browser would obey."""

    def change(payload: Payload) -> None:
        payload["model_info"]["name"] = HOSTILE
        payload["dataset_info"]["label_names"] = [HOSTILE, "b", "c"]
        payload["environment"]["libraries"][HOSTILE] = HOSTILE

    labels = np.arange(30) % 3
    before = write_process(tmp_path, "before", change=change)
    after = write_process(tmp_path, "after", change=change)
    write_predictions(before, labels, labels)
    write_predictions(after, (labels + 1) % 3, labels)
    return compare(before, after)


def test_the_text_says_what_differs_first_and_then_the_conclusion(full: Comparison) -> None:
    text = render_text(full)
    titles = re.findall(r"(?:^|\n\n)(.+)\n-+\n", text)
    assert titles[:3] == ["What is compared", "What differs", "Conclusion"]
    assert re.search(r"dtype +float32 +bfloat16", text)
    assert "faster at batch sizes 1, 4, 8, 16, 32 and data set" in text
    assert "out of memory" in text
    assert re.search(r"accuracy -7 pp .*worse", text)
    assert re.search(r"throughput@8<-5% +passed", text)
    assert re.search(r"accuracy<-0.5pp +violated +complete data set +-7 pp", text)
    assert re.search(r"throughput@8<-5% +passed +batch size 8 +\+\d+ %", text)


def test_a_long_value_keeps_the_end_that_distinguishes_it(tmp_path: Path) -> None:
    folder = "/somewhere/deep/in/the/tree/of/a/project/"

    def change(payload: Payload) -> None:
        payload["model_info"]["name"] = f"{folder}second"

    def rename(payload: Payload) -> None:
        payload["model_info"]["name"] = f"{folder}first"

    before = write_process(tmp_path, "before", change=rename)
    text = render_text(compare(before, write_process(tmp_path, "after", change=change)))
    assert re.search(r"…\S*/first +/\S+…\S*/second\n", text)


@pytest.mark.parametrize("name", ["full", "hostile"])
def test_no_line_of_the_text_has_more_than_80_columns(
    name: str, request: pytest.FixtureRequest
) -> None:
    text = render_text(request.getfixturevalue(name))
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_the_text_holds_no_control_characters(hostile: Comparison) -> None:
    text = render_text(hostile)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", text)


def test_inconclusive_values_say_what_they_need(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before")
    comparison = compare(before, write_process(tmp_path, "after", slowdown=1.1))
    text = " ".join(render_text(comparison).split())
    assert "Inconclusive:" in text
    assert re.search(r"these runs could show differences from \d", text)
    assert "more processes a side would decide" in text
    assert "One process a side" in text


def test_repeats_that_would_decide_the_speed_are_suggested(tmp_path: Path) -> None:
    before = write_processes(tmp_path, "before", [1.0, 1.06, 0.95])
    after = write_processes(tmp_path, "after", [1.1, 1.16, 1.05])
    comparison = compare(before, after)
    speeds = [item for item in comparison.metrics if item.metric == SPEED]
    more_processes = [item.decision.more_processes or 0 for item in speeds if item.decision]
    text = repeats_text(comparison, 3)
    assert text is not None
    assert text.startswith(f"About --repeats {3 + max(more_processes)} in the same command")


def test_a_speed_that_is_decided_needs_no_more_repeats(tmp_path: Path) -> None:
    before = write_processes(tmp_path, "before", [1.0, 1.001, 0.999])
    after = write_processes(tmp_path, "after", [1.5, 1.501, 1.499])
    assert repeats_text(compare(before, after), 3) is None


def test_so_many_repeats_that_nobody_takes_are_not_suggested(tmp_path: Path) -> None:
    before = write_processes(tmp_path, "before", [1.0, 2.0, 0.5])
    after = write_processes(tmp_path, "after", [1.01, 2.02, 0.505])
    text = repeats_text(compare(before, after), 3)
    assert text is not None
    assert text.startswith("More than 50 repeats would be needed")


def test_a_refusal_stands_before_the_conclusion(tmp_path: Path) -> None:
    def change(payload: Payload) -> None:
        payload["dataset_info"]["sha256"] = "2" * 64

    before = write_process(tmp_path, "before")
    after = write_process(tmp_path, "after", slowdown=2.0, change=change)
    text = render_text(compare(before, after))
    place = text.index("Not compared: all metrics of the batch-size sweep. Reason: other data")
    assert place < text.index("Conclusion")
    forced = render_text(compare(before, after, force=True))
    assert "Compared all the same (--force)" in forced
    assert "(forced)" in forced


def test_markdown_has_tables_of_one_width(full: Comparison) -> None:
    lines = render_markdown(full).splitlines()
    for number, line in enumerate(lines):
        if re.fullmatch(r"[|: -]+", line) and "---" in line:
            columns = line.count("|")
            assert len(re.findall(r"(?<!\\)\|", lines[number - 1])) == columns
            assert len(re.findall(r"(?<!\\)\|", lines[number + 1])) == columns
    assert "<summary>All metrics</summary>" in lines


def test_markdown_obeys_nothing_of_a_file(hostile: Comparison) -> None:
    text = render_markdown(hostile)
    assert "<script>" not in text
    assert not re.search(r"(?<!\\)@all", text)
    assert escape("a|b *c* <d>") == "a\\|b \\*c\\* \\<d\\>"


class Page(HTMLParser):
    """The elements of a page that could load or run something, and its texts."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.active: list[str] = []
        self.text = ""
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        if tag in ("script", "link", "iframe", "img", "object") or "src" in names:
            self.active.append(tag)
        self.active += [name for name in names if name.startswith("on")]
        if names.get("id"):
            self.ids.add(str(names["id"]))
        if names.get("href"):
            self.links.add(str(names["href"]))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_loads_and_runs_nothing(hostile: Comparison, full: Comparison) -> None:
    for comparison in (hostile, full):
        page = Page(render_comparison_page(comparison))
        assert page.active == []
        assert {link.removeprefix("#") for link in page.links} <= page.ids
    assert "<script>alert(1)</script>" in Page(render_comparison_page(hostile)).text


def test_the_page_allows_styles_alone(full: Comparison) -> None:
    content = render_comparison_page(full)
    assert "default-src 'none'; style-src 'unsafe-inline'" in content
    for words in ("faster", "violated", "out of memory", "Peak GPU memory", "USD"):
        assert words in content


def test_the_picture_has_a_row_for_each_place_inside_its_axis(full: Comparison) -> None:
    plot = forest_plot(full, SPEED)
    assert plot is not None
    assert [row.name for row in plot.rows] == [
        "batch 1",
        "batch 4",
        "batch 8",
        "batch 16",
        "batch 32",
        "data set",
    ]
    for row in plot.rows:
        assert row.low_x is not None and row.high_x is not None
        assert LEFT <= row.low_x <= row.x <= row.high_x <= RIGHT
        assert row.x > plot.one_x
    positions = sorted(tick.x for tick in plot.ticks)
    distances = [after - before for before, after in zip(positions, positions[1:], strict=False)]
    assert min(distances) >= 40


def test_nothing_to_compare_gives_no_picture(tmp_path: Path) -> None:
    scenario = Scenario(batch_sizes=(1,), out_of_memory=(1,), has_diagnosis=False)
    comparison = compare(
        write_process(tmp_path, "before", scenario=scenario),
        write_process(tmp_path, "after", scenario=scenario),
    )
    assert forest_plot(comparison, "peak_gpu_mem") is None
    render_comparison_page(comparison)
    render_markdown(comparison)
    assert "out of memory" in render_text(comparison)


def test_both_files_are_written(full: Comparison, tmp_path: Path) -> None:
    record, page = write_comparison(full, tmp_path / "new" / "folder")
    assert load_comparison(record) == full
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_processes_are_named_inside_the_folder_that_they_share(
    full: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Path(full.baseline.runs[0].path).parents[1]
    names = ", ".join(Path(run.path).parent.name for run in full.baseline.runs)
    monkeypatch.chdir(shared.parent)
    words = " ".join(render_text(full).split())
    assert f"3 processes: {names} in {shared.name} " in words


def test_one_process_is_named_from_the_working_directory_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write_process(tmp_path / "runs", "before")
    after = write_process(tmp_path / "runs", "after")
    monkeypatch.chdir(tmp_path)
    words = " ".join(render_text(compare([before], [after])).split())
    assert "1 process: runs/before/baseline_metrics.json " in words
