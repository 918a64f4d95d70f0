"""How long the rest of step 02 takes and what it costs, estimated from measured passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from utils.baseline.checkpoint import SweepCheckpoint
from utils.baseline.later_steps import LaterSteps, later_seconds
from utils.baseline.resume import Share
from utils.config_loader import Config
from utils.pipeline import console
from utils.pipeline.durations import cost_text, duration_text, num_paid_gpus
from utils.settings import EvaluationConfig
from utils.sweep.remaining_time import (
    pass_cost,
    seconds_per_row,
    sustained_seconds,
    sweep_seconds,
)
from utils.sweep.schedule import SweepSettings, SweepState


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationWork:
    """The rows that are left to predict.

    Args:
        is_grouped: rows of similar length share a batch.
        num_devices: how many compute at once, each as fast as the one that was measured.
    """

    num_rows: int
    is_grouped: bool
    num_devices: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """What an hour of one GPU costs, and how many are paid for."""

    per_hour_usd: float
    num_gpus: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeEstimate:
    """Seconds of what is left.

    Args:
        sweep_s: the runs back to back of a GPU included.
        evaluation_s: 0 where there are no rows to predict.
        num_passes: batch sizes of samples whose passes the estimate rests on.
        later_s: of the steps that follow; 0 without any.
    """

    sweep_s: float
    evaluation_s: float
    num_passes: int
    later_s: float = 0.0

    @property
    def total_s(self) -> float:
        """All together."""
        return self.sweep_s + self.evaluation_s + self.later_s


@dataclass(frozen=True, kw_only=True, slots=True)
class RestOfRun:
    """What comes after the runs of the sweep.

    Args:
        evaluation: None where nothing is to be evaluated.
        reads_gpu: runs back to back follow, for the GPU's readings.
        price: None where none is configured.
    """

    evaluation: EvaluationWork | None
    later: LaterSteps
    reads_gpu: bool
    price: Price | None


class TimeAnnouncer:
    """Prints once, after the first warm-up, how long the rest takes.

    Args:
        checkpoint: with the states of all samples, of which the first is warm then.
    """

    def __init__(
        self,
        checkpoint: SweepCheckpoint,
        settings: SweepSettings,
        rest: RestOfRun,
    ) -> None:
        self._checkpoint = checkpoint
        self._settings = settings
        self._rest = rest
        self._is_done = False

    def after_warm_up(self, _: SweepState) -> None:
        """Print the estimate, unless it has been printed or nothing could be measured."""
        if self._is_done:
            return
        estimate = estimate_time(self._checkpoint.samples, self._settings, self._rest)
        if estimate is None:
            return
        self._is_done = True
        text = time_text(estimate, self._settings, self._rest)
        if text is not None:
            console.print_line(text)


def evaluation_work(
    settings: EvaluationConfig, rows: Share | None, device: torch.device
) -> EvaluationWork | None:
    """The rows that are left to evaluate, and how; None where nothing is to be evaluated."""
    if rows is None:
        return None
    return EvaluationWork(
        num_rows=rows.left,
        is_grouped=settings.batching == "token_budget",
        # Workers on the CPU share its cores.
        num_devices=settings.num_workers if device.type == "cuda" else 1,
    )


def price_of(config: Config, device: torch.device) -> Price | None:
    """The configured price; None where there is none."""
    per_hour_usd = config.cost.gpu_price_per_hour_usd
    if per_hour_usd is None:
        return None
    num_gpus = num_paid_gpus(device.type, config.evaluation.num_workers)
    return Price(per_hour_usd=per_hour_usd, num_gpus=num_gpus)


def estimate_time(
    states: Sequence[SweepState], settings: SweepSettings, rest: RestOfRun
) -> TimeEstimate | None:
    """The time that is left by what was measured; None where nothing was measured."""
    sweep_s = sweep_seconds(states, settings)
    if sweep_s is None:
        return None
    if rest.reads_gpu:
        sweep_s += sustained_seconds(states, settings)
    evaluation = rest.evaluation
    evaluation_s = 0.0
    if evaluation is not None:
        row_s = seconds_per_row(states, is_grouped=evaluation.is_grouped)
        assert row_s is not None, "a pass was measured"
        evaluation_s = evaluation.num_rows * row_s / evaluation.num_devices
    num_passes = 0
    for state in states:
        for trial in state.trials:
            if pass_cost(trial) is not None:
                num_passes += 1
    return TimeEstimate(
        sweep_s=sweep_s,
        evaluation_s=evaluation_s,
        num_passes=num_passes,
        later_s=later_seconds(rest.later, states),
    )


def time_text(estimate: TimeEstimate, settings: SweepSettings, rest: RestOfRun) -> str | None:
    """The estimate in one line: what it rests on, what is not in it, and what the rest costs.

    None where nothing is left.
    """
    evaluation = rest.evaluation
    parts = []
    if estimate.sweep_s:
        least = "at least" if settings.target_relative_ci is not None else "about"
        parts.append(f"{least} {duration_text(estimate.sweep_s)} for the sweep")
    if evaluation is not None and evaluation.num_rows:
        duration = duration_text(estimate.evaluation_s)
        parts.append(f"about {duration} for the evaluation of {evaluation.num_rows:,} rows")
    if not parts:
        return None
    noun = "batch size" if estimate.num_passes == 1 else "batch sizes"
    text = f"Time left: {' and '.join(parts)}"
    text += f" (estimated from measured passes of {estimate.num_passes} {noun})"
    if estimate.later_s:
        text += f", then roughly {duration_text(estimate.later_s)} for {_later_text(rest.later)}"
    if rest.price is not None:
        text += f"; {cost_text(estimate.total_s, rest.price.per_hour_usd, rest.price.num_gpus)}"
    if settings.latency_target_ms is not None:
        text += "; the search for the latency target comes on top"
    if rest.later.tries_suggestions:
        text += "; trying suggestions (--verify) comes on top and is not estimated"
    return text


def _later_text(later: LaterSteps) -> str:
    """The later steps, and what their estimate rests on."""
    noun = "step" if len(later.numbers) == 1 else "steps"
    return f"{noun} {' and '.join(later.numbers)} (from these passes and this step's start)"
