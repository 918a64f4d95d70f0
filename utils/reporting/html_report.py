"""The page: one self-contained HTML file, made from Results and their pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

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
from utils.reporting.flame_graph import NAMESPACE
from utils.reporting.pictures import Picture
from utils.reporting.results import Results

TEMPLATES = Path(__file__).resolve().parent / "templates"


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
