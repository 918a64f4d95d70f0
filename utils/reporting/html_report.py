"""The report: Results in; pictures, text and one self-contained HTML file out."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from utils.core.files import write_text
from utils.core.result_files import ResultFiles
from utils.reporting import (
    diagnosis_facts,
    diagnosis_lines,
    diagnosis_tables,
    report_facts,
    run_facts,
    tables,
)
from utils.reporting.answers import six_answers
from utils.reporting.commands import STEP_03_MISSING
from utils.reporting.flame_graph import NAMESPACE, draw_flame_graph
from utils.reporting.pictures import Picture, write_pictures
from utils.reporting.results import Results
from utils.reporting.text_report import render_text_report

TEMPLATES = Path(__file__).resolve().parent / "templates"


def write_report(results: Results) -> tuple[Path, ...]:
    """Write the text, the page, the pictures and the flame graph; return their paths."""
    files = results.files
    pictures = write_pictures(results)
    written = [files.summary_report, files.html_report]
    written += [picture.path for picture in pictures]
    flame_graph = _read_flame_graph(files)
    if flame_graph is not None:
        write_text(files.flame_graph, flame_graph)
        written.append(files.flame_graph)
    write_text(files.summary_report, render_text_report(results))
    write_text(files.html_report, render_page(results, pictures, flame_graph))
    return tuple(written)


def _read_flame_graph(files: ResultFiles) -> str | None:
    if not files.stacks.exists():
        return None
    stacks = files.stacks.read_text(encoding="utf-8", errors="replace")
    return draw_flame_graph(stacks.splitlines())


def render_page(
    results: Results, pictures: Sequence[Picture], flame_graph: str | None = None
) -> str:
    """The content of ``report.html``, which needs nothing from the network.

    Every string from the files is escaped.

    Args:
        flame_graph: SVG, in which all names are escaped.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    embedded_flame_graph = None
    if flame_graph is not None:
        embedded_flame_graph = Markup(flame_graph.replace(NAMESPACE, "", 1))
    return environment.get_template("report.html.j2").render(
        results=results,
        diagnosis_facts=diagnosis_facts,
        diagnosis_lines=diagnosis_lines,
        diagnosis_tables=diagnosis_tables,
        report_facts=report_facts,
        run_facts=run_facts,
        tables=tables,
        answers=six_answers(results),
        step_03_missing=STEP_03_MISSING,
        title=run_facts.model_title(results.metrics.model_info),
        guessed_label_ids=report_facts.guessed_label_ids(results),
        flame_graph=embedded_flame_graph,
        pictures=[(picture, _encode(picture.path)) for picture in pictures],
    )


def _encode(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
