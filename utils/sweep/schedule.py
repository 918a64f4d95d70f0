"""The batch-size sweep: which batch size is measured when and how often."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

from utils.core.errors import UserError
from utils.pipeline import console
from utils.schema.batch_size import BatchSizeRow, FailedStatus, Status
from utils.schema.sweep_checkpoint import Run, SampleSweepRecord, TrialRecord, WarmUpPass
from utils.schema.warning_codes import WarningCode
from utils.sweep.bench_stats import mean_interval
from utils.sweep.row_reasons import FLOP_COLUMNS
from utils.sweep.run_summary import RunContext, failed_row, summarise_runs

FAILURE_CODES: dict[FailedStatus, WarningCode] = {
    "oom": WarningCode.MEMORY,
    "not_tried": WarningCode.MEMORY,
    "wrong_outputs": WarningCode.OUTPUTS,
}
"""The warning of a row without metrics."""


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
        latency_target_ms: what the percentile of the time of a batch has to stay below; None
            searches for no such batch size.
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
    latency_target_ms: float | None = None
    latency_target_percentile: int = 95


@dataclass(kw_only=True, slots=True)
class Trial:
    """One batch size of a sweep: the runs so far, or why there are none."""

    batch_size: int
    num_samples: int
    status: Status = "ok"
    warm_up: WarmUpPass | None = None
    runs: list[Run] = field(default_factory=list)
    sustained_run: Run | None = None
    flops_per_sample: float | None = None
    flops_reason: str | None = None
    num_truncated: int | None = None
    process_spread: float | None = 0.0
    interference: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def from_record(cls, record: TrialRecord) -> Trial:
        """The trial of an interrupted sweep, to be continued."""
        values = dict(record)
        for name in ("runs", "interference", "warnings"):
            values[name] = list(values[name])
        return cls(**values)

    def to_record(self) -> TrialRecord:
        """What the checkpoint stores."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        for name in ("runs", "interference", "warnings"):
            values[name] = tuple(values[name])
        return TrialRecord(**values)

    def mark_failed(self, status: FailedStatus, reason: str) -> None:
        """End this trial; its row has the reason in place of metrics."""
        self.status = status
        self.warnings.insert(0, FAILURE_CODES[status].warn(reason))

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

    def missing_runs(self, settings: SweepSettings) -> int:
        """Runs that are left; a wanted precision may need more."""
        if self.finished(settings):
            return 0
        return max(0, settings.num_runs - len(self.runs))

    def record(self) -> BatchSizeRow:
        """The table row; without metrics if the trial failed."""
        if self.status != "ok":
            return failed_row(self.batch_size, self.num_samples, self.status, self.warnings)
        unavailable = {}
        if self.flops_reason is not None:
            unavailable = dict.fromkeys(FLOP_COLUMNS, self.flops_reason)
        context = RunContext(
            sustained_run=self.sustained_run,
            flops_per_sample=self.flops_per_sample,
            num_truncated=self.num_truncated,
            process_spread=self.process_spread,
            interference=tuple(self.interference),
            warnings=tuple(self.warnings),
            unavailable=unavailable,
        )
        return summarise_runs(self.batch_size, self.runs, context)


@dataclass(kw_only=True, slots=True)
class SweepState:
    """All of a sweep over one sample that has to survive an interruption."""

    sample_size: int
    trials: list[Trial]
    order: list[list[int]] = field(default_factory=list)
    """The batch sizes of each round, in the order of measurement."""
    latency_trials: list[Trial] = field(default_factory=list)
    """Batch sizes that were compared with the latency target, with the runs that only it needs."""

    @classmethod
    def from_record(cls, record: SampleSweepRecord) -> SweepState:
        """The state of an interrupted sweep, to be continued."""
        return cls(
            sample_size=record.sample_size,
            trials=[Trial.from_record(trial) for trial in record.trials],
            order=[list(sizes) for sizes in record.order],
            latency_trials=[Trial.from_record(trial) for trial in record.latency_trials],
        )

    def to_record(self) -> SampleSweepRecord:
        """What the checkpoint stores."""
        return SampleSweepRecord(
            sample_size=self.sample_size,
            trials=tuple(trial.to_record() for trial in self.trials),
            order=tuple(tuple(sizes) for sizes in self.order),
            latency_trials=tuple(trial.to_record() for trial in self.latency_trials),
        )

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
                WarningCode.SAMPLE.warn(
                    f"batch size {size} is larger than the sample of {sample_size}: texts repeat"
                )
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
    missing_runs = sum(trial.missing_runs(settings) for trial in state.trials)
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
