"""The report for reading in a terminal: Results in, text of at most 100 columns out."""

from __future__ import annotations

from utils.reporting.answers import PAGE_COLUMNS, six_answers
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
from utils.reporting.report_facts import (
    files_facts,
    full_dataset_facts,
    memory_facts,
    padding_facts,
)
from utils.reporting.results import Results
from utils.reporting.roads import noise_text
from utils.reporting.run_facts import model_title, run_facts
from utils.reporting.tables import batch_table, sample_table
from utils.reporting.target_facts import target_facts
from utils.reporting.text_layout import TextLayout, section
from utils.schema.baseline import SWEEP_ROAD

LAYOUT = TextLayout(width=PAGE_COLUMNS)


def render_text_report(results: Results) -> str:
    """The content of ``baseline_summary_report.txt``."""
    answers = [Fact(item.question.rstrip("?"), item.answer) for item in six_answers(results)]
    parts = [
        *_noise(results),
        _title(results),
        section("The six answers", LAYOUT.facts(answers)),
        section("Run and machine", LAYOUT.facts(run_facts(results))),
        section("Full Dataset Performance", LAYOUT.facts(full_dataset_facts(results))),
        section("Batch Size Analysis", _batch_size_lines(results)),
        section("Latency of a batch", _latency_lines(results)),
        section("Main bottleneck", _bottleneck_lines(results)),
        section("Padding", LAYOUT.facts(padding_facts(results))),
        section("Memory", LAYOUT.facts(memory_facts(results))),
        *_optional_facts("Targets", target_facts(results)),
        *_optional_facts("Cost", cost_facts(results)),
        section("Warnings", LAYOUT.bullets(results.warnings) or ["none"]),
        section(
            "Where the files lie (beside this report)",
            LAYOUT.facts(files_facts(results), name_columns=32),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _noise(results: Results) -> list[str]:
    """What has to be read first where nothing is stable."""
    text = noise_text(results)
    if not text:
        return []
    return ["\n".join(LAYOUT.wrap(text))]


def _title(results: Results) -> str:
    rule = "=" * PAGE_COLUMNS
    model = f"Model: {model_title(results.metrics.model_info)}"
    lines = [
        rule,
        "BASELINE SUMMARY REPORT: what was measured, and what holds it back",
        *LAYOUT.wrap(model, "", " " * len("Model: ")),
        rule,
    ]
    return "\n".join(lines)


def _optional_facts(title: str, facts: list[Fact]) -> list[str]:
    """A section that is there only with something in it."""
    if not facts:
        return []
    return [section(title, LAYOUT.facts(facts, name_columns=32))]


def _batch_size_lines(results: Results) -> list[str]:
    best = results.metrics.optimal_batch_size
    if best is None:
        optimal = "none: none finished"
    else:
        optimal = f"batch size {best.batch_size} ({best.criterion})"
    lines = LAYOUT.facts([Fact("Optimal", optimal)])
    for sweep in results.sweeps:
        lines += ["", *LAYOUT.table(batch_table(sweep))]
    samples = sample_table(results)
    if samples is not None:
        lines += ["", *LAYOUT.table(samples)]
    return lines


def _latency_lines(results: Results) -> list[str]:
    lines = []
    target = results.metrics.latency_target
    if target is not None:
        lines += [*LAYOUT.wrap(f"Target: {latency_target_text(target)}"), ""]
    lines += LAYOUT.table(percentile_table(results.sweep))
    lines += LAYOUT.facts(percentile_reasons(results.sweep))
    return lines


def _bottleneck_lines(results: Results) -> list[str]:
    if results.diagnosis is None:
        return LAYOUT.wrap(f"Not measured: {STEP_03_MISSING}")
    lines = LAYOUT.wrap(results.diagnosis.main_bottleneck)
    suggestions = suggestion_lines(results.diagnosis)
    if suggestions:
        size = results.diagnosis.detail_batch_size
        lines += LAYOUT.wrap(f"What to try; savings are of a batch of {size} ({SWEEP_ROAD}):")
    for place, suggestion in enumerate(suggestions, start=1):
        lines += LAYOUT.wrap(suggestion, f"{place}. ", "   ")
    if suggestions:
        lines.append("The savings overlap: they do not add up.")
    if results.diagnosis.applied:
        lines += ["", "Done already by these settings:"]
        lines += LAYOUT.bullets(results.diagnosis.applied)
    lines += ["", *LAYOUT.facts(attention_facts(results.diagnosis))]
    verified = verified_lines(results.diagnosis)
    if verified:
        lines += ["", "Tried for real, each alone, on the same texts as the baseline:"]
        lines += LAYOUT.bullets(verified)
    return lines
