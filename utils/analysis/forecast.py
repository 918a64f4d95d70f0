"""What forward passes of shapes that were not run would take, fitted to those that were timed: numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from utils.evaluation.batching import Batching, Indices

LEAST_SHAPES = 4
"""Different shapes below which three coefficients follow from next to nothing."""
ABOVE_FIXED = 1.15
"""A forward that takes this much longer than the shortest is no longer decided by what every forward takes."""

WORST_FIT = 0.25
"""A model that misses the times it was fitted to by more, on average, predicts nothing."""
FITS, SMALL_ERROR = 8, 0.01
"""Rounds of reweighting; a relative error below 1% is as good as none."""

Timed = tuple[int, int, float]
"""Rows, padded length, milliseconds of a forward."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeModel:
    """Milliseconds of a forward: a fixed part, a part for each padded token, a part for each pair of tokens in a row.

    Args:
        overlapped: the fixed part (the host's) and the others (the device's) run side by side and the longer one counts, as on
            CUDA; else they add up.
        error: mean distance between a timed forward and its value here, as a share of the time.
        longest_tokens: padded tokens of the largest forward that was timed.
    """

    fixed_ms: float
    ms_per_token: float
    ms_per_pair: float
    overlapped: bool
    error: float
    longest_tokens: int

    def plan_ms(self, plan: Sequence[Indices], lengths: Indices) -> float:
        """All batches of a plan, one after the other."""
        shapes = np.array([(len(rows), lengths[rows].max()) for rows in plan], dtype=float)
        return float(self._forward_ms(shapes).sum())

    def _forward_ms(self, shapes: NDArray[np.float64]) -> NDArray[np.float64]:
        tokens = shapes[:, 0] * shapes[:, 1]
        growing = self.ms_per_token * tokens + self.ms_per_pair * tokens * shapes[:, 1]
        return np.maximum(self.fixed_ms, growing) if self.overlapped else self.fixed_ms + growing


def fit(timed: Iterable[Timed], device: str) -> TimeModel | None:
    """The better form by relative error, on the CPU always the sum: the host is the device. No coefficient is negative.

    None below ``LEAST_SHAPES`` shapes.
    """
    best: dict[tuple[int, int], float] = {}
    for rows, length, ms in timed:  # of the same shape the fastest, as everywhere
        best[rows, length] = min(best.get((rows, length), ms), ms)
    if len(best) < LEAST_SHAPES:
        return None
    shapes, times = np.array(list(best), dtype=float), np.array(list(best.values()))
    return min((_fitted(shapes, times, overlapped) for overlapped in {False, device == "cuda"}), key=lambda model: model.error)


def _fitted(shapes: NDArray[np.float64], ms: NDArray[np.float64], overlapped: bool) -> TimeModel:
    tokens = shapes[:, 0] * shapes[:, 1]
    columns = np.column_stack((np.ones_like(tokens), tokens, tokens * shapes[:, 1]))
    used, first = (ms > ABOVE_FIXED * ms.min(), 1) if overlapped else (np.full(len(ms), True), 0)
    # Relative errors count, else the few large forwards alone would decide.
    found = _least_errors(columns[used, first:] / ms[used, None]) if used.any() else np.zeros(2)
    fixed, per_token, per_pair = (float(value) for value in ([ms.min(), *found] if overlapped else found))
    settings: dict[str, Any] = {"fixed_ms": fixed, "ms_per_token": per_token, "ms_per_pair": per_pair, "overlapped": overlapped,
                                "longest_tokens": int(tokens.max())}
    error = float(np.abs(TimeModel(**settings, error=0.0)._forward_ms(shapes) / ms - 1).mean())
    return TimeModel(**settings, error=error)


def _least_errors(relative: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients, none negative, that bring each row nearest to 1 by the sum of errors, in which a disturbed time counts once.

    Iteratively reweighted least squares.
    """
    weights = np.ones(len(relative))
    for _ in range(FITS):
        found = nnls(relative * weights[:, None], weights)[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(relative @ found - 1), SMALL_ERROR))
    return np.asarray(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What else could be done with the sample's texts than batches of ``batch_size`` in file order.

    Args:
        lengths: tokens of each text of the sample, in file order, at least 1 each.
        budgets: token budgets that the evaluation tries, or the one that is set.
    """

    model: TimeModel
    lengths: Indices
    batch_size: int
    budgets: tuple[int, ...]

    def left_by_budget(self) -> float:
        """Share of the forward time that remains with batches of like length, at the best token budget."""
        known = [budget for budget in self.budgets if budget <= self.model.longest_tokens] or self.budgets[:1]
        return min(self._left(Batching(kind="token_budget", limit=budget), self.lengths) for budget in known)

    def left_by_size(self, batch_size: int) -> float:
        """Share that remains with another batch size, in file order, padding and all."""
        return self._left(Batching(kind="dataset_order", limit=batch_size), self.lengths)

    def left_by_cut(self, max_length: int) -> float:
        """Share that remains where texts are cut at ``max_length`` tokens."""
        return self._left(self._now, np.minimum(self.lengths, max_length))

    def samples_per_s(self, batch_size: int) -> float:
        """Texts of the sample a second of forward time at a batch size, in file order."""
        plan = Batching(kind="dataset_order", limit=batch_size).plan(self.lengths)
        return 1e3 * len(self.lengths) / self.model.plan_ms(plan, self.lengths)

    def padding_at(self, batch_size: int) -> float:
        """Share of the tokens that would be padding at a batch size, in file order."""
        plan = Batching(kind="dataset_order", limit=batch_size).plan(self.lengths)
        return 1 - float(self.lengths.sum()) / sum(len(rows) * int(self.lengths[rows].max()) for rows in plan)

    @property
    def _now(self) -> Batching:
        return Batching(kind="dataset_order", limit=self.batch_size)

    def _left(self, batching: Batching, lengths: Indices) -> float:
        now = self.model.plan_ms(self._now.plan(self.lengths), self.lengths)
        return self.model.plan_ms(batching.plan(lengths), lengths) / now
