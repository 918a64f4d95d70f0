"""The page of a comparison: one self-contained HTML file, readable without a script."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils.reporting import (
    comparison_facts,
    comparison_quality,
    comparison_tables,
    comparison_time_tables,
)
from utils.reporting.comparison_forest import forest_plot
from utils.schema.comparison import Comparison
from utils.schema.warning_codes import sentences_of

MARKED = ("faster", "slower", "less", "more", "passed", "violated")
"""Words that have a colour of their own in a table."""
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
        comparison=comparison,
        warnings=sentences_of(comparison.warnings),
        facts=comparison_facts,
        tables=comparison_tables,
        times=comparison_time_tables,
        quality=comparison_quality,
        forest_plot=forest_plot,
        verdicts=MARKED,
    )
