"""The page: self-contained, escaped, with the files' figures."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from tests.reporting import fixtures
from tests.reporting.conftest import Make
from utils.reporting import facts
from utils.reporting.html import page, write_report
from utils.reporting.plots import Picture, write_plots
from utils.reporting.results import read_results

VERSIONS = Path(__file__).parents[1] / "schema" / "versions"


class Tags(HTMLParser):
    """Tags that are opened and closed, and every address that is referred to."""

    VOID = ("meta", "img", "br", "link", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_from_anywhere(tmp_path: Path) -> None:
    results = read_results(fixtures.write_results(tmp_path, gpu=True, oom=(64,)).files)
    written = write_report(results)
    text = results.files.html_report.read_text()
    tags = Tags(text)
    assert tags.open == [] and not {"script", "link", "iframe"} & set(tags.seen)
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in tags.addresses)
    assert not re.search(r"https?://|@import|url\(", text)
    assert all(path.exists() for path in written)
    pictures = [
        address.partition(",")[2] for address in tags.addresses if address.startswith("data:")
    ]
    assert [base64.b64decode(p) for p in pictures] == [
        path.read_bytes() for path in written if path.suffix == ".png"
    ]
    assert tags.seen.count("table") == tags.seen.count("caption") >= 8
    assert "prefers-color-scheme: dark" in text


def test_figures_equal_the_files(make: Make) -> None:
    results = make(gpu=True, oom=(64,))
    text = page(results, ())
    for row in results.sweep.measured:
        assert (
            f"<td>{row['throughput_samples_per_sec_mean']:,.{1 if row['batch_size'] > 1 else 2}f}</td>"
            in text
        )
        assert (
            f"<td>{row['peak_gpu_mem']:,.1f}</td>" in text
            or f"<td>{row['peak_gpu_mem']:,.0f}</td>" in text
        )
    for item in results.evaluation["per_class"]:
        assert (
            f'<td class="word">{item["label"]}</td><td>{item["precision"]:.4f}</td><td>{item["recall"]:.4f}</td>'
            in text
        )
    assert '<td class="word">out of memory</td><td>–</td>' in text
    assert "0.9207" in text and "494,053,376" in text and "profiling.batch_sizes" in text
    assert (
        "measured 1.93 (95% interval 1.90 to 1.96" in text
        and "not tried: invented, it does not fit" in text
    )


@pytest.mark.parametrize("gpu", [True, False])
def test_kernels_memory_and_flame_graph(tmp_path: Path, gpu: bool) -> None:
    results = read_results(fixtures.write_results(tmp_path, gpu=gpu).files)
    write_report(results)
    text, svg = results.files.html_report.read_text(), results.files.flame_graph.read_text()
    assert (
        "<svg viewBox" in text
        and "<title>aten::mm: 3.000 ms, 75.0%</title>" in text
        and "<script" not in text
    )
    assert "flamegraph.svg" in results.files.summary_report.read_text()
    assert svg.startswith("<svg xmlns=") and "flamegraph.svg" in text and "memory.csv" in text
    assert (
        "activations 301.5 MB, workspace 23.25 MB" in text
        and "aten::invented in model.layers.3 119.5 MB" in text
    )
    assert ("libraries 9.25 MB" in text) == gpu
    if gpu:
        assert "Device idle, whole steps" in text and "idle share is of the forward alone" in text
        assert (
            "41.25 ms of 61.50 ms" in text
            and "20.25 ms: host wait 12 ms, between steps 8.25 ms; median gap 1.75 us" in text
        )
        assert (
            "880 launches, 14,309 per second: 9.50 ms of the host, where the kernels take 42.50 ms"
            in text
        )
        assert (
            "matrix product 32 ms, attention 10.50 ms" in text and "sm90_xmma_gemm_invented" in text
        )
    else:
        assert "not measured: no GPU was used" in text


def test_modules_without_times_are_left_out(tmp_path: Path) -> None:
    """As on a GPU whose kernels the profiler is not permitted to see."""
    config = fixtures.write_results(tmp_path)
    layers = pd.read_csv(config.files.layers)
    layers[["time_ms", "self_time_ms", "share_pct"]] = float("nan")
    layers.to_csv(config.files.layers, index=False)
    results = read_results(config.files)
    assert results.layers is not None and results.layers.empty
    write_report(results)
    assert "modules with the most time" not in results.files.html_report.read_text()
    assert "layers_time.png" not in [picture.path.name for picture in write_plots(results)]


@pytest.mark.parametrize("version", ["1", "2_first", "2_with_memory_model", "2"])
def test_a_diagnosis_of_an_earlier_version_is_reported(tmp_path: Path, version: str) -> None:
    config = fixtures.write_results(tmp_path)
    stored = (VERSIONS / f"bottlenecks_{version}.json").read_text()
    config.files.bottlenecks.write_text(stored)
    results = read_results(config.files)
    write_report(results)
    text = unescape(results.files.html_report.read_text())
    diagnosis = json.loads(stored)
    assert diagnosis["main_bottleneck"] in text
    for suggestion in diagnosis["wins"]:
        assert f"Try: {suggestion['try']}" in text


@pytest.mark.parametrize(
    ("gpu", "seen", "said"),
    [
        (True, True, "width is time on the device (CUDA)"),
        (True, False, "width is time of the host (CPU)"),
        (
            False,
            True,
            "width is time of the host (CPU)",
        ),  # on the CPU the host is the device, and has its times
    ],
)
def test_the_flame_graph_says_whose_time_it_shows(
    make: Make, gpu: bool, seen: bool, said: str
) -> None:
    results = make(gpu=gpu)
    assert results.operators is not None
    timed = results.operators.assign(self_device_ms=1.5 if seen else float("nan"))
    assert said in page(replace(results, operators=timed), (), "<svg></svg>")


def test_memory_held_outside_modules_or_operators() -> None:
    places = [("aten::x", "", 5), ("", "model.norm", 4), ("", "", 3)]
    largest = [
        {"operator": operator, "module": module, "size_mb": mb} for operator, module, mb in places
    ]
    sizes = dict.fromkeys(
        ("weights_mb", "activations_mb", "workspace_mb", "other_mb", "total_mb"), 1.0
    )
    said = dict(facts.peak_facts({"peak_memory": {**sizes, "largest": largest}}))["Peak"]
    assert said.endswith(
        "The largest: aten::x 5 MB; outside operators in model.norm 4 MB; outside operators 3 MB"
    )


@pytest.mark.parametrize("where", ["label", "model", "warning", "operator", "verdict"])
def test_hostile_strings_are_escaped(tmp_path: Path, where: str) -> None:
    config = fixtures.write_results(
        tmp_path, labels=(fixtures.HOSTILE,) if where == "label" else ("a",)
    )
    target = {
        "model": config.files.metrics,
        "warning": config.files.metrics,
        "verdict": config.files.bottlenecks,
    }.get(where)
    replaced = {
        "model": "test/invented-model",
        "warning": fixtures.MADE_UP,
        "verdict": "compute-bound: 62%",
    }.get(where, "")
    if target:
        target.write_text(target.read_text().replace(replaced, fixtures.HOSTILE))
    if where == "operator":
        fixtures.write_operators(config.files.operators, (fixtures.HOSTILE,))
    text = page(
        read_results(config.files),
        [Picture(path=config.files.metrics, title=fixtures.HOSTILE, text='"')],
    )
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 2


@pytest.mark.parametrize(
    "peculiar",
    [
        {"dummy": True, "step_03": False},
        {"sizes": (8,)},
        {"sizes": (1, 2), "oom": (1, 2)},
        {"sample_sizes": (100, 200)},
    ],
)
def test_gaps_render(make: Make, peculiar: dict[str, object]) -> None:
    text = page(make(**peculiar), ())
    assert Tags(text).open == []
    assert ">None<" not in text and ">nan<" not in text
    if peculiar.get("dummy"):
        assert "not measured: the weights are random (dummy)" in text
        assert "scripts/03_detailed_profiling.py" in text and "Quality by label" not in text
