"""The page in a real browser: nothing breaks, nothing is cut off, and foreign text does nothing."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.reporting import diagnosis_builders as diagnosis
from tests.reporting.browser import axe_source, open_browser, open_page
from tests.reporting.builders import Scenario, write_results
from tests.reporting.metrics_builders import MADE_UP
from tests.reporting.prediction_builders import (
    PredictedRow,
    right,
    write_predictions,
    write_texts,
)
from utils.core.files import sha256_file
from utils.core.result_files import ResultFiles
from utils.reporting.html_report import render_page
from utils.reporting.report import read_flame_graph
from utils.reporting.results import read_results

# Python 3.10's csv module, which writes the data set of the test, cannot write it.
NUL = "\0" if sys.version_info >= (3, 11) else "\x01"
HOSTILE = (
    '<img src="https://evil.example/a.png" onerror="window.hacked=1">',
    "</script><script>window.hacked=1</script>",
    '"><svg onload="window.hacked=1">',
    '=HYPERLINK("https://evil.example","click")',
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\u202egnp.exe reversed \u2066isolated",
    f"controls {NUL} \x1b[31m \x7f",
    "{{ 7 * 7 }} {% raw %} ${window.hacked=1}",
    "شكرا جزيلا",
    "x" * 10_000,
)
WINDOWS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}},
}
PAPER_WIDTH_PX = 700
"""A4 with margins of 12 mm, at 96 pixels an inch."""
PREDICTIONS = (
    *(right(number % 3, 0.5 + number / 100, num_tokens=number) for number in range(48)),
    PredictedRow(label_id=0, predicted_id=1, probability=0.93, text="a wrong one"),
)
CUT_OFF = """() => {
  const cut = [];
  for (const element of document.querySelectorAll("main *")) {
    const inside = element.closest(".scroll, .picture, svg");
    const box = element.getBoundingClientRect();
    if (!inside && box.right > document.documentElement.clientWidth + 1) {
      cut.push(`${element.tagName}.${element.className}: ${element.textContent.slice(0, 60)}`);
    }
  }
  return cut;
}"""
HIDDEN_PARTS_OF_TABLES = """() => {
  const cut = [];
  for (const table of document.querySelectorAll("table")) {
    const right = table.getBoundingClientRect().right;
    if (right > document.documentElement.clientWidth + 1 && right > 0) {
      cut.push(table.caption.textContent);
    }
  }
  return cut;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything: a GPU, a batch size that did not fit, predictions, texts."""
    folder = tmp_path_factory.mktemp("report")
    return write_page(folder, PREDICTIONS, Scenario(gpu=True, out_of_memory=(64,)))


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page whose every foreign text is hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = []
    for number, text in enumerate(HOSTILE):
        other = (number + 1) % len(HOSTILE)
        rows.append(PredictedRow(label_id=number, predicted_id=other, probability=0.9, text=text))
    sections = {
        "model_info": {"name": HOSTILE[0], "adapter": HOSTILE[1]},
        "run": {"command": f"python {HOSTILE[2]}", "warnings": HOSTILE},
    }
    return write_page(
        folder, tuple(rows), Scenario(labels=HOSTILE, sections=sections), hostile=True
    )


def write_page(
    folder: Path, rows: tuple[PredictedRow, ...], scenario: Scenario, *, hostile: bool = False
) -> Path:
    texts = folder / "texts.csv"
    write_texts(texts, rows)
    sections: dict[str, dict[str, Any]] = {
        "full_dataset_metrics": {"num_samples": len(rows)},
        "dataset_info": {"path": str(texts)},
        "run": {"data_sha256": sha256_file(texts)},
    }
    for name, values in scenario.sections.items():
        sections[name] = {**sections.get(name, {}), **values}
    scenario = Scenario(**{**vars(scenario), "sections": sections})
    files = write_results(folder / "results", scenario).files
    write_predictions(files, rows)
    if hostile:
        _make_hostile(files)
    page = render_page(read_results(files), read_flame_graph(files))
    files.html_report.write_text(page, encoding="utf-8")
    return files.html_report


def _make_hostile(files: ResultFiles) -> None:
    diagnosis.write_operators(files.operators, HOSTILE)
    one_line = [text.replace(" ", "_") for text in HOSTILE]
    stacks = [f"forward;{text} 1000" for text in one_line]
    files.stacks.write_text("\n".join(stacks), encoding="utf-8")
    content = files.bottlenecks.read_text(encoding="utf-8")
    assert MADE_UP in content
    files.bottlenecks.write_text(content.replace(MADE_UP, HOSTILE[1]), encoding="utf-8")


def column_of(page: Page, caption: str, column: int) -> list[str]:
    table = page.locator("table", has=page.locator("caption", has_text=caption)).first
    return table.locator(f"tbody tr td:nth-child({column})").all_inner_texts()


@pytest.mark.parametrize("window", sorted(WINDOWS))
def test_nothing_is_cut_off_requested_or_reported(
    browser: Browser, report: Path, window: str
) -> None:
    with open_page(browser, report, **WINDOWS[window]) as opened:
        assert opened.page.evaluate(CUT_OFF) == []
        assert opened.page.evaluate(HIDDEN_PARTS_OF_TABLES) == []
        assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert opened.messages == []
        assert opened.requests == [report.as_uri()]


def test_a_click_on_a_header_sorts_the_table(browser: Browser, report: Path) -> None:
    caption = "Speed by batch size"
    with open_page(browser, report) as opened:
        page = opened.page
        header = page.get_by_role("button", name="texts/s (mean)").first
        header.click()
        ascending = column_of(page, caption, 1)
        assert ascending == ["1", "4", "8", "16", "32", "64"]
        header.click()
        # The batch size that did not fit has no value and stays at the end.
        assert column_of(page, caption, 1) == ["32", "16", "8", "4", "1", "64"]
        page.get_by_role("button", name="Batch", exact=True).first.click()
        assert column_of(page, caption, 1) == ascending


def copied_text(page: Page, what: str = "table") -> str:
    page.get_by_role("status").filter(has_text=f"{what} was copied").wait_for()
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def test_a_table_and_a_command_are_copied(browser: Browser, report: Path) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    with open_page(browser, report, permissions=permissions) as opened:
        page = opened.page
        page.get_by_role("button", name="Copy as CSV: Quality by label").click()
        rows = list(csv.reader(io.StringIO(copied_text(page))))
        assert rows[0] == ["Label", "Precision", "Recall", "F1", "Rows"]
        assert rows[1] == ["books", "0.910", "0.870", "0.890", "40"]
        assert len(rows) == 4
        page.get_by_role("button", name="Copy the command: python TEST").click()
        assert copied_text(page, "command") == f"python {MADE_UP}"


def test_a_copied_table_has_no_formulas(browser: Browser, hostile_report: Path) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    with open_page(browser, hostile_report, permissions=permissions) as opened:
        opened.page.get_by_role("button", name="Copy as CSV: Quality by label").click()
        rows = list(csv.reader(io.StringIO(copied_text(opened.page))))
        labels = [row[0] for row in rows[1:]]
        assert f"'{HOSTILE[3]}" in labels
        assert f"'{HOSTILE[4]}" in labels
        assert not [label for label in labels if label[0] in "=+-@"]


@pytest.mark.parametrize("window", sorted(WINDOWS))
def test_hostile_texts_do_nothing(browser: Browser, hostile_report: Path, window: str) -> None:
    with open_page(browser, hostile_report, **WINDOWS[window]) as opened:
        page = opened.page
        assert page.evaluate("window.hacked") is None
        assert page.evaluate(CUT_OFF) == []
        assert opened.messages == []
        assert opened.requests == [hostile_report.as_uri()]
        text = page.locator("main").inner_text()
        for hostile in (*HOSTILE[:5], HOSTILE[7], HOSTILE[8]):
            assert hostile in text
        assert "⟨U+202E⟩gnp.exe reversed ⟨U+2066⟩isolated" in text
        assert f"controls ⟨U+{ord(NUL):04X}⟩ ⟨U+001B⟩[31m ⟨U+007F⟩" in text
        assert "x" * 100 in text
        assert page.locator("script").count() == 1
        assert page.locator("img, iframe, object").count() == 0


def test_paper_shows_all_of_every_table(browser: Browser, report: Path) -> None:
    size = {"width": PAPER_WIDTH_PX, "height": 1000}
    with open_page(browser, report, viewport=size) as opened:
        page = opened.page
        page.emulate_media(media="print")
        assert page.evaluate(HIDDEN_PARTS_OF_TABLES) == []
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == "rgb(255, 255, 255)"
        folded = page.locator("details").filter(has_text="profiling.batch_sizes").first
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert folded.get_attribute("open") is not None
        assert page.pdf(format="A4").startswith(b"%PDF")


def test_without_a_script_everything_is_readable(browser: Browser, report: Path) -> None:
    with open_page(browser, report, java_script_enabled=False) as opened:
        page = opened.page
        assert page.get_by_role("heading", name="Maximum throughput?").is_visible()
        assert page.locator("table").count() >= 8
        assert page.locator("button").count() == 0
        summary = page.locator("summary", has_text="Every setting")
        summary.click()
        assert page.get_by_text("profiling.batch_sizes", exact=True).is_visible()


@pytest.mark.parametrize("window", sorted(WINDOWS))
def test_axe_finds_no_serious_violation(browser: Browser, report: Path, window: str) -> None:
    source = axe_source()
    # The page's policy would not let a foreign script run.
    with open_page(browser, report, bypass_csp=True, **WINDOWS[window]) as opened:
        page = opened.page
        page.evaluate("for (const item of document.querySelectorAll('details')) item.open = true")
        page.add_script_tag(content=source)
        result = page.evaluate("axe.run({resultTypes: ['violations']})")
        assert len(result["passes"]) > 10
        serious = []
        for violation in result["violations"]:
            if violation["impact"] in ("serious", "critical"):
                places = [node["html"][:100] for node in violation["nodes"][:3]]
                serious.append(f"{violation['id']}: {places}")
        assert serious == []
