"""Writes the report of step 04: the text, the page, the pictures and the flame graph."""

from __future__ import annotations

from pathlib import Path

from utils.core.files import write_text
from utils.core.result_files import ResultFiles
from utils.reporting.flame_graph import draw_flame_graph
from utils.reporting.html_report import render_page
from utils.reporting.pictures import write_pictures
from utils.reporting.results import Results
from utils.reporting.text_report import render_text_report


def write_report(results: Results) -> tuple[Path, ...]:
    """Write the text, the page, the pictures and the flame graph; return their paths."""
    files = results.files
    pictures = write_pictures(results)
    written = [files.summary_report, files.html_report]
    written += [picture.path for picture in pictures]
    flame_graph = read_flame_graph(files)
    if flame_graph is not None:
        write_text(files.flame_graph, flame_graph)
        written.append(files.flame_graph)
    write_text(files.summary_report, render_text_report(results))
    write_text(files.html_report, render_page(results, flame_graph))
    return tuple(written)


def read_flame_graph(files: ResultFiles) -> str | None:
    """The flame graph of the recorded call stacks as SVG; None where there are none."""
    if not files.stacks.exists():
        return None
    stacks = files.stacks.read_text(encoding="utf-8", errors="replace")
    return draw_flame_graph(stacks.splitlines())
