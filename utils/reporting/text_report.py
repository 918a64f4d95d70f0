"""The report for reading in a terminal: Results in, text of at most 80 columns out."""

from __future__ import annotations

from utils.reporting.answers import optimal_batch_size_text, six_answers
from utils.reporting.commands import STEP_03_MISSING
from utils.reporting.cost_facts import cost_facts
from utils.reporting.diagnosis_facts import attention_facts
from utils.reporting.diagnosis_lines import suggestion_lines, verified_lines
from utils.reporting.formatting import Fact
from utils.reporting.latency_facts import (
    latency_target_text,
    percentile_reasons,
    percentile_table,
)
from utils.reporting.measure_again import noise_lines
from utils.reporting.report_facts import (
    files_facts,
    full_dataset_facts,
    memory_facts,
    padding_facts,
)
from utils.reporting.results import Results
from utils.reporting.run_facts import model_title, run_facts
from utils.reporting.tables import batch_table, detail_table, sample_table
from utils.reporting.target_facts import target_facts
from utils.reporting.text_layout import PAGE, PAGE_COLUMNS, section
from utils.reporting.warning_groups import group_warnings

WIDE_NAMES = 23
"""Columns of the names where some are long."""
FILE_NAMES = 32
"""Columns of the names of files, and of metrics that have a target."""


def render_text_report(results: Results) -> str:
    """The content of ``baseline_summary_report.txt``."""
    answers = [Fact(item.question.rstrip("?"), item.answer) for item in six_answers(results)]
    parts = [
        *_noise(results),
        _title(results),
        section("The six answers", PAGE.facts(answers)),
        section("Run and machine", PAGE.facts(run_facts(results))),
        section("Full Dataset Performance", PAGE.facts(full_dataset_facts(results))),
        section("Batch Size Analysis", _batch_size_lines(results)),
        section("Latency of a batch", _latency_lines(results)),
        section("Main bottleneck", _bottleneck_lines(results)),
        section("Padding", PAGE.facts(padding_facts(results), WIDE_NAMES)),
        section("Memory", PAGE.facts(memory_facts(results))),
        *_optional_facts("Targets", target_facts(results)),
        *_optional_facts("Cost", cost_facts(results)),
        section("Warnings", _warning_lines(results)),
        section(
            "Where the files lie (beside this report)",
            PAGE.facts(files_facts(results), name_columns=FILE_NAMES),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _warning_lines(results: Results) -> list[str]:
    """The warnings by cause, the serious ones first, each cause with what to do about it."""
    lines = []
    for group in group_warnings(results):
        importance = "serious" if group.cause.serious else "minor"
        lines += PAGE.wrap(f"{group.cause.title} ({importance})")
        lines += PAGE.bullets(group.messages)
        lines += PAGE.wrap(f"What to do: {group.cause.fix}", "  ", "  ")
    if not lines:
        return ["none"]
    return [*lines, "docs/WARNINGS.md explains each kind of warning."]


def _noise(results: Results) -> list[str]:
    """What has to be read and done first where nothing is stable."""
    lines = noise_lines(results)
    if not lines:
        return []
    return ["\n".join(lines)]


def _title(results: Results) -> str:
    rule = "=" * PAGE_COLUMNS
    model = f"Model: {model_title(results.metrics.model_info)}"
    lines = [
        rule,
        "BASELINE SUMMARY REPORT: what was measured, and what limits it",
        *PAGE.wrap(model, "", " " * len("Model: ")),
        rule,
    ]
    return "\n".join(lines)


def _optional_facts(title: str, facts: list[Fact]) -> list[str]:
    """A section that is there only with something in it."""
    if not facts:
        return []
    return [section(title, PAGE.facts(facts, name_columns=FILE_NAMES))]


def _batch_size_lines(results: Results) -> list[str]:
    optimal = optimal_batch_size_text(results)
    lines = PAGE.facts([Fact("Optimal", optimal)])
    for sweep in results.sweeps:
        for table in (batch_table(sweep), detail_table(sweep)):
            if table is not None:
                lines += ["", *PAGE.table(table)]
    samples = sample_table(results)
    if samples is not None:
        lines += ["", *PAGE.table(samples)]
    return lines


def _latency_lines(results: Results) -> list[str]:
    lines = []
    target = results.metrics.latency_target
    if target is not None:
        lines += [*PAGE.wrap(f"Target: {latency_target_text(target)}"), ""]
    lines += PAGE.table(percentile_table(results.sweep))
    lines += PAGE.facts(percentile_reasons(results.sweep))
    return lines


def _bottleneck_lines(results: Results) -> list[str]:
    if results.diagnosis is None:
        return PAGE.wrap(f"Not measured: {STEP_03_MISSING}")
    lines = PAGE.wrap(results.diagnosis.main_bottleneck)
    suggestions = suggestion_lines(results.diagnosis)
    if suggestions:
        lines += ["", *suggestions]
    if results.diagnosis.applied:
        lines += ["", "Done already by these settings:"]
        lines += PAGE.bullets(results.diagnosis.applied)
    lines += ["", *PAGE.facts(attention_facts(results.diagnosis))]
    verified = verified_lines(results.diagnosis)
    if verified:
        lines += ["", "Tried for real, each alone, on the same texts as the baseline:"]
        lines += PAGE.bullets(verified)
    return lines
