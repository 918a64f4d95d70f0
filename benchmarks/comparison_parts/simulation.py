"""Pairs of sides whose true ratio is known, and how often the comparison says what is true.

A process has a level of its own: part of it shared by all its batch sizes, part of it for each
batch size alone, in equal variances. Around it each batch size has runs that scatter by
``RUN_SPREAD``. Everything is a factor, so that all is normal in logarithms.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.comparison.decisions import decide
from utils.comparison.effects import estimate_effect
from utils.comparison.log_ratio import ProcessValue
from utils.schema.comparison_effects import EffectVerdict

BATCH_SIZES = (1, 4, 16, 64)
NUM_RUNS = 10
RUN_SPREAD = 0.02
"""Standard deviation over mean of the runs of one process."""

Key = tuple[int, str]
"""Batch size and metric."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """What is true of every simulated pair.

    Args:
        num_baseline: processes of the baseline.
        num_candidate: processes of the candidate.
        spread: standard deviation over mean between the processes of a side.
        candidate_spread: of the candidate where it differs; None: the same.
        time_ratio: true ratio of the times, candidate / baseline, at every batch size.
        known_spread: ``profiling.process_spread``; None: not known.
    """

    num_baseline: int
    num_candidate: int
    spread: float
    candidate_spread: float | None = None
    time_ratio: float = 1.0
    known_spread: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What was decided for a number of pairs.

    Args:
        num_pairs: pairs of sides.
        pairs_with_a_difference: pairs of which any metric at any batch size was called different.
        verdicts: of the times of all pairs and batch sizes.
    """

    num_pairs: int
    pairs_with_a_difference: int
    verdicts: Counter[EffectVerdict]

    @property
    def false_share(self) -> float:
        """Share of the pairs with any difference: the family-wise error where sides are equal."""
        return self.pairs_with_a_difference / self.num_pairs

    def share(self, verdict: EffectVerdict) -> float:
        """Share of the comparisons of times that have this verdict."""
        return self.verdicts[verdict] / self.verdicts.total()


def simulate(situation: Situation, *, num_pairs: int, seed: int) -> Outcome:
    """Compare simulated pairs as two sets of results are compared: each pair is one family."""
    generator = np.random.default_rng(seed)
    verdicts: Counter[EffectVerdict] = Counter()
    pairs_with_a_difference = 0
    for _ in range(num_pairs):
        decided = _decide_pair(situation, generator)
        of_pair = set(decided.values())
        pairs_with_a_difference += bool(of_pair & {"increase", "decrease"})
        verdicts.update(verdict for (_, metric), verdict in decided.items() if metric == "time")
    return Outcome(
        num_pairs=num_pairs,
        pairs_with_a_difference=pairs_with_a_difference,
        verdicts=verdicts,
    )


def _decide_pair(situation: Situation, generator: np.random.Generator) -> dict[Key, EffectVerdict]:
    """The verdict on the time and the rate of every batch size of one pair."""
    candidate_spread = situation.candidate_spread
    if candidate_spread is None:
        candidate_spread = situation.spread
    baseline = _run_times(situation.num_baseline, situation.spread, generator)
    candidate = _run_times(situation.num_candidate, candidate_spread, generator)
    candidate *= situation.time_ratio
    effects = {}
    for index, batch_size in enumerate(BATCH_SIZES):
        sides = (baseline[:, index], candidate[:, index])
        for metric, exponent in (("time", 1), ("rate", -1)):
            values = [list(_process_values(side**exponent)) for side in sides]
            effects[batch_size, metric] = estimate_effect(
                values[0], values[1], process_spread=situation.known_spread
            )
    decisions = decide(effects, same_quantity=lambda key: key[0])
    return {key: decision.verdict for key, decision in decisions.items()}


def _run_times(
    num_processes: int, spread: float, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Times of runs, shape [processes, batch sizes, runs]; their true mean is about 1."""
    part = spread * math.sqrt(0.5)
    shared = generator.normal(0.0, part, (num_processes, 1, 1))
    own = generator.normal(0.0, part, (num_processes, len(BATCH_SIZES), 1))
    runs = generator.normal(0.0, RUN_SPREAD, (num_processes, len(BATCH_SIZES), NUM_RUNS))
    times: NDArray[np.float64] = np.exp(shared + own + runs)
    return times


def _process_values(runs: NDArray[np.float64]) -> Iterator[ProcessValue]:
    """What each process would publish; ``runs`` has the shape [processes, runs]."""
    for of_process in runs:
        yield ProcessValue(
            mean=float(of_process.mean()),
            std=float(of_process.std(ddof=1)),
            num_runs=len(of_process),
        )
