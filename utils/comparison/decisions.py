"""Decides what can be said of effects: a difference, equivalence, or nothing yet."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from utils.comparison.defaults import DEFAULT_MARGIN
from utils.comparison.holm import adjust_p_values, level_of_the_rest
from utils.comparison.log_ratio import LARGEST_LOG
from utils.comparison.power import processes_needed, smallest_detectable_log
from utils.schema.comparison_effects import Decision, Effect, EffectVerdict

Key = TypeVar("Key", bound=Hashable)

DEFAULT_ALPHA = 0.05
MIN_PROCESSES = 3
"""Processes a side that are recommended where it is not known by how much processes differ."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Criteria:
    """What the verdicts of a run are decided by.

    Args:
        margin: largest difference from 1 that counts as equivalent, as a fraction.
        alpha: probability of one or more false differences in the run.
        level: what ``alpha`` leaves for a comparison that Holm's method has not rejected.
    """

    margin: float
    alpha: float
    level: float

    @property
    def log_margin(self) -> float:
        """The margin in logarithms, so that a rate and its time are decided alike."""
        return math.log1p(self.margin)


def decide(
    effects: Mapping[Key, Effect],
    *,
    margin: float = DEFAULT_MARGIN,
    alpha: float = DEFAULT_ALPHA,
    same_quantity: Callable[[Key], Hashable] | None = None,
) -> dict[Key, Decision]:
    """Decide all effects of a run together, since each further comparison is a further chance of a
    false difference.

    Equivalence comes first: where the 90% interval lies within [1 / (1 + margin), 1 + margin] the
    sides are equivalent (two one-sided tests at 5%, TOST), even if so small a difference is
    statistically significant. Else they differ where the p value, adjusted by Holm's method over
    all comparisons that have one, is at most ``alpha``. Else nothing is shown, and the decision
    says what these processes could have shown and how many more are needed.

    Sources: Schuirmann, "A comparison of the two one-sided tests procedure and the power approach
    for assessing the equivalence of average bioavailability", 1987; Holm, "A simple sequentially
    rejective multiple test procedure", 1979.

    Args:
        effects: the comparisons of the run, by any key.
        margin: largest difference that does not matter, as a fraction.
        alpha: probability with which at most one or more true equalities are called different.
        same_quantity: gives the same value for the keys of metrics that restate one measured
            quantity, as time per text and texts per second. They count as one comparison, whose p
            value is the largest of theirs (intersection-union test: Berger, "Multiparameter
            hypothesis testing and acceptance sampling", 1982). None: each counts.
    """
    p_values = _p_values_by_quantity(effects, same_quantity)
    adjusted = adjust_p_values(p_values)
    criteria = _Criteria(
        margin=margin, alpha=alpha, level=level_of_the_rest(adjusted.values(), alpha)
    )
    decisions = {}
    for key, effect in effects.items():
        adjusted_p = None
        if effect.p_difference is not None:
            adjusted_p = adjusted[_quantity(key, same_quantity)]
        decisions[key] = _decide_one(effect, adjusted_p, criteria)
    return decisions


def _quantity(key: Key, same_quantity: Callable[[Key], Hashable] | None) -> Hashable:
    if same_quantity is None:
        return key
    return same_quantity(key)


def _p_values_by_quantity(
    effects: Mapping[Key, Effect], same_quantity: Callable[[Key], Hashable] | None
) -> dict[Hashable, float]:
    """The p value of each quantity: the largest of its metrics."""
    p_values: dict[Hashable, float] = {}
    for key, effect in effects.items():
        if effect.p_difference is None:
            continue
        quantity = _quantity(key, same_quantity)
        p_values[quantity] = max(effect.p_difference, p_values.get(quantity, 0.0))
    return p_values


def _decide_one(effect: Effect, adjusted_p: float | None, criteria: _Criteria) -> Decision:
    if effect.interval_from == "none":
        return _without_interval(effect)
    assert effect.ratio is not None and effect.ci90 is not None, "an interval has its ratio"
    if _is_within_margin(effect.ci90, criteria):
        return Decision(
            verdict="equivalent",
            adjusted_p=adjusted_p,
            reason=_equivalence_reason(effect, adjusted_p, criteria),
        )
    if effect.interval_from == "exact":
        return Decision(
            verdict=_direction(effect.ratio),
            reason="The processes of each side agree to the last digit, and the sides differ.",
        )
    assert adjusted_p is not None, "an interval has its p value"
    if adjusted_p <= criteria.alpha:
        return Decision(
            verdict=_direction(effect.ratio),
            adjusted_p=adjusted_p,
            reason=f"The adjusted p value {adjusted_p:.2g} is at most {criteria.alpha:g}.",
        )
    return _inconclusive(effect, adjusted_p, criteria)


def _direction(ratio: float) -> EffectVerdict:
    return "increase" if ratio > 1 else "decrease"


def _is_within_margin(interval: tuple[float, float], criteria: _Criteria) -> bool:
    low, high = interval
    return math.log(low) >= -criteria.log_margin and math.log(high) <= criteria.log_margin


def _equivalence_reason(effect: Effect, adjusted_p: float | None, criteria: _Criteria) -> str:
    if effect.interval_from == "exact" and effect.ratio == 1:
        return "The values of both sides are identical."
    reason = f"The 90% interval lies within the margin of {criteria.margin:.2g}."
    is_significant = adjusted_p is not None and adjusted_p <= criteria.alpha
    if is_significant or effect.interval_from == "exact":
        reason += " There is a difference, but it is smaller than the margin."
    return reason


def _without_interval(effect: Effect) -> Decision:
    """Nothing can be said; where processes are missing, how many more are needed."""
    assert effect.no_interval is not None, "no interval without a reason"
    more_processes = None
    if effect.ratio is not None:
        fewest = min(effect.num_baseline, effect.num_candidate)
        more_processes = max(0, MIN_PROCESSES - fewest) or None
    return Decision(
        verdict="inconclusive",
        more_processes=more_processes,
        reason=f"No interval: {effect.no_interval}.",
    )


def _inconclusive(effect: Effect, adjusted_p: float, criteria: _Criteria) -> Decision:
    """Nothing is shown: what could have been, and what it takes."""
    assert effect.ratio is not None and effect.standard_error is not None
    assert effect.process_std is not None
    detectable_log = smallest_detectable_log(
        effect.standard_error, effect.degrees_of_freedom, criteria.level
    )
    needed = processes_needed(
        effect.process_std,
        abs(math.log(effect.ratio)),
        log_margin=criteria.log_margin,
        level=criteria.level,
    )
    more_processes = max(1, needed - min(effect.num_baseline, effect.num_candidate))
    return Decision(
        verdict="inconclusive",
        adjusted_p=adjusted_p,
        smallest_detectable=math.expm1(min(detectable_log, LARGEST_LOG)),
        more_processes=more_processes,
        reason=(
            f"The adjusted p value {adjusted_p:.2g} is above {criteria.alpha:g}, and the 90% "
            f"interval is not within the margin of {criteria.margin:.2g}."
        ),
    )
