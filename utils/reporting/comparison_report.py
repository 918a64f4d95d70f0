"""Writes a comparison: ``comparison.json`` and ``comparison.html``."""

from __future__ import annotations

from pathlib import Path

from utils.core.files import write_text
from utils.reporting.comparison_page import render_comparison_page
from utils.schema.comparison import Comparison, save_comparison

JSON_NAME = "comparison.json"
PAGE_NAME = "comparison.html"


def write_comparison(comparison: Comparison, folder: Path) -> tuple[Path, ...]:
    """Write the record and the page into a folder, which is made where it is missing.

    Returns:
        The files.

    Raises:
        UserError: a file cannot be written.
    """
    page = folder / PAGE_NAME
    record = folder / JSON_NAME
    write_text(page, render_comparison_page(comparison))
    save_comparison(record, comparison)
    return (record, page)
