"""The records of one metric on two sides: its ratio with an interval, and what was decided."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from utils.schema.common import Count, NonNegative, Positive, Record, optional, text

IntervalSource = Literal["processes", "process_spread", "exact", "none"]
EffectVerdict = Literal["increase", "decrease", "equivalent", "inconclusive"]
Probability = Annotated[float, Field(ge=0, le=1)]
RatioInterval = tuple[Positive, Positive]


class Effect(Record):
    """How a metric of the candidate compares with that of the baseline: candidate / baseline."""

    baseline: NonNegative | None = optional(
        "Value of the baseline: the geometric mean of its processes' means."
    )
    candidate: NonNegative | None = optional(
        "Value of the candidate: the geometric mean of its processes' means."
    )
    ratio: Positive | None = optional(
        "`candidate` divided by `baseline`; null where a side was not measured or is 0.",
        unit="fraction",
    )
    ci95: RatioInterval | None = optional("95% interval of `ratio`.", unit="fraction")
    ci90: RatioInterval | None = optional(
        "90% interval of `ratio`, which the test of equivalence uses.", unit="fraction"
    )
    p_difference: Probability | None = optional(
        "Two-sided p value of no difference, before the correction for several comparisons.",
        unit="fraction",
    )
    num_baseline: Count = text("Processes of the baseline that have a value.")
    num_candidate: Count = text("Processes of the candidate that have a value.")
    interval_from: IntervalSource = text(
        "What the interval follows from. `processes`: the spread of the processes' means; "
        "`process_spread`: one process a side, and the known spread between processes; `exact`: "
        "values that repeat to the last digit; `none`: there is no interval."
    )
    standard_error: NonNegative | None = optional(
        "Standard error of the logarithm of `ratio`.", unit="fraction"
    )
    degrees_of_freedom: Positive | None = optional(
        "Degrees of freedom of the t distribution; null for a normal distribution."
    )
    process_std: NonNegative | None = optional(
        "Standard deviation of a process's mean, over the mean, from which the interval follows.",
        unit="fraction",
    )
    no_interval: str | None = optional("Why there is no interval.")


class Decision(Record):
    """What can be said of an effect, given all comparisons of the run."""

    verdict: EffectVerdict = text(
        "`equivalent`: the 90% interval of the ratio lies within the margin; `increase` or "
        "`decrease`: the ratio differs from 1; `inconclusive`: neither is shown."
    )
    adjusted_p: Probability | None = optional(
        "p value of no difference, corrected for the number of comparisons by Holm's method.",
        unit="fraction",
    )
    smallest_detectable: NonNegative | None = optional(
        "Smallest difference of the ratio from 1 that these processes show with a probability of "
        "80%, after the correction.",
        unit="fraction",
    )
    more_processes: Count | None = optional(
        "About how many more processes a side it takes until the verdict is no longer "
        "`inconclusive` with a probability of 80%, if the observed ratio is the true one."
    )
    reason: str = text("Why this is the verdict.")
