"""The path of every result file of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


def _under_results(path: str) -> Any:
    """A property: the path under ``results_dir``."""
    return property(lambda files: files.results_dir / path)


@dataclass(frozen=True, kw_only=True)
class ResultFiles:
    """The path of every result of one run."""

    results_dir: Path
    metrics: Path
    detailed_metrics: Path

    summary_report = _under_results("baseline_summary_report.txt")
    html_report = _under_results("report.html")
    predictions_dir = _under_results("predictions")
    plots_dir = _under_results("plots")
    comparison_plot = _under_results("plots/batch_size_comparison.png")
    heatmap_plot = _under_results("plots/metrics_heatmap.png")
    traces_dir = _under_results("profiler_traces")
    stacks = _under_results("profiler_traces/stacks.txt")
    operators = _under_results("profiler_traces/operators.csv")
    layers = _under_results("profiler_traces/layers.csv")
    kernels = _under_results("profiler_traces/kernels.csv")
    memory = _under_results("profiler_traces/memory.csv")
    flame_graph = _under_results("profiler_traces/flamegraph.svg")
    bottlenecks = _under_results("bottlenecks.json")
    ceilings = _under_results("ceilings.json")
    gpu_timeline = _under_results("gpu_timeline.csv")
    # What step 06 measured: a folder for each change.
    changes_dir = _under_results("changes")
    logs_dir = _under_results("logs")
    # What steps remember between runs: finished steps, the sweep's checkpoint.
    state_dir = _under_results(".state")
    chunk_records_dir = _under_results(".state/evaluation")
    lock = _under_results(".state/lock")

    @property
    def trace(self) -> Path:
        """``trace.json``, or ``trace.json.gz`` if a large one was written compressed."""
        compressed = self.traces_dir / "trace.json.gz"
        if compressed.exists():
            return compressed
        return self.traces_dir / "trace.json"
