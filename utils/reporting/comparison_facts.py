"""A comparison in sentences: the conclusion first, then what each verdict needs to be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from utils.reporting.comparison_quality import quality_text
from utils.reporting.comparison_tables import format_ratio, place_name
from utils.reporting.formatting import Fact
from utils.schema.comparison import ComparedSide, Comparison, MetricComparison, Verdict

SPEED = "throughput_samples_per_sec"
"""The metric that stands for the speed."""
HEADLINE_METRICS = {
    SPEED: "Speed",
    "peak_gpu_mem": "Peak GPU memory",
    "energy_per_sample_j": "Energy",
    "padding_fraction": "Padding",
}
"""Metrics of the conclusion, with their titles."""
USUAL_METRICS_FILE = "baseline_metrics.json"
MAX_NAMED_DIFFERENCES = 6
MOST_REPEATS = 50
"""More repeats are not suggested."""
LARGEST_FACTOR = 100.0
"""Differences above it are not given as a number."""


def side_facts(comparison: Comparison) -> list[Fact]:
    """What was compared."""
    return [
        Fact("Baseline", _side_text(comparison.baseline)),
        Fact("Candidate", _side_text(comparison.candidate)),
    ]


def _side_text(side: ComparedSide) -> str:
    count = len(side.runs)
    processes = "1 process" if count == 1 else f"{count} processes"
    places = _files_text([run.path for run in side.runs])
    return f"{side.model}, {side.dtype}, {side.device}; {processes}: {places}"


def _files_text(paths: Sequence[str]) -> str:
    """Where the metrics files are; the folder that all of them are in is named once."""
    files = [Path(path) for path in paths]
    if len(files) == 1:
        return _short_path(files[0])
    shared = Path(os.path.commonpath([file.parent for file in files]))
    names = [_name_inside(file, shared) for file in files]
    return f"{', '.join(names)} in {_short_path(shared)}"


def _name_inside(file: Path, folder: Path) -> str:
    """The path inside the folder; a metrics file of the usual name is named by its own folder."""
    if file.name == USUAL_METRICS_FILE and file.parent != folder:
        return str(file.parent.relative_to(folder))
    return str(file.relative_to(folder))


def _short_path(path: Path) -> str:
    """The path from the working directory on, where it is inside."""
    working_directory = Path.cwd()
    if path.is_relative_to(working_directory):
        return str(path.relative_to(working_directory))
    return str(path)


def conclusion_facts(comparison: Comparison) -> list[Fact]:
    """What the comparison shows, one line for each of the metrics that decide."""
    facts = [Fact("Differs in", _differences_text(comparison))]
    for name, title in HEADLINE_METRICS.items():
        items = [item for item in comparison.metrics if item.metric == name]
        text = _verdicts_text(items)
        if text:
            facts.append(Fact(title, text))
    facts.append(Fact("Quality", quality_text(comparison)))
    if comparison.gates:
        facts.append(Fact("Gates", _gates_text(comparison)))
    return facts


def _differences_text(comparison: Comparison) -> str:
    """The names of what differs, the first few; the table has all with their values."""
    names = [item.name for item in comparison.differences]
    if not names:
        return "nothing but the results"
    text = ", ".join(names[:MAX_NAMED_DIFFERENCES])
    if len(names) > MAX_NAMED_DIFFERENCES:
        text += f" and {len(names) - MAX_NAMED_DIFFERENCES} more"
    return text


def _verdicts_text(items: Sequence[MetricComparison]) -> str:
    """Each verdict with the places that have it."""
    by_verdict: dict[Verdict, list[MetricComparison]] = {}
    for item in items:
        if item.verdict is not None:
            by_verdict.setdefault(item.verdict, []).append(item)
    parts = []
    for verdict, group in by_verdict.items():
        parts.append(f"{verdict} at {_places_text(group)}")
    refused = [item for item in items if item.verdict is None and item.baseline is not None]
    if refused:
        parts.append(f"not compared at {len(refused)}: {refused[0].reason}")
    return "; ".join(parts)


def _places_text(items: Sequence[MetricComparison]) -> str:
    """The places, with the range of their ratios."""
    batches = [str(item.batch_size) for item in items if item.batch_size is not None]
    places = []
    if batches:
        noun = "batch size" if len(batches) == 1 else "batch sizes"
        places.append(f"{noun} {', '.join(dict.fromkeys(batches))}")
    places += [place_name(item) for item in items if item.batch_size is None]
    ratios = []
    for item in items:
        if item.effect is not None and item.effect.ratio is not None:
            ratios.append(item.effect.ratio)
    return f"{' and '.join(places)} ({_range_text(ratios)})"


def _range_text(ratios: Sequence[float]) -> str:
    if not ratios:
        return "no ratio"
    low = format_ratio(min(ratios))
    high = format_ratio(max(ratios))
    if low == high:
        return f"ratio {low}"
    return f"ratios {low} to {high}"


def _gates_text(comparison: Comparison) -> str:
    counts = {"violated": 0, "undecided": 0, "passed": 0}
    for gate in comparison.gates:
        counts[gate.result] += 1
    return ", ".join(f"{count} {result}" for result, count in counts.items() if count)


def reading_notes(comparison: Comparison) -> list[str]:
    """How the verdicts came about, and what the inconclusive ones need."""
    equivalent = (
        "A ratio is candidate / baseline. Equivalent: the 90% interval lies within a margin of "
        f"{100 * comparison.margin:.3g}%."
    )
    notes = [equivalent]
    if comparison.num_tests:
        notes.append(
            f"Verdicts are corrected for {comparison.num_tests} comparisons (Holm), so that at "
            f"most {comparison.alpha:.0%} of such reports have a false difference. An interval is "
            "of its ratio alone."
        )
    return notes + _interval_notes(comparison)


def _interval_notes(comparison: Comparison) -> list[str]:
    sources = set()
    for item in comparison.metrics:
        if item.effect is not None:
            sources.add(item.effect.interval_from)
    notes = []
    if "process_spread" in sources:
        notes.append(
            "One process a side: how much processes differ was not measured here but taken from "
            "profiling.process_spread or what is known of this kind of device. Several processes "
            "a side give intervals of their own."
        )
    if "processes" in sources:
        notes.append("Intervals follow from the means of the processes of each side.")
    return notes


def inconclusive_notes(comparison: Comparison, metrics: Sequence[str] = (SPEED,)) -> list[str]:
    """For each inconclusive value of some metrics: what could have been shown, what it needs.

    Values of a metric that need the same share a note.
    """
    places: dict[tuple[str, str], list[str]] = {}
    for item in comparison.metrics:
        if item.metric in metrics and item.verdict == "inconclusive":
            places.setdefault((item.label, needs_text(item)), []).append(place_name(item))
    notes = []
    for (label, needs), named in places.items():
        notes.append(f"{label} at {', '.join(named)}: {needs}")
    return notes


def needs_text(item: MetricComparison) -> str:
    """What an inconclusive value could have shown, and how many more processes it takes."""
    decision = item.decision
    if decision is None or decision.verdict != "inconclusive":
        return ""
    parts = []
    if decision.smallest_detectable is not None:
        detectable = _detectable_text(decision.smallest_detectable)
        parts.append(f"these runs could show differences from {detectable} on")
    else:
        parts.append(decision.reason.rstrip("."))
    if decision.more_processes is not None:
        noun = "process" if decision.more_processes == 1 else "processes"
        parts.append(f"about {decision.more_processes} more {noun} a side would decide")
    return "; ".join(parts)


def repeats_text(comparison: Comparison, repeats: int) -> str | None:
    """How many repeats of a measured change would decide its speed; None where it is decided.

    Args:
        repeats: processes a side that were measured.
    """
    more_processes = 0
    for item in comparison.metrics:
        decision = item.decision
        if item.metric == SPEED and decision is not None and decision.more_processes is not None:
            more_processes = max(more_processes, decision.more_processes)
    if not more_processes:
        return None
    enough = repeats + more_processes
    if enough > MOST_REPEATS:
        return (
            f"More than {MOST_REPEATS} repeats would be needed to decide every inconclusive speed: "
            "measure on a quieter machine, or allow a larger difference with --margin."
        )
    return (
        f"About --repeats {enough} in the same command would decide every inconclusive speed; the "
        f"{repeats} that are measured are taken over."
    )


def _detectable_text(difference: float) -> str:
    """A difference in percent; a large one as a factor."""
    if difference < 1:
        return f"{difference:.1%}"
    factor = 1 + difference
    if factor > LARGEST_FACTOR:
        return f"a factor of more than {LARGEST_FACTOR:.0f}"
    return f"a factor of {factor:.1f}"
