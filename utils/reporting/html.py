"""The page: Results and pictures in, one self-contained HTML file out."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from utils.core.artifacts import write_text
from utils.reporting import device, tables
from utils.reporting.answers import six_answers
from utils.reporting.flame import NAMESPACE, flame_graph
from utils.reporting.plots import Picture, write_plots
from utils.reporting.results import STEP_03_MISSING, Results
from utils.reporting.text import summary_report

TEMPLATES = Path(__file__).resolve().parent / "templates"


def write_report(results: Results) -> tuple[Path, ...]:
    """Draw the pictures, write the text and the page; return what was written."""
    pictures = write_plots(results)
    write_text(results.files.summary_report, summary_report(results))
    flame = draw_flame_graph(results)
    write_text(results.files.html_report, page(results, pictures, flame))
    drawn = [picture.path for picture in pictures] + ([results.files.flame_graph] if flame else [])
    return (results.files.summary_report, results.files.html_report, *drawn)


def draw_flame_graph(results: Results) -> str | None:
    """Draw ``stacks.txt`` beside it; None where there is none."""
    files = results.files
    if not files.stacks.exists():
        return None
    flame = flame_graph(files.stacks.read_text(encoding="utf-8", errors="replace").splitlines())
    if flame:
        write_text(files.flame_graph, flame)
    return flame


def page(results: Results, pictures: Sequence[Picture], flame: str | None = None) -> str:
    """The whole of ``report.html``. Every string from the files is escaped; nothing is loaded from anywhere."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    encoded = [base64.b64encode(picture.path.read_bytes()).decode("ascii") for picture in pictures]
    return environment.get_template("report.html.j2").render(
        results=results, tables=tables, device=device, answers=six_answers(results), step_03_missing=STEP_03_MISSING,
        flame=flame and Markup(flame.replace(NAMESPACE, "", 1)),  # all names in it are escaped
        pictures=list(zip(pictures, encoded, strict=True)),
    )
