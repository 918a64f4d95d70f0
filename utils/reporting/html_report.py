"""The page: one self-contained HTML file, made from Results and the stored predictions."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from utils.reporting import report_facts, roads, run_facts
from utils.reporting.measure_again import measure_again_advice
from utils.reporting.page import (
    diagnosis_sections,
    machine_sections,
    quality_sections,
    speed_sections,
)
from utils.reporting.page.blocks import Section
from utils.reporting.page.cards import six_cards
from utils.reporting.page.headline import headline
from utils.reporting.page.prediction_stats import PredictionStats, read_prediction_stats
from utils.reporting.page.visible import LONGEST_CELL, make_visible
from utils.reporting.results import Results
from utils.reporting.warning_groups import group_warnings

TEMPLATES = Path(__file__).resolve().parent / "templates"
SCRIPT = "report.js"


def render_page(
    results: Results,
    flame_graph: str | None = None,
    predictions: PredictionStats | None = None,
) -> str:
    """The content of ``report.html``, which needs nothing from the network.

    Every string from the files is escaped, and invisible characters are made visible.

    Args:
        flame_graph: SVG, in which all names are escaped.
        predictions: read from the results' folder where it is None.
    """
    if predictions is None:
        predictions = read_prediction_stats(results)
    script = (TEMPLATES / SCRIPT).read_text(encoding="utf-8")
    template = _environment().get_template("report.html.j2")
    return template.render(
        model=results.metrics.model_info,
        run=results.metrics.run,
        title=run_facts.model_title(results.metrics.model_info),
        noise=roads.noise_text(results),
        measure_again=measure_again_advice(results),
        guessed_label_ids=report_facts.guessed_label_ids(results),
        headline=headline(results),
        cards=six_cards(results),
        warning_groups=group_warnings(results),
        sections=list(_sections(results, flame_graph, predictions)),
        # The project's own file, and nothing of the results.
        script=Markup(script),
        script_hash=_content_hash(script),
    )


def _sections(
    results: Results, flame_graph: str | None, predictions: PredictionStats
) -> Iterator[Section]:
    yield speed_sections.speed_section(results)
    yield speed_sections.batch_size_section(results)
    yield diagnosis_sections.bottleneck_section(results)
    yield diagnosis_sections.roofline_section(results)
    yield diagnosis_sections.suggestion_section(results)
    yield diagnosis_sections.time_section(results, flame_graph)
    yield diagnosis_sections.timeline_section(results)
    yield quality_sections.length_section(results, predictions)
    yield quality_sections.quality_section(results, predictions)
    yield speed_sections.cost_section(results)
    yield machine_sections.machine_section(results)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    return environment


def _visible(value: object) -> object:
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return make_visible(value)


def _cell(text: str) -> str:
    return make_visible(text, LONGEST_CELL)


def _content_hash(script: str) -> str:
    """How a content security policy names an inline script."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
