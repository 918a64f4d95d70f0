"""The batch-size sweep: which batch size is measured when and how often, and its results."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

from utils.core.errors import UserError
from utils.pipeline import console
from utils.sweep.bench_stats import compare, mean_interval
from utils.sweep.records import BatchSizeRecord, Run
from utils.sweep.run_summary import RunContext, summarise_runs

SAMPLE_EFFECT_THRESHOLD = 0.05
"""Difference in time per token between samples that is reported: half of what perf_analyzer calls
unstable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepSettings:
    """How often and how long is measured.

    Args:
        num_runs: the smallest number of runs per batch size.
        target_relative_ci: runs go on until half the 95% interval of their mean is at most this
            share of it, or until ``max_seconds_per_batch_size`` are spent.
        process_spread: standard deviation over mean between processes, which widens the published
            intervals alone; None takes what is known of the kind of device.
        min_window_seconds: length of runs back to back for the GPU's readings; 0 measures none.
    """

    num_runs: int = 10
    num_warmup_runs: int = 3
    max_length: int = 512
    seed: int = 0
    target_relative_ci: float | None = None
    max_seconds_per_batch_size: float = 60.0
    process_spread: float | None = None
    min_window_seconds: float = 2.0
    try_all_batch_sizes: bool = False


@dataclass(kw_only=True, slots=True)
class Trial:
    """One batch size of a sweep: the runs so far, or why there are none."""

    batch_size: int
    num_samples: int
    status: Literal["ok", "oom", "not_tried", "wrong_outputs"] = "ok"
    runs: list[Run] = field(default_factory=list)
    sustained_run: Run | None = None
    flops_per_sample: float | None = None
    num_truncated: int | None = None
    process_spread: float | None = 0.0
    interference: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def mark_failed(
        self, status: Literal["oom", "not_tried", "wrong_outputs"], reason: str
    ) -> None:
        """End this trial; its row has the reason in place of metrics."""
        self.status = status
        self.warnings.insert(0, reason)

    def finished(self, settings: SweepSettings) -> bool:
        """Whether no more runs are needed."""
        if self.status != "ok":
            return True
        if len(self.runs) < settings.num_runs:
            return False
        if settings.target_relative_ci is None:
            return True
        seconds = [run.seconds for run in self.runs]
        if sum(seconds) >= settings.max_seconds_per_batch_size:
            return True
        interval = mean_interval(seconds)
        if interval is None:
            return False
        low, high = interval
        relative_half_width = (high - low) / (high + low)
        return relative_half_width <= settings.target_relative_ci

    def record(self) -> BatchSizeRecord:
        """The table row; without metrics if the trial failed."""
        if self.status != "ok":
            return BatchSizeRecord(
                batch_size=self.batch_size,
                status=self.status,
                num_runs=0,
                num_samples=self.num_samples,
                warnings=tuple(dict.fromkeys(self.warnings)),
            )
        context = RunContext(
            sustained_run=self.sustained_run,
            flops_per_sample=self.flops_per_sample,
            num_truncated=self.num_truncated,
            process_spread=self.process_spread,
            interference=tuple(self.interference),
            warnings=tuple(self.warnings),
        )
        return summarise_runs(self.batch_size, self.runs, context)


@dataclass(kw_only=True, slots=True)
class SweepState:
    """All of a sweep over one sample that has to survive an interruption."""

    sample_size: int
    trials: list[Trial]
    order: list[list[int]] = field(default_factory=list)
    """The batch sizes of each round, in the order of measurement."""

    def unfinished(self, settings: SweepSettings) -> list[Trial]:
        """The trials that need more runs."""
        return [trial for trial in self.trials if not trial.finished(settings)]


def new_state(sample_size: int, batch_sizes: Sequence[int]) -> SweepState:
    """The state of a sweep that has measured nothing yet.

    Raises:
        UserError: no texts, or impossible batch sizes.
    """
    if not sample_size:
        raise UserError(
            "There are no texts to measure with.",
            where="dataset.sample_sizes",
            fix="give at least one text",
        )
    if not batch_sizes or min(batch_sizes) < 1 or len(set(batch_sizes)) < len(batch_sizes):
        raise UserError(
            f"Invalid batch sizes: {list(batch_sizes)}.",
            where="batch_sizes",
            fix="give each batch size once, each at least 1",
        )
    trials = []
    for size in batch_sizes:
        trial = Trial(batch_size=size, num_samples=max(size, sample_size))
        if size > sample_size:
            trial.warnings.append(
                f"batch size {size} is larger than the sample of {sample_size}: texts repeat"
            )
        trials.append(trial)
    return SweepState(sample_size=sample_size, trials=trials)


def run_rounds(
    state: SweepState,
    settings: SweepSettings,
    measure: Callable[[Trial], None],
    after_round: Callable[[SweepState], None],
) -> None:
    """Measure until every trial is finished.

    Batch sizes take turns, in a seeded order of their own in each round, so that a drifting machine
    does not look like an effect of batch size. ``after_round`` is called after each round, also
    after one that is interrupted.
    """
    missing_runs = 0
    for trial in state.unfinished(settings):
        missing_runs += max(0, settings.num_runs - len(trial.runs))
    with console.progress(total=missing_runs, what="Measuring", unit="run") as bar:
        unfinished = state.unfinished(settings)
        while unfinished:
            measured: list[int] = []
            order = _order_of_round(unfinished, settings.seed, len(state.order))
            state.order.append(measured)
            try:
                for trial in order:
                    measure(trial)
                    measured.append(trial.batch_size)
                    bar.update()
            finally:
                # An interruption keeps the runs of its round, too.
                after_round(state)
            unfinished = state.unfinished(settings)


def _order_of_round(unfinished: Sequence[Trial], seed: int, round_index: int) -> list[Trial]:
    """The trials with the fewest runs, in the seeded order of this round."""
    fewest_runs = min(len(trial.runs) for trial in unfinished)
    due = [trial for trial in unfinished if len(trial.runs) == fewest_runs]
    return random.Random(f"{seed} {round_index}").sample(due, len(due))


def optimal_batch_size(
    records: Sequence[BatchSizeRecord], state: SweepState
) -> dict[str, Any] | None:
    """The batch size with the highest mean throughput, and those that are statistically tied.

    None if every batch size failed.
    """
    measured = []
    for record in records:
        if record.throughput_samples_per_sec.mean is not None:
            measured.append(record)
    if not measured:
        return None
    best = max(measured, key=lambda record: record.throughput_samples_per_sec.mean or 0.0)
    times = {}
    for trial in state.trials:
        times[trial.batch_size] = [run.seconds / run.num_samples for run in trial.runs]
    tied_with = []
    for record in measured:
        comparison = compare(times[best.batch_size], times[record.batch_size])
        if record is not best and comparison.answer in ("same", "ambiguous"):
            tied_with.append(record.batch_size)
    return {
        "batch_size": best.batch_size,
        "throughput_samples_per_sec_mean": best.throughput_samples_per_sec.mean,
        "latency_per_sample_ms_mean": best.latency_per_sample_ms.mean,
        "criterion": "highest mean throughput within memory",
        "tied_with": tied_with,
    }


def sample_dependence(states: Sequence[SweepState]) -> list[dict[str, Any]]:
    """For each batch size and two samples: the ratio of their times per real token.

    Time per token, because another sample has other lengths. What then remains depends on how the
    texts fall into batches.
    """
    rows = []
    for one, other in combinations(states, 2):
        for trial, other_trial in zip(one.trials, other.trials, strict=True):
            row = {
                "batch_size": trial.batch_size,
                "sample_sizes": [one.sample_size, other.sample_size],
                **_compare_samples(trial, other_trial),
            }
            rows.append(row)
    return rows


def _compare_samples(trial: Trial, other: Trial) -> dict[str, Any]:
    comparison = compare(_seconds_per_token(trial), _seconds_per_token(other))
    depends = None
    if comparison.low is not None and comparison.ratio is not None:
        is_large = abs(comparison.ratio - 1) > SAMPLE_EFFECT_THRESHOLD
        depends = is_large and comparison.answer in ("slower", "faster")
    return {
        "time_per_token_ratio": comparison.ratio,
        "ci95_low": comparison.low,
        "ci95_high": comparison.high,
        "depends_on_sample": depends,
    }


def _seconds_per_token(trial: Trial) -> list[float]:
    return [run.seconds / run.real_tokens for run in trial.runs if run.real_tokens]


def result_lines(record: BatchSizeRecord) -> list[str]:
    """The block of one batch size for the terminal."""
    title = f"Batch Size {record.batch_size}:"
    latency = record.latency_per_sample_ms
    throughput = record.throughput_samples_per_sec
    if latency.mean is None or throughput.mean is None:
        return [title, f"  {record.warnings[0]}"]
    spread = ""
    if latency.std is not None:
        spread = f" (std {latency.std:,.2f})"
    return [
        title,
        f"  Latency/sample: {latency.mean:,.2f} ms{spread}",
        f"  Throughput: {throughput.mean:,.2f} samples/sec",
        f"  {_memory_line(record)}",
    ]


def _memory_line(record: BatchSizeRecord) -> str:
    if record.peak_gpu_mem is not None:
        return f"GPU Memory (peak): {record.peak_gpu_mem:,.2f} MB"
    if record.cpu_mem_used is not None:
        return f"CPU Memory: {record.cpu_mem_used:,.2f} MB"
    return "CPU Memory: not measured"
