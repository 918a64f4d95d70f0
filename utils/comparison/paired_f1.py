"""F1 of two sides on the same rows, with paired bootstrap intervals of the change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from utils.comparison.predictions import Ids

MAX_RESAMPLES = 1000
"""Of the bootstrap. Source: Efron and Tibshirani, chapter 13, which advise at least 1,000 for the
percentiles of an interval."""
MIN_RESAMPLES = 200
MAX_DRAWS = 10_000_000
"""Counts that are drawn in all, which takes about three seconds: with very many cells fewer
resamples are made."""
DRAWS_AT_ONCE = 2_000_000

Counts = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class F1Scores:
    """F1 of both sides for each of any number of samples of rows.

    Args:
        per_class: shape [2, labels, samples], baseline first; 0 where a label does not occur.
        macro: shape [2, samples]; the mean over the labels that occur as truth or prediction.
        weighted: shape [2, samples]; the mean weighted by the rows that have the label.
    """

    per_class: Counts
    macro: Counts
    weighted: Counts


class PairedCells:
    """The rows counted by (label, prediction of the baseline, prediction of the candidate).

    Rows of one cell are alike for every metric, so that drawing the counts of the cells from a
    multinomial distribution is the same as drawing rows with replacement.

    Args:
        label_ids: shape [rows], from 0; at least one row.
        baseline_ids: shape [rows]; the prediction of the baseline.
        candidate_ids: shape [rows]; the prediction of the candidate.
        num_labels: every id is below it.
    """

    def __init__(
        self, label_ids: Ids, baseline_ids: Ids, candidate_ids: Ids, num_labels: int
    ) -> None:
        keys = (label_ids * num_labels + baseline_ids) * num_labels + candidate_ids
        cells, counts = np.unique(keys, return_counts=True)
        self.num_labels = num_labels
        self.counts: NDArray[np.int64] = counts
        rest, self._candidate_ids = np.divmod(cells, num_labels)
        self._label_ids, self._baseline_ids = np.divmod(rest, num_labels)
        self._support = self._count_by(self._label_ids)

    def _count_by(self, ids: Ids, chosen: NDArray[np.bool_] | None = None) -> sparse.csr_array:
        """The matrix [labels, cells] that adds up the counts of the cells by ``ids``."""
        weights = np.ones(len(ids))
        if chosen is not None:
            weights = chosen.astype(np.float64)
        shape = (self.num_labels, len(ids))
        return sparse.csr_array((weights, (ids, np.arange(len(ids)))), shape=shape)

    def scores(self, counts: Counts) -> F1Scores:
        """F1 of samples of rows.

        Args:
            counts: shape [cells, samples]; rows of each cell, at least one in each sample.
        """
        support = self._support @ counts
        per_class = []
        macro = []
        weighted = []
        for predicted_ids in (self._baseline_ids, self._candidate_ids):
            predicted = self._count_by(predicted_ids) @ counts
            is_correct = predicted_ids == self._label_ids
            correct = self._count_by(self._label_ids, is_correct) @ counts
            total = support + predicted
            f1 = np.divide(2 * correct, total, out=np.zeros_like(total), where=total > 0)
            per_class.append(f1)
            macro.append(_at_most_1(f1.sum(axis=0) / np.count_nonzero(total, axis=0)))
            weighted.append(_at_most_1((support * f1).sum(axis=0) / support.sum(axis=0)))
        return F1Scores(
            per_class=np.array(per_class), macro=np.array(macro), weighted=np.array(weighted)
        )

    def observed_scores(self) -> F1Scores:
        """F1 of the rows themselves, as one sample."""
        return self.scores(self.counts[:, np.newaxis].astype(np.float64))


@dataclass(frozen=True, kw_only=True, slots=True)
class F1Intervals:
    """95% intervals of the change of F1, candidate less baseline."""

    macro: tuple[float, float]
    weighted: tuple[float, float]
    num_resamples: int


def f1_change_intervals(cells: PairedCells, *, seed: int = 0) -> F1Intervals:
    """Paired bootstrap over the rows: each resample has the same rows on both sides.

    The interval is that of the percentiles.

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993.
    """
    num_cells = len(cells.counts)
    num_rows = int(cells.counts.sum())
    num_resamples = min(MAX_RESAMPLES, max(MIN_RESAMPLES, MAX_DRAWS // num_cells))
    at_once = max(1, DRAWS_AT_ONCE // num_cells)
    generator = np.random.default_rng(seed)
    shares = cells.counts / num_rows
    macro_changes = []
    weighted_changes = []
    for start in range(0, num_resamples, at_once):
        size = min(at_once, num_resamples - start)
        drawn = generator.multinomial(num_rows, shares, size=size)
        # In the order of the cells, which the sums by label are ten times as fast with.
        scores = cells.scores(np.ascontiguousarray(drawn.T, dtype=np.float64))
        macro_changes.append(scores.macro[1] - scores.macro[0])
        weighted_changes.append(scores.weighted[1] - scores.weighted[0])
    return F1Intervals(
        macro=_percentile_interval(np.concatenate(macro_changes)),
        weighted=_percentile_interval(np.concatenate(weighted_changes)),
        num_resamples=num_resamples,
    )


def _at_most_1(values: Counts) -> Counts:
    """Without what rounding adds to a perfect score."""
    return np.minimum(values, 1.0)


def _percentile_interval(values: Counts) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
