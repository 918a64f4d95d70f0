"""The batch-size sweep: which batch size is measured when, how often, and what is kept of a sweep that was cut."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

from utils.core import console
from utils.core.errors import UserError
from utils.records import BatchSizeRecord, Run, summarise_runs
from utils.statistics import compare, mean_interval

SAME_SAMPLE = 0.05  # difference in tokens per second between samples worth a word: half of what perf_analyzer calls unstable


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepSettings:
    """How often and how long. ``num_runs`` is the least.

    With ``target_relative_ci`` runs go on until half the 95% interval of their mean is at most that share of it, or
    ``max_seconds_per_batch_size`` are spent. ``process_spread`` (None: what is known of this kind of device) widens the
    published intervals alone. ``min_window_seconds``: of runs back to back for the GPU's readings; 0, or no CUDA: none.
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
    window: Run | None = None
    flops_per_sample: float | None = None
    num_truncated: int | None = None
    process_spread: float | None = 0.0
    disturbed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def give_up(self, status: Literal["oom", "not_tried", "wrong_outputs"], reason: str) -> None:
        self.status = status
        self.warnings.insert(0, reason)

    def finished(self, settings: SweepSettings) -> bool:
        """Whether no further run is asked for."""
        if self.status != "ok" or len(self.runs) < settings.num_runs:
            return self.status != "ok"
        seconds = [run.seconds for run in self.runs]
        if settings.target_relative_ci is None or sum(seconds) >= settings.max_seconds_per_batch_size:
            return True
        low, high = mean_interval(seconds) or (0.0, float("inf"))
        return (high - low) / (high + low) <= settings.target_relative_ci

    def record(self) -> BatchSizeRecord:
        """The row; without figures where there are none that could be trusted."""
        if self.status != "ok":
            return BatchSizeRecord(batch_size=self.batch_size, status=self.status, num_runs=0, num_samples=self.num_samples,
                                   warnings=tuple(dict.fromkeys(self.warnings)))
        return summarise_runs(
            self.batch_size, self.runs, window=self.window, flops_per_sample=self.flops_per_sample, disturbed=self.disturbed,
            num_truncated=self.num_truncated, process_spread=self.process_spread, warnings=self.warnings,
        )


@dataclass(kw_only=True, slots=True)
class SweepState:
    """All of a sweep over one sample that has to outlive an interruption."""

    sample_size: int
    trials: list[Trial]
    order: list[list[int]] = field(default_factory=list)
    """The batch sizes of each round, in the order in which they were measured."""


def new_state(sample_size: int, batch_sizes: Sequence[int]) -> SweepState:
    """Nothing measured yet. Raises UserError: no texts, or batch sizes that cannot be."""
    if not sample_size:
        raise UserError("There are no texts to measure with.", where="dataset.sample_sizes", fix="give at least one text")
    if not batch_sizes or min(batch_sizes) < 1 or len(set(batch_sizes)) < len(batch_sizes):
        raise UserError(f"Batch sizes cannot be {list(batch_sizes)}.", where="batch_sizes", fix="each once, each at least 1")
    trials = [Trial(batch_size=size, num_samples=max(size, sample_size)) for size in batch_sizes]
    for trial in trials:
        if trial.batch_size > sample_size:
            trial.warnings.append(f"batch size {trial.batch_size} is larger than the sample of {sample_size}: texts repeat")
    return SweepState(sample_size=sample_size, trials=trials)


def run_rounds(
    state: SweepState, settings: SweepSettings, measure: Callable[[Trial], None], after_round: Callable[[SweepState], None]
) -> None:
    """Measure until every trial is finished; ``after_round`` is called after each round, also one that is cut.

    Batch sizes take turns, in a seeded order of their own in each round, so that a drifting machine does not look like an
    effect of batch size.
    """
    missing = sum(max(0, settings.num_runs - len(trial.runs)) for trial in state.trials if trial.status == "ok")
    with console.progress(total=missing, what="Measuring", unit="run") as bar:
        while left := [trial for trial in state.trials if not trial.finished(settings)]:
            ready = [trial for trial in left if len(trial.runs) == min(len(other.runs) for other in left)]
            order = random.Random(f"{settings.seed} {len(state.order)}").sample(ready, len(ready))
            state.order.append([])
            try:
                for trial in order:
                    measure(trial)
                    state.order[-1].append(trial.batch_size)
                    bar.update()
            finally:  # an interruption keeps the runs of its round, too
                after_round(state)


def optimal_batch_size(records: Sequence[BatchSizeRecord], state: SweepState) -> dict[str, Any] | None:
    """The batch size with the highest mean throughput, and those that runs cannot tell from it; None where all failed."""
    measured = [record for record in records if record.throughput_samples_per_sec.mean is not None]
    if not measured:
        return None
    best = max(measured, key=lambda record: record.throughput_samples_per_sec.mean or 0.0)
    times = {trial.batch_size: [run.seconds / run.num_samples for run in trial.runs] for trial in state.trials}
    others = [record.batch_size for record in measured if record is not best]
    return {
        "batch_size": best.batch_size, "throughput_samples_per_sec_mean": best.throughput_samples_per_sec.mean,
        "latency_per_sample_ms_mean": best.latency_per_sample_ms.mean, "criterion": "highest mean throughput within memory",
        "tied_with": [size for size in others if compare(times[best.batch_size], times[size]).answer in ("same", "ambiguous")],
    }


def sample_dependence(states: Sequence[SweepState]) -> list[dict[str, Any]]:
    """For each batch size and two samples: the ratio of their times per real token, and whether it is a difference.

    Time per token, for another sample has other lengths: what is left then depends on how its texts fall into batches.
    """
    rows = []
    for one, other in combinations(states, 2):
        for a, b in zip(one.trials, other.trials, strict=True):
            ours, others = ([run.seconds / run.real_tokens for run in trial.runs if run.real_tokens] for trial in (a, b))
            found = compare(ours, others)
            differs = found.answer in ("slower", "faster") and abs((found.ratio or 1.0) - 1) > SAME_SAMPLE
            rows.append({
                "batch_size": a.batch_size, "sample_sizes": [one.sample_size, other.sample_size],
                "time_per_token_ratio": found.ratio, "ci95_low": found.low, "ci95_high": found.high,
                "depends_on_sample": None if found.low is None else differs,
            })
    return rows


def result_lines(record: BatchSizeRecord) -> list[str]:
    """The block of one batch size for the terminal."""
    head, latency, rate = f"Batch Size {record.batch_size}:", record.latency_per_sample_ms, record.throughput_samples_per_sec
    if latency.mean is None or rate.mean is None:
        return [head, f"  {record.warnings[0]}"]
    spread = "" if latency.std is None else f" (std {latency.std:,.2f})"
    on_gpu = record.peak_gpu_mem is not None
    name, memory = ("GPU Memory (peak)", record.peak_gpu_mem) if on_gpu else ("CPU Memory", record.cpu_mem_used)
    return [head, f"  Latency/sample: {latency.mean:,.2f} ms{spread}", f"  Throughput: {rate.mean:,.2f} samples/sec",
            f"  {name}: not measured" if memory is None else f"  {name}: {memory:,.2f} MB"]
