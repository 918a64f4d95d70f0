"""Pairs of predictions whose true difference is known, and how often the intervals contain it.

The candidate predicts as the baseline does, except for a share of the rows, where it predicts by
itself: two models that were trained alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.comparison.paired_accuracy import accuracy_change_interval, mcnemar_p_value
from utils.comparison.paired_f1 import PairedCells, f1_change_intervals

NUM_LABELS = 5
NUM_ROWS = 400
CHANGED_SHARE = 0.15
"""Share of the rows that the candidate predicts by itself."""
BASELINE_ACCURACY = 0.80
LABEL_SHARES = (0.4, 0.3, 0.15, 0.1, 0.05)
ROWS_FOR_TRUTH = 2_000_000

Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityOutcome:
    """Shares of the simulated pairs.

    Args:
        significant: McNemar's p value is at most 5%.
        accuracy_contained: the interval of the change of accuracy contains the true one.
        f1_contained: the same of macro F1.
    """

    significant: float
    accuracy_contained: float
    f1_contained: float


def simulate_quality(own_accuracy: float, *, num_pairs: int, seed: int) -> QualityOutcome:
    """Compare simulated predictions.

    Args:
        own_accuracy: of the rows that the candidate predicts by itself; both sides are equally good
            where it is ``BASELINE_ACCURACY``.
    """
    generator = np.random.default_rng(seed)
    true_accuracy_change = CHANGED_SHARE * (own_accuracy - BASELINE_ACCURACY)
    true_f1_change = _f1_change(_draw(ROWS_FOR_TRUTH, own_accuracy, generator))
    significant = 0
    accuracy_contained = 0
    f1_contained = 0
    for _ in range(num_pairs):
        labels, baseline, candidate = _draw(NUM_ROWS, own_accuracy, generator)
        only_baseline = int(np.sum((baseline == labels) & (candidate != labels)))
        only_candidate = int(np.sum((baseline != labels) & (candidate == labels)))
        significant += mcnemar_p_value(only_baseline, only_candidate) <= 0.05
        low, high = accuracy_change_interval(only_baseline, only_candidate, NUM_ROWS)
        accuracy_contained += low <= true_accuracy_change <= high
        cells = PairedCells(labels, baseline, candidate, NUM_LABELS)
        low, high = f1_change_intervals(cells, seed=seed).macro
        f1_contained += low <= true_f1_change <= high
    return QualityOutcome(
        significant=significant / num_pairs,
        accuracy_contained=accuracy_contained / num_pairs,
        f1_contained=f1_contained / num_pairs,
    )


def _draw(
    num_rows: int, own_accuracy: float, generator: np.random.Generator
) -> tuple[Ids, Ids, Ids]:
    """Labels and the predictions of both sides, each of shape [rows]."""
    labels = generator.choice(NUM_LABELS, size=num_rows, p=LABEL_SHARES)
    baseline = _predict(labels, BASELINE_ACCURACY, generator)
    own = _predict(labels, own_accuracy, generator)
    is_own = generator.random(num_rows) < CHANGED_SHARE
    return labels, baseline, np.where(is_own, own, baseline)


def _predict(labels: Ids, accuracy: float, generator: np.random.Generator) -> Ids:
    """Predictions that are right with a probability, and else any other label."""
    wrong = (labels + generator.integers(1, NUM_LABELS, len(labels))) % NUM_LABELS
    return np.where(generator.random(len(labels)) < accuracy, labels, wrong)


def _f1_change(drawn: tuple[Ids, Ids, Ids]) -> float:
    macro = PairedCells(*drawn, NUM_LABELS).observed_scores().macro[:, 0]
    return float(macro[1] - macro[0])
