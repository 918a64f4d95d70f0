"""The page of a comparison: one self-contained HTML file, readable without a script."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils.reporting import comparison_facts, comparison_tables
from utils.schema.comparison import Comparison

TEMPLATES = Path(__file__).resolve().parent / "templates"


def render_comparison_page(comparison: Comparison) -> str:
    """The content of ``comparison.html``, which needs nothing from the network.

    Every string from the files is escaped.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("comparison.html.j2").render(
        comparison=comparison, facts=comparison_facts, tables=comparison_tables
    )
