"""The system's chromium for tests, and axe-core, which judges accessibility."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from utils.core.files import PROJECT_ROOT

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
AXE_VERSION = "4.10.3"
AXE_FILE = PROJECT_ROOT / "build" / f"axe-core-{AXE_VERSION}" / "axe.min.js"


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Debian's chromium; skips where there is none."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is missing; on Debian: apt-get install -y chromium")
    with sync_playwright() as playwright:
        # In a container chromium may not make its own sandbox.
        arguments = ["--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@dataclass(kw_only=True)
class OpenPage:
    """A page with all that it has said and asked for."""

    page: Page
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def open_page(browser: Browser, file: Path, **settings: Any) -> Iterator[OpenPage]:
    """The file in a context of its own; ``settings`` are those of ``new_context``."""
    context = browser.new_context(**settings)
    opened = OpenPage(page=context.new_page())
    opened.page.on("console", lambda message: opened.messages.append(message.text))
    opened.page.on("pageerror", lambda error: opened.messages.append(str(error)))
    opened.page.on("dialog", lambda dialog: opened.messages.append(dialog.message))
    opened.page.on("request", lambda request: opened.requests.append(request.url))
    opened.page.goto(file.as_uri())
    try:
        yield opened
    finally:
        context.close()


def axe_source() -> str:
    """The script of axe-core, fetched from npm once; skips where npm is missing."""
    if not AXE_FILE.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is missing, which axe-core comes from")
        _fetch_axe(npm)
    return AXE_FILE.read_text(encoding="utf-8")


def _fetch_axe(npm: str) -> None:
    folder = AXE_FILE.parent
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "pack", f"axe-core@{AXE_VERSION}", "--silent"]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    with tarfile.open(folder / f"axe-core-{AXE_VERSION}.tgz") as archive:
        source = archive.extractfile("package/axe.min.js")
        assert source is not None
        temporary = folder / "axe.partial"
        temporary.write_bytes(source.read())
    temporary.replace(AXE_FILE)
