"""Real sweeps of the demo in processes that take turns, compared as step 05 compares them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.comparison.compare import ComparisonOptions, compare_sides
from utils.core.files import PROJECT_ROOT
from utils.schema.comparison import Comparison, MetricComparison

LAUNCHER = PROJECT_ROOT / "benchmarks" / "comparison_parts" / "planted_step.py"
STEP_TIMEOUT_S = 1800
SLOWED_MODULE = "model.norm"
"""It comes last before the classifier, so that it knows how long the forward pass took."""
PLANTED_SHARE = 0.20
DIFFERENCES = ("faster", "slower", "more", "less")
SPEED = "throughput_samples_per_sec"


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoSweeps:
    """Runs steps of the demo, each in a process of its own, with their results below ``folder``.

    The data set is made once, by ``prepare``. ``settings`` (``KEY=VALUE``) are those of all sweeps.
    """

    folder: Path
    settings: tuple[str, ...] = ()

    def prepare(self) -> None:
        """Make the data set that all sweeps use."""
        self._run_step("01_download_data.py", "data", planted_share=0.0)

    def sweep(self, name: str, planted_share: float = 0.0) -> Path:
        """Measure every batch size of the demo; returns the results folder."""
        self._run_step("02_baseline_inference.py", name, planted_share=planted_share)
        return self.folder / name

    def diagnose(self, name: str, planted_share: float = 0.0) -> None:
        """Profile a sweep that was measured, in its folder."""
        self._run_step("03_detailed_profiling.py", name, planted_share=planted_share)

    def _run_step(self, script: str, name: str, *, planted_share: float) -> None:
        settings = (
            f"dataset.local_path={self.folder / 'data' / 'val_df.csv'}",
            "evaluation.enabled=false",
            f"output.results_dir={self.folder / name}",
            *self.settings,
        )
        command = [
            sys.executable,
            str(LAUNCHER),
            SLOWED_MODULE,
            str(planted_share),
            str(PROJECT_ROOT / "scripts" / script),
            "--config",
            "configs/demo.yaml",
        ]
        for setting in settings:
            command += ["--set", setting]
        subprocess.run(
            command,
            check=True,
            timeout=STEP_TIMEOUT_S,
            cwd=PROJECT_ROOT,
            # Several threads wait for each other where other programs use the cores.
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Sides:
    """The results folders of both sides."""

    baseline: list[Path]
    candidate: list[Path]


def divide_in_turn(folders: Sequence[Path]) -> Sides:
    """The sides of sweeps that were measured one after the other: a b b a a b ..."""
    sides = Sides(baseline=[], candidate=[])
    for number, folder in enumerate(folders):
        side = sides.candidate if is_candidate(number) else sides.baseline
        side.append(folder)
    return sides


def is_candidate(number: int) -> bool:
    """Whether the process of this number, from 0, is one of the candidate: a b b a a b ..."""
    return number % 4 in (1, 2)


def pairs_of(folders: Sequence[Path], num_processes: int) -> Iterator[Sides]:
    """Pairs of sides with ``num_processes`` each, as many as there are two sweeps.

    Each pair begins two sweeps after the last one and goes on at the first sweep after the last, so
    that every sweep belongs to ``num_processes`` pairs.
    """
    for start in range(0, len(folders), 2):
        in_turn = [*folders[start:], *folders[:start]]
        yield divide_in_turn(in_turn[: 2 * num_processes])


def measure_planted(sweeps: DemoSweeps, num_processes: int) -> Sides:
    """Sweep both sides in turn, the candidate with the slow-down, and diagnose one of each."""
    folders = []
    for number in range(2 * num_processes):
        share = PLANTED_SHARE if is_candidate(number) else 0.0
        folders.append(sweeps.sweep(f"planted-{number}", share))
    sides = divide_in_turn(folders)
    sweeps.diagnose(sides.baseline[0].name)
    sweeps.diagnose(sides.candidate[0].name, PLANTED_SHARE)
    return sides


def compare(sides: Sides) -> Comparison:
    """Compare as step 05 does without any flag."""
    return compare_sides(sides.baseline, sides.candidate, ComparisonOptions())


def called_different(comparison: Comparison) -> list[MetricComparison]:
    """The metrics that differ by their verdict."""
    return [item for item in comparison.metrics if item.verdict in DIFFERENCES]


def speeds(comparison: Comparison) -> list[MetricComparison]:
    """The throughput of each batch size."""
    return [
        item for item in comparison.metrics if item.metric == SPEED and item.batch_size is not None
    ]


def first_module(comparison: Comparison) -> str | None:
    """The module with the largest difference of its own time; None without traces."""
    assert comparison.diagnosis is not None
    for breakdown in comparison.diagnosis.breakdowns:
        if breakdown.level == "modules":
            return breakdown.changes[0].name
    return None


def largest_spread(comparisons: Sequence[Comparison]) -> float | None:
    """The largest standard deviation between processes of any throughput."""
    spreads = []
    for comparison in comparisons:
        for item in speeds(comparison):
            if item.effect is not None and item.effect.process_std is not None:
                spreads.append(item.effect.process_std)
    return max(spreads, default=None)
