"""The page: self-contained, escaped, with the values of the files."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import time
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.builders import Scenario, write_results
from tests.reporting.conftest import MakeResults
from tests.reporting.diagnosis_builders import HOSTILE, write_operators
from tests.reporting.metrics_builders import MADE_UP
from utils.reporting.diagnosis_facts import peak_facts
from utils.reporting.formatting import format_number
from utils.reporting.html_report import render_page
from utils.reporting.page.blocks import Chart
from utils.reporting.page.diagnosis_sections import time_section
from utils.reporting.report import write_report
from utils.reporting.results import Results, read_results
from utils.schema.profile import Allocation

NO_LABELS = {
    "accuracy": None,
    "accuracy_ci95_low": None,
    "accuracy_ci95_high": None,
    "f1_macro": None,
    "f1_weighted": None,
    "num_labelled": 0,
    "num_correct": None,
    "per_class": None,
    "num_missing_labels": 5000,
}
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


@dataclass(frozen=True, kw_only=True)
class WrittenPage:
    """The complete report of a scenario."""

    results: Results
    written: tuple[Path, ...]
    text: str


def write_page(folder: Path, **fields: Any) -> WrittenPage:
    results = read_results(write_results(folder, Scenario(**fields)).files)
    written = write_report(results)
    text = results.files.html_report.read_text(encoding="utf-8")
    return WrittenPage(results=results, written=written, text=text)


@pytest.fixture(scope="module")
def cpu_page(tmp_path_factory: pytest.TempPathFactory) -> WrittenPage:
    return write_page(tmp_path_factory.mktemp("cpu"))


@pytest.fixture(scope="module")
def gpu_page(tmp_path_factory: pytest.TempPathFactory) -> WrittenPage:
    return write_page(tmp_path_factory.mktemp("gpu"), gpu=True, out_of_memory=(64,))


def test_the_page_needs_nothing_from_the_network(gpu_page: WrittenPage) -> None:
    tags = PageTags(gpu_page.text)
    assert tags.still_open == []
    assert not {"iframe", "img", "object", "form"} & set(tags.names)
    for address in tags.addresses:
        assert address == "data:," or address.startswith("#")
    assert not re.search(r"https?://|@import|url\((?!#)", gpu_page.text)


def test_no_other_script_may_run(cpu_page: WrittenPage) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", cpu_page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', cpu_page.text)
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in html.unescape(policy[1])
    assert "default-src 'none'" in html.unescape(policy[1])


def test_the_page_is_accessible(cpu_page: WrittenPage) -> None:
    tags = PageTags(cpu_page.text)
    assert tags.names.count("table") == tags.names.count("caption") >= 8
    assert tags.names.count("svg") == cpu_page.text.count('role="img"') >= 12
    assert "prefers-color-scheme: dark" in cpu_page.text


def test_every_section_says_how_it_was_measured(cpu_page: WrittenPage) -> None:
    num_sections = cpu_page.text.count('<section id="') - 1
    assert cpu_page.text.count("How this was measured") == num_sections >= 10


def test_the_pictures_of_the_plots_folder_are_written_too(gpu_page: WrittenPage) -> None:
    names = {path.name for path in gpu_page.written if path.suffix == ".png"}
    assert {"batch_size_comparison.png", "metrics_heatmap.png", "phases.png"} <= names


def test_tables_have_the_values_of_the_files(gpu_page: WrittenPage) -> None:
    text = gpu_page.text
    for metric in ("throughput_samples_per_sec_mean", "peak_gpu_mem"):
        for value in gpu_page.results.sweep.values(metric).values():
            assert f">{format_number(value)}</td>" in text
    assert 'data-label="Status">out of memory</td>' in text
    assert 'data-label="Label">games</td>' in text
    assert 'data-label="Precision">0.900</td>' in text
    assert "0.921" in text
    assert "494,053,376" in text
    assert "profiling.batch_sizes" in text


def test_tried_suggestions_have_their_result(cpu_page: WrittenPage) -> None:
    expected = "1.93 times as fast (95% interval 1.90 to 1.96); 99.9% of the labels equal"
    assert expected in cpu_page.text
    assert "not tried: invented, it does not fit" in cpu_page.text


@pytest.mark.parametrize("device", ["cpu_page", "gpu_page"])
def test_the_flame_graph_is_in_the_page_and_in_a_file(
    request: pytest.FixtureRequest, device: str
) -> None:
    page: WrittenPage = request.getfixturevalue(device)
    files = page.results.files
    assert "<title>aten::mm: 3.000 ms, 75.0%</title>" in page.text
    assert page.text.count("<script") == 1
    assert "flamegraph.svg" in page.text
    assert "flamegraph.svg" in files.summary_report.read_text()
    assert files.flame_graph.read_text().startswith("<svg xmlns=")


def test_the_peak_of_memory_is_explained(cpu_page: WrittenPage, gpu_page: WrittenPage) -> None:
    for page in (cpu_page, gpu_page):
        assert "activations 302 MB, workspace 23.2 MB" in page.text
        assert "aten::invented in model.layers.3 120 MB" in page.text
    assert "libraries 9.25 MB" in gpu_page.text
    assert "libraries 9.25 MB" not in cpu_page.text


def test_the_kernels_of_a_gpu_are_explained(gpu_page: WrittenPage) -> None:
    text = gpu_page.text
    assert "Device idle, whole steps" in text
    assert "share is of the forward pass alone" in text
    assert "41.2 ms of 61.5 ms" in text
    assert "20.2 ms: host wait 12 ms, between steps 8.25 ms; median gap 1.75 us" in text
    assert "880 launches, 14,309 per second: 9.50 ms of the host" in text
    assert "where the kernels take 42.5 ms" in text
    assert "matrix product 32 ms, attention 10.5 ms" in text
    assert "sm90_xmma_gemm_invented" in text


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("gpu_page", "math at batch size 1, 7.25 ms per batch, which stores 352 MB of scores"),
        ("cpu_page", "flash at batch size 1, 7.25 ms per batch"),
    ],
)
def test_the_attention_kernel_is_named(
    request: pytest.FixtureRequest, device: str, text: str
) -> None:
    page: WrittenPage = request.getfixturevalue(device)
    assert text in page.text
    report = page.results.files.summary_report.read_text(encoding="utf-8")
    assert text in " ".join(report.split())


def test_without_a_gpu_the_kernels_have_a_reason(cpu_page: WrittenPage) -> None:
    assert "not measured: no GPU was used" in cpu_page.text


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
    text = html.unescape(render_page(read_results(files)))
    diagnosis = json.loads(stored)
    for verdict in diagnosis["batch_sizes"]:
        assert verdict["sentence"] in text
    for suggestion in diagnosis["wins"]:
        assert suggestion["try"] in text


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
    section = time_section(read_results(files), "<svg></svg>")
    (flame_graph,) = [block for block in section.blocks if isinstance(block, Chart)]
    assert f"Width is {place}" in flame_graph.caption


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


def test_hostile_strings_are_escaped(tmp_path: Path) -> None:
    files = write_results(tmp_path, Scenario(labels=(f"label {HOSTILE}",))).files
    replace_in(files.metrics, "test/invented-model", f"model {HOSTILE}")
    replace_in(files.metrics, MADE_UP, f"warning {HOSTILE}")
    replace_in(files.bottlenecks, "At batch size 8 the invented", f"verdict {HOSTILE}")
    write_operators(files.operators, [f"operator {HOSTILE}"])
    text = render_page(read_results(files))
    assert text.count("<script") == 1
    for place in ("label", "model", "warning", "verdict", "operator"):
        assert f"{place} &lt;script&gt;" in text


@pytest.mark.parametrize(
    "fields",
    [
        {"batch_sizes": (8,), "labels": ("no", "yes")},
        {
            "batch_sizes": (1, 2),
            "out_of_memory": (1, 2),
            "sections": {"full_dataset_metrics": NO_LABELS},
        },
        {"sample_sizes": (100, 200)},
        {"has_evaluation": False},
    ],
)
def test_missing_values_are_rendered(make_results: MakeResults, fields: dict[str, Any]) -> None:
    check_rendered(render_page(make_results(**fields)))


def check_rendered(text: str) -> None:
    assert PageTags(text).still_open == []
    assert ">None<" not in text
    assert ">nan<" not in text


def test_a_large_page_is_small_and_written_quickly(make_results: MakeResults) -> None:
    results = make_results(
        gpu=True,
        batch_sizes=tuple(range(1, 21)),
        out_of_memory=(18, 19, 20),
        labels=tuple(f"label {number}" for number in range(500)),
    )
    start_s = time.process_time()
    text = render_page(results)
    assert time.process_time() - start_s < 10
    assert len(text.encode()) < 5_000_000
    check_rendered(text)


def test_a_page_without_accuracy_and_diagnosis_has_the_reasons(make_results: MakeResults) -> None:
    text = render_page(make_results(dummy_weights=True, has_diagnosis=False))
    check_rendered(text)
    assert "not measured: the weights are random (dummy)" in text
    assert "scripts/03_detailed_profiling.py" in text
    assert "Quality by label" not in text
