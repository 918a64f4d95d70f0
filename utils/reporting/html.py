"""The page: Results and pictures in, one self-contained HTML file out."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils.core.artifacts import write_text
from utils.reporting import tables
from utils.reporting.answers import six_answers
from utils.reporting.plots import Picture, write_plots
from utils.reporting.results import STEP_03_MISSING, Results
from utils.reporting.text import summary_report

TEMPLATES = Path(__file__).resolve().parent / "templates"


def write_report(results: Results) -> tuple[Path, ...]:
    """Draw the pictures, write the text and the page; return what was written."""
    pictures = write_plots(results)
    write_text(results.files.summary_report, summary_report(results))
    write_text(results.files.html_report, page(results, pictures))
    return (results.files.summary_report, results.files.html_report, *(picture.path for picture in pictures))


def page(results: Results, pictures: Sequence[Picture]) -> str:
    """The whole of ``report.html``. Every string from the files is escaped; nothing is loaded from anywhere."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2").render(
        run=results.metrics["run"],
        model=results.metrics["model_info"],
        answers=six_answers(results),
        main_bottleneck=results.diagnosis["main_bottleneck"] if results.diagnosis else f"Not measured: {STEP_03_MISSING}.",
        wins=tables.wins(results),
        verdicts=tables.verdict_table(results),
        batches=[tables.batch_table(sweep, full=True) for sweep in results.sweeps],
        pictures=[(picture, _data_uri(picture.path)) for picture in pictures],
        full=tables.full_facts(results),
        memory=tables.memory_facts(results),
        padding=tables.padding_facts(results),
        per_class=tables.per_class_table(results),
        diagnosis_tables=_diagnosis_tables(results),
        step_03_missing=STEP_03_MISSING,
        environment=tables.run_facts(results),
        settings=tables.setting_facts(results),
        warnings=results.warnings,
        files=tables.files_facts(results),
    )


def _diagnosis_tables(results: Results) -> list[tables.Table]:
    made = []
    if results.layers is not None:
        made.append(tables.layers_table(results.layers))
    if results.operators is not None:
        made.append(tables.operators_table(results.operators))
    return made


def _data_uri(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")
