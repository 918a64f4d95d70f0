"""The page: self-contained, escaped, with the values of the files."""

from __future__ import annotations

import base64
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.builders import Scenario, write_results
from tests.reporting.conftest import MakeResults
from tests.reporting.diagnosis_builders import HOSTILE, write_operators
from tests.reporting.metrics_builders import MADE_UP
from utils.core.result_files import ResultFiles
from utils.reporting.diagnosis_facts import peak_facts
from utils.reporting.formatting import format_number
from utils.reporting.html_report import render_page
from utils.reporting.pictures import Picture
from utils.reporting.report import write_report
from utils.reporting.results import read_results
from utils.reporting.text_report import render_text_report
from utils.schema.profile import Allocation

VERSIONS = Path(__file__).parents[1] / "schema" / "versions"


class PageTags(HTMLParser):
    """The tags of a page, those that are still open, and every address that it refers to."""

    VOID = ("meta", "img", "br", "link", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.still_open: list[str] = []
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                self.addresses.append(value or "")
        if tag not in self.VOID:
            self.still_open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.still_open.pop() == tag


def write_page(folder: Path, **fields: Any) -> ResultFiles:
    """Write the complete report of a scenario."""
    files = write_results(folder, Scenario(**fields)).files
    write_report(read_results(files))
    return files


def test_the_page_needs_nothing_from_the_network(tmp_path: Path) -> None:
    text = write_page(tmp_path, gpu=True, out_of_memory=(64,)).html_report.read_text()
    tags = PageTags(text)
    assert tags.still_open == []
    assert not {"script", "link", "iframe"} & set(tags.names)
    for address in tags.addresses:
        assert address.startswith(("data:image/png;base64,", "#"))
    assert not re.search(r"https?://|@import|url\(", text)


def test_the_page_has_every_picture(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path, Scenario(gpu=True)).files)
    written = write_report(results)
    pictures = [path.read_bytes() for path in written if path.suffix == ".png"]
    addresses = PageTags(results.files.html_report.read_text()).addresses
    embedded = [address for address in addresses if address.startswith("data:")]
    assert [base64.b64decode(address.partition(",")[2]) for address in embedded] == pictures
    assert len(pictures) == 6


def test_the_page_is_accessible(tmp_path: Path) -> None:
    text = write_page(tmp_path).html_report.read_text()
    tags = PageTags(text)
    assert tags.names.count("table") == tags.names.count("caption") >= 8
    assert text.count('alt="') == tags.names.count("img")
    assert "prefers-color-scheme: dark" in text


def test_tables_have_the_values_of_the_files(make_results: MakeResults) -> None:
    results = make_results(gpu=True, out_of_memory=(64,))
    text = render_page(results, ())
    for metric in ("throughput_samples_per_sec_mean", "peak_gpu_mem"):
        for value in results.sweep.values(metric).values():
            assert f"<td>{format_number(value)}</td>" in text
    assert '<td class="text">out of memory</td><td>–</td>' in text
    assert '<td class="text">games</td><td>0.9000</td><td>0.8750</td>' in text
    assert "0.9207" in text
    assert "494,053,376" in text
    assert "profiling.batch_sizes" in text


def test_tried_suggestions_have_their_result(make_results: MakeResults) -> None:
    text = render_page(make_results(), ())
    assert "measured 1.93 (95% interval 1.90 to 1.96" in text
    assert "not tried: invented, it does not fit" in text


@pytest.mark.parametrize("gpu", [True, False])
def test_the_flame_graph_is_in_the_page_and_in_a_file(tmp_path: Path, gpu: bool) -> None:
    files = write_page(tmp_path, gpu=gpu)
    text = files.html_report.read_text()
    assert "<svg viewBox" in text
    assert "<title>aten::mm: 3.000 ms, 75.0%</title>" in text
    assert "<script" not in text
    assert "flamegraph.svg" in text
    assert "flamegraph.svg" in files.summary_report.read_text()
    assert files.flame_graph.read_text().startswith("<svg xmlns=")


@pytest.mark.parametrize("gpu", [True, False])
def test_the_peak_of_memory_is_explained(make_results: MakeResults, gpu: bool) -> None:
    text = render_page(make_results(gpu=gpu), ())
    assert "activations 301.5 MB, workspace 23.25 MB" in text
    assert "aten::invented in model.layers.3 119.5 MB" in text
    assert ("libraries 9.25 MB" in text) == gpu


def test_the_kernels_of_a_gpu_are_explained(make_results: MakeResults) -> None:
    text = render_page(make_results(gpu=True), ())
    assert "Device idle, whole steps" in text
    assert "idle share is of the forward alone" in text
    assert "41.25 ms of 61.50 ms" in text
    assert "20.25 ms: host wait 12 ms, between steps 8.25 ms; median gap 1.75 us" in text
    assert "880 launches, 14,309 per second: 9.50 ms of the host" in text
    assert "where the kernels take 42.50 ms" in text
    assert "matrix product 32 ms, attention 10.50 ms" in text
    assert "sm90_xmma_gemm_invented" in text


@pytest.mark.parametrize(
    ("gpu", "text"),
    [
        (True, "math at batch size 1, 7.25 ms per batch, which stores 352.5 MB of scores"),
        (False, "flash at batch size 1, 7.25 ms per batch"),
    ],
)
def test_the_attention_kernel_is_named(make_results: MakeResults, gpu: bool, text: str) -> None:
    results = make_results(gpu=gpu)
    assert text in render_page(results, ())
    assert text in " ".join(render_text_report(results).split())


def test_without_a_gpu_the_kernels_have_a_reason(make_results: MakeResults) -> None:
    assert "not measured: no GPU was used" in render_page(make_results(), ())


@pytest.mark.parametrize("file", sorted(VERSIONS.glob("baseline_metrics_*.json")))
def test_metrics_of_an_earlier_version_are_reported(tmp_path: Path, file: Path) -> None:
    files = write_results(tmp_path, Scenario(has_diagnosis=False)).files
    stored = file.read_text()
    files.metrics.write_text(stored)
    write_report(read_results(files))
    text = html.unescape(files.html_report.read_text())
    run = json.loads(stored)["run"]
    assert run["id"] in text
    assert run["command"] in text
    assert ">None<" not in text


@pytest.mark.parametrize("version", ["1", "2_first", "2_with_memory_model", "2"])
def test_a_diagnosis_of_an_earlier_version_is_reported(tmp_path: Path, version: str) -> None:
    files = write_results(tmp_path).files
    stored = (VERSIONS / f"bottlenecks_{version}.json").read_text()
    files.bottlenecks.write_text(stored)
    text = html.unescape(render_page(read_results(files), ()))
    diagnosis = json.loads(stored)
    assert diagnosis["main_bottleneck"] in text
    for suggestion in diagnosis["wins"]:
        assert f"Try: {suggestion['try']}" in text


@pytest.mark.parametrize(
    ("gpu", "self_device_ms", "place"),
    [
        (True, 1.5, "time on the device (CUDA)"),
        (True, None, "time of the host (CPU)"),
        # On the CPU the host is the device, and has its times.
        (False, 1.5, "time of the host (CPU)"),
    ],
)
def test_the_flame_graph_names_the_place_of_its_time(
    tmp_path: Path, gpu: bool, self_device_ms: float | None, place: str
) -> None:
    files = write_results(tmp_path, Scenario(gpu=gpu)).files
    write_operators(files.operators, self_device_ms=self_device_ms)
    text = render_page(read_results(files), (), "<svg></svg>")
    assert f"width is {place}" in text


def test_memory_outside_modules_or_operators_is_named(make_results: MakeResults) -> None:
    diagnosis = make_results().diagnosis
    assert diagnosis is not None
    assert diagnosis.peak_memory is not None
    largest = (
        Allocation(operator="aten::x", module="", size_mb=5.0, is_workspace=False),
        Allocation(operator="", module="model.norm", size_mb=4.0, is_workspace=False),
        Allocation(operator="", module="", size_mb=3.0, is_workspace=False),
    )
    peak_memory = diagnosis.peak_memory.model_copy(update={"largest": largest})
    (fact,) = peak_facts(diagnosis.model_copy(update={"peak_memory": peak_memory}))
    assert fact.text.endswith(
        "The largest: aten::x 5 MB; outside operators in model.norm 4 MB; outside operators 3 MB"
    )


def replace_in(file: Path, text: str, replacement: str) -> None:
    content = file.read_text()
    assert text in content
    file.write_text(content.replace(text, replacement))


@pytest.mark.parametrize("place", ["label", "model", "warning", "operator", "verdict", "picture"])
def test_hostile_strings_are_escaped(tmp_path: Path, place: str) -> None:
    labels = (HOSTILE,) if place == "label" else ("a",)
    files = write_results(tmp_path, Scenario(labels=labels)).files
    pictures = []
    if place == "model":
        replace_in(files.metrics, "test/invented-model", HOSTILE)
    if place == "warning":
        replace_in(files.metrics, MADE_UP, HOSTILE)
    if place == "verdict":
        replace_in(files.bottlenecks, "compute-bound: 62%", HOSTILE)
    if place == "operator":
        write_operators(files.operators, [HOSTILE])
    if place == "picture":
        pictures.append(Picture(path=files.metrics, title=HOSTILE, description='"'))
    text = render_page(read_results(files), pictures)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize(
    "fields",
    [
        {"dummy_weights": True, "has_diagnosis": False},
        {"batch_sizes": (8,)},
        {"batch_sizes": (1, 2), "out_of_memory": (1, 2)},
        {"sample_sizes": (100, 200)},
        {"has_evaluation": False},
    ],
)
def test_missing_values_are_rendered(make_results: MakeResults, fields: dict[str, Any]) -> None:
    text = render_page(make_results(**fields), ())
    assert PageTags(text).still_open == []
    assert ">None<" not in text
    assert ">nan<" not in text


def test_a_page_without_accuracy_and_diagnosis_has_the_reasons(make_results: MakeResults) -> None:
    text = render_page(make_results(dummy_weights=True, has_diagnosis=False), ())
    assert "not measured: the weights are random (dummy)" in text
    assert "scripts/03_detailed_profiling.py" in text
    assert "Quality by label" not in text
