"""Makes the two screenshots of the documents: ``python -m tests.reporting.screenshots REPORT``."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from tests.reporting.browser import open_browser, open_page
from utils.core.files import PROJECT_ROOT

IMAGES = PROJECT_ROOT / "docs" / "images"
NUM_COLOURS = 64
"""Enough for a page without photographs; the files stay small."""


def main(report: Path) -> None:
    """The first screen in light, and where the time goes in dark."""
    size = {"width": 1180, "height": 900}
    with open_browser() as browser:
        with open_page(browser, report, viewport=size) as opened:
            _save(opened.page, IMAGES / "report_first_screen.png")
        with open_page(browser, report, viewport=size, color_scheme="dark") as opened:
            opened.page.evaluate("document.querySelector('#bottleneck').scrollIntoView()")
            _save(opened.page, IMAGES / "report_bottleneck_dark.png")


def _save(page: Page, file: Path) -> None:
    page.screenshot(path=file)
    with Image.open(file) as image:
        image.convert("RGB").quantize(NUM_COLOURS).save(file, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
