"""The report: Results in; pictures, text and one self-contained HTML file out."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from utils.core.files import write_text
from utils.reporting import facts, tables
from utils.reporting.answers import six_answers
from utils.reporting.flame import NAMESPACE, flame_graph
from utils.reporting.plots import Picture, write_plots
from utils.reporting.results import STEP_03_MISSING, Results
from utils.reporting.text import summary_report

TEMPLATES = Path(__file__).resolve().parent / "templates"


def write_report(results: Results) -> tuple[Path, ...]:
    """Draw the pictures and the flame graph of ``stacks.txt``, write the text and the page; return what was written."""
    files = results.files
    pictures = write_plots(results)
    drawn = [picture.path for picture in pictures]
    stacks = (
        files.stacks.read_text(encoding="utf-8", errors="replace") if files.stacks.exists() else ""
    )
    if flame := flame_graph(stacks.splitlines()):
        write_text(files.flame_graph, flame)
        drawn.append(files.flame_graph)
    write_text(files.summary_report, summary_report(results))
    write_text(files.html_report, page(results, pictures, flame))
    return (files.summary_report, files.html_report, *drawn)


def page(results: Results, pictures: Sequence[Picture], flame: str | None = None) -> str:
    """The whole of ``report.html``. Every string from the files is escaped; nothing is loaded from anywhere."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        results=results,
        tables=tables,
        facts=facts,
        answers=six_answers(results),
        step_03_missing=STEP_03_MISSING,
        title=facts.model_title(results.metrics["model_info"]),
        label_ids=facts.guessed_label_ids(results),
        flame=flame and Markup(flame.replace(NAMESPACE, "", 1)),  # all names in it are escaped
        pictures=[
            (picture, base64.b64encode(picture.path.read_bytes()).decode("ascii"))
            for picture in pictures
        ],
    )
