"""The page of a comparison in a real browser: nothing is cut off, loaded, run or hard to read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser

from tests.comparison.builders import (
    Payload,
    compare,
    write_predictions,
    write_process,
    write_processes,
)
from tests.reporting.browser import axe_source, open_browser, open_page
from tests.reporting.builders import Scenario
from utils.comparison.costs import GivenPrices
from utils.reporting.comparison_report import write_comparison

IMAGE = '<img src="https://evil.example/a.png" onerror="window.hacked=1">'
HOSTILE = f"{IMAGE} \u202egnp {'x' * 10_000}"
WINDOWS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything: quality, gates, costs, a batch size that no longer fits."""
    folder = tmp_path_factory.mktemp("comparison")
    before = write_processes(folder, "before", [0.99, 1.0, 1.02], scenario=Scenario(gpu=True))
    smaller = Scenario(gpu=True, out_of_memory=(64,))
    after = write_processes(folder, "after", [0.7, 0.71, 0.69], scenario=smaller)
    labels = np.arange(600) % 3
    for results in before:
        write_predictions(results, labels, labels)
    for results in after:
        write_predictions(results, np.where(labels == 1, 2, labels), labels)
    gates = ("throughput<-5%", "accuracy<-0.5pp")
    comparison = compare(before, after, fail_if=gates, prices=GivenPrices(both=2.0))
    return write_comparison(comparison, folder)[1]


@pytest.fixture(scope="module")
def hostile_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")

    def change(payload: Payload) -> None:
        payload["model_info"]["name"] = HOSTILE
        payload["dataset_info"]["label_names"] = [HOSTILE, "b", "c"]
        payload["environment"]["libraries"][HOSTILE] = HOSTILE
        payload["run"]["seed"] = len(payload["run"]["id"])

    labels = np.arange(30) % 3
    before = write_process(folder, "before", change=change)
    after = write_process(folder, "after", change=change)
    write_predictions(before, labels, labels)
    write_predictions(after, (labels + 1) % 3, labels)
    return write_comparison(compare(before, after, force=True), folder)[1]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", ["page_file", "hostile_file"])
def test_the_page_fits_its_window_and_asks_for_nothing(
    browser: Browser, name: str, window: str, request: pytest.FixtureRequest
) -> None:
    file: Path = request.getfixturevalue(name)
    with open_page(browser, file, **WINDOWS[window]) as opened:
        width = opened.page.evaluate("document.documentElement.scrollWidth")
        assert width <= WINDOWS[window]["viewport"]["width"]
        assert opened.page.evaluate("window.hacked") is None
        assert opened.requests == [file.as_uri()]
        assert opened.messages == []


@pytest.mark.parametrize("window", WINDOWS)
def test_axe_finds_no_serious_violation(browser: Browser, page_file: Path, window: str) -> None:
    source = axe_source()
    with open_page(browser, page_file, bypass_csp=True, **WINDOWS[window]) as opened:
        opened.page.add_script_tag(content=source)
        violations = opened.page.evaluate("axe.run().then(result => result.violations)")
    serious = []
    for violation in violations:
        if violation["impact"] in ("serious", "critical"):
            serious.append((violation["id"], violation["nodes"][0]["html"][:200]))
    assert serious == []


def test_the_page_is_complete_without_scripts(browser: Browser, page_file: Path) -> None:
    with open_page(browser, page_file, java_script_enabled=False) as opened:
        text = opened.page.inner_text("body")
    for words in ("Differs in", "faster", "violated", "out of memory", "A million samples"):
        assert words in text
