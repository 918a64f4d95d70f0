"""The time of forward passes that were not run, fitted to those that were timed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from utils.evaluation.batching import Batching, Indices, computed_tokens
from utils.schema.diagnosis import TimedForward

MIN_SHAPES = 4
"""With fewer different shapes three coefficients follow from next to nothing."""
ABOVE_FIXED = 1.15
"""A forward that takes this many times the shortest is not decided by what every forward takes."""
MAX_FIT_ERROR = 0.25
"""A model that misses the times it was fitted to by more, on average, predicts nothing."""
IRLS_ITERATIONS = 8
NEGLIGIBLE_ERROR = 0.01
"""A relative error below 1% is as good as none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeModel:
    """Milliseconds of a forward: a fixed part, a part a token, a part a pair of tokens in a row.

    Tokens are padded ones.

    Args:
        overlapped: the fixed part (the host's) and the others (the device's) run side by side and
            the longer one counts, as on CUDA; else they add up.
        error: mean distance between a timed forward and its value here, as a share of the time.
        longest_tokens: computed tokens, padding included, of the largest forward that was timed.
    """

    fixed_ms: float
    ms_per_token: float
    ms_per_pair: float
    overlapped: bool
    error: float
    longest_tokens: int

    def forward_ms(self, shapes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of each shape, a row of ``shapes``: number of rows and padded length."""
        tokens = shapes[:, 0] * shapes[:, 1]
        pairs = tokens * shapes[:, 1]
        growing_ms = self.ms_per_token * tokens + self.ms_per_pair * pairs
        if self.overlapped:
            return np.maximum(self.fixed_ms, growing_ms)
        return self.fixed_ms + growing_ms


def fit_time_model(timed: Iterable[TimedForward], device_type: str) -> TimeModel | None:
    """The form, summed or overlapped, with the smaller relative error; no coefficient is negative.

    On the CPU the form is always the sum: the host is the device.

    Returns:
        None below ``MIN_SHAPES`` different shapes.
    """
    fastest: dict[tuple[int, int], float] = {}
    for forward in timed:
        shape = (forward.num_rows, forward.length)
        fastest[shape] = min(fastest.get(shape, math.inf), forward.forward_ms)
    if len(fastest) < MIN_SHAPES:
        return None
    shapes = np.array(list(fastest), dtype=float)
    times_ms = np.array(list(fastest.values()))
    model = _fit_summed(shapes, times_ms)
    if device_type == "cuda":
        overlapped = _fit_overlapped(shapes, times_ms)
        if overlapped.error < model.error:
            model = overlapped
    return model


def _fit_summed(shapes: NDArray[np.float64], times_ms: NDArray[np.float64]) -> TimeModel:
    columns = _columns(shapes)
    # Relative errors count, or the few large forwards alone would decide.
    fixed, per_token, per_pair = _fit_l1_nonnegative(columns / times_ms[:, None])
    return _with_error(shapes, times_ms, (fixed, per_token, per_pair), overlapped=False)


def _fit_overlapped(shapes: NDArray[np.float64], times_ms: NDArray[np.float64]) -> TimeModel:
    """The shortest forward is the fixed part; the others are fitted where the device decides."""
    fixed = float(times_ms.min())
    by_device = times_ms > ABOVE_FIXED * fixed
    per_token = per_pair = 0.0
    if by_device.any():
        columns = _columns(shapes)[by_device, 1:]
        per_token, per_pair = _fit_l1_nonnegative(columns / times_ms[by_device, None])
    return _with_error(shapes, times_ms, (fixed, per_token, per_pair), overlapped=True)


def _columns(shapes: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the coefficients are multiplied with: 1, tokens and pairs of tokens of each shape."""
    tokens = shapes[:, 0] * shapes[:, 1]
    return np.column_stack((np.ones_like(tokens), tokens, tokens * shapes[:, 1]))


def _with_error(
    shapes: NDArray[np.float64],
    times_ms: NDArray[np.float64],
    coefficients: tuple[float, float, float],
    *,
    overlapped: bool,
) -> TimeModel:
    fixed, per_token, per_pair = coefficients
    model = TimeModel(
        fixed_ms=fixed,
        ms_per_token=per_token,
        ms_per_pair=per_pair,
        overlapped=overlapped,
        error=0.0,
        longest_tokens=int((shapes[:, 0] * shapes[:, 1]).max()),
    )
    relative_errors = np.abs(model.forward_ms(shapes) / times_ms - 1)
    return replace(model, error=float(relative_errors.mean()))


def _fit_l1_nonnegative(relative: NDArray[np.float64]) -> list[float]:
    """Coefficients, none negative, with which the rows' sums are nearest to 1.

    Nearest by the sum of absolute errors, in which a disturbed time counts once: iteratively
    reweighted least squares.
    """
    weights = np.ones(len(relative))
    for _ in range(IRLS_ITERATIONS):
        coefficients = nnls(relative * weights[:, None], weights)[0]
        errors = np.abs(relative @ coefficients - 1)
        weights = 1 / np.sqrt(np.maximum(errors, NEGLIGIBLE_ERROR))
    return [float(value) for value in coefficients]


def in_file_order(batch_size: int) -> Batching:
    """Batches of so many texts as they come."""
    return Batching(kind="dataset_order", limit=batch_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What other batches of the sample's texts would take than ``batch_size`` texts in file order.

    Args:
        lengths: tokens of each text of the sample, in file order, at least 1 each.
        budgets: token budgets that the evaluation tries, or the one that is set.
        min_fill: the evaluation's share of a budget from which a batch ends where the length
            changes.
    """

    model: TimeModel
    lengths: Indices
    batch_size: int
    budgets: tuple[int, ...]
    min_fill: float

    def remaining_fraction(
        self, batching: Batching | None = None, max_length: int | None = None
    ) -> float:
        """Share of the forward time that remains, padding included.

        Args:
            batching: other batches than the present ones.
            max_length: texts are truncated to so many tokens.
        """
        present = in_file_order(self.batch_size)
        lengths = self.lengths
        if max_length is not None:
            lengths = np.minimum(lengths, max_length)
        changed_ms = self._sum_ms(batching or present, lengths)
        return changed_ms / self._sum_ms(present, self.lengths)

    def best_budget_fraction(self) -> float:
        """Share of the forward time that remains with texts grouped by length."""
        # A larger budget than any forward that was timed is not predicted.
        budgets = [budget for budget in self.budgets if budget <= self.model.longest_tokens]
        fractions = []
        for budget in budgets or self.budgets[:1]:
            batching = Batching(kind="token_budget", limit=budget)
            fractions.append(self.remaining_fraction(batching))
        return min(fractions)

    def samples_per_s(self, batch_size: int) -> float:
        """Texts of the sample a second of forward time at a batch size, in file order."""
        return 1e3 * len(self.lengths) / self._sum_ms(in_file_order(batch_size), self.lengths)

    def padding_at(self, batch_size: int) -> float:
        """Share of the tokens that would be padding at a batch size, in file order."""
        batches = in_file_order(batch_size).plan(self.lengths)
        computed = sum(computed_tokens(self.lengths[rows]) for rows in batches)
        return 1 - float(self.lengths.sum()) / computed

    def _sum_ms(self, batching: Batching, lengths: Indices) -> float:
        """Forward time of all texts."""
        batches = batching.plan(lengths, min_fill=self.min_fill)
        shapes = [(len(rows), lengths[rows].max()) for rows in batches]
        return float(self.model.forward_ms(np.array(shapes, dtype=float)).sum())


def make_forecast(
    timed: Sequence[TimedForward],
    lengths: Indices,
    batch_size: int,
    budgets: tuple[int, ...],
    min_fill: float,
    device_type: str,
) -> tuple[Forecast | None, str | None]:
    """The forecast, or None with the reason why other batches cannot be predicted.

    Args:
        timed: forward passes of the same model.
        lengths, batch_size, budgets, min_fill: as in :class:`Forecast`.
    """
    model = fit_time_model(timed, device_type)
    if model is None:
        return None, "batches of too few different shapes were timed"
    if model.error > MAX_FIT_ERROR:
        reason = (
            "the times of batches do not follow from their texts and tokens, as on a busy machine"
            f" (error {model.error:.0%}, the limit is {MAX_FIT_ERROR:.0%})"
        )
        return None, reason
    forecast = Forecast(
        model=model,
        lengths=lengths,
        batch_size=batch_size,
        budgets=budgets,
        min_fill=min_fill,
    )
    return forecast, None
