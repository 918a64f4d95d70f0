"""What forward passes of shapes that were not run would take, fitted to those that were timed: numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from utils.evaluation.batching import Batching, Indices, padded_tokens

LEAST_SHAPES = 4  # different shapes below which three coefficients follow from next to nothing
ABOVE_FIXED = 1.15  # a forward that takes this much longer than the shortest is not decided by what every forward takes
WORST_FIT = 0.25  # a model that misses the times it was fitted to by more, on average, predicts nothing
FITS, SMALL_ERROR = 8, 0.01  # rounds of reweighting; a relative error below 1% is as good as none

Timed = tuple[int, int, float]  # rows, padded length, milliseconds of a forward


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

    def forward_ms(self, shapes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of each shape: rows and padded length."""
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
    model = TimeModel(fixed_ms=fixed, ms_per_token=per_token, ms_per_pair=per_pair, overlapped=overlapped, error=0.0,
                      longest_tokens=int(tokens.max()))
    return replace(model, error=float(np.abs(model.forward_ms(shapes) / ms - 1).mean()))


def _least_errors(relative: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients, none negative, that bring each row nearest to 1 by the sum of errors, in which a disturbed time counts once.

    Iteratively reweighted least squares.
    """
    weights = np.ones(len(relative))
    for _ in range(FITS):
        found = nnls(relative * weights[:, None], weights)[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(relative @ found - 1), SMALL_ERROR))
    return np.asarray(found)


def in_file_order(batch_size: int) -> Batching:
    """Batches of so many texts as they come."""
    return Batching(kind="dataset_order", limit=batch_size)


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

    def left(self, batching: Batching | None = None, longest: int | None = None) -> float:
        """Share of the forward time that remains with other batches, padding and all, or texts cut at ``longest`` tokens."""
        now = in_file_order(self.batch_size)
        lengths = self.lengths if longest is None else np.minimum(self.lengths, longest)
        return self._ms(batching or now, lengths) / self._ms(now, self.lengths)

    def left_by_budget(self) -> float:
        """Share of the forward time that remains with batches of like length, at the best token budget."""
        known = [budget for budget in self.budgets if budget <= self.model.longest_tokens] or self.budgets[:1]
        return min(self.left(Batching(kind="token_budget", limit=budget)) for budget in known)

    def samples_per_s(self, batch_size: int) -> float:
        """Texts of the sample a second of forward time at a batch size, in file order."""
        return 1e3 * len(self.lengths) / self._ms(in_file_order(batch_size), self.lengths)

    def padding_at(self, batch_size: int) -> float:
        """Share of the tokens that would be padding at a batch size, in file order."""
        plan = in_file_order(batch_size).plan(self.lengths)
        return 1 - float(self.lengths.sum()) / sum(padded_tokens(self.lengths[rows]) for rows in plan)

    def _ms(self, batching: Batching, lengths: Indices) -> float:
        shapes = np.array([(len(rows), lengths[rows].max()) for rows in batching.plan(lengths)], dtype=float)
        return float(self.model.forward_ms(shapes).sum())
