"""Money and energy for a million samples on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from utils.comparison.loading import RunResults, Side
from utils.schema.comparison import CostComparison, MetricComparison, Prices, Scope

SAMPLES = 1_000_000
SECONDS_PER_HOUR = 3600
JOULES_PER_KWH = 3.6e6
PRICE_KEY = "gpu_price_per_hour_usd"
Place = tuple[Scope, int | None, int | None]
"""Scope, sample size and batch size that a cost is of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenPrices:
    """Prices of one GPU in USD per hour from the command line or the settings; None: not given.

    Args:
        both: of both sides, from ``--price``.
        candidate: of the candidate, from ``--candidate-price``.
        default: of sides whose own settings had none when they were measured.
    """

    both: float | None = None
    candidate: float | None = None
    default: float | None = None


def choose_prices(baseline: Side, candidate: Side, given: GivenPrices) -> Prices:
    """The price of each side: as given, else as its own settings had it, else the default."""
    of_candidate = given.candidate
    if of_candidate is None:
        of_candidate = given.both
    return Prices(
        baseline_usd_per_hour=_price(given.both, baseline.first, given.default),
        candidate_usd_per_hour=_price(of_candidate, candidate.first, given.default),
    )


def _price(given: float | None, run: RunResults, default: float | None) -> float | None:
    if given is not None:
        return given
    recorded: float | None = run.metrics.config.get("cost", {}).get(PRICE_KEY)
    return default if recorded is None else recorded


def compare_costs(
    baseline: Side, candidate: Side, metrics: Sequence[MetricComparison], prices: Prices
) -> tuple[CostComparison, ...]:
    """Cost and energy of a million samples, for each batch size and the complete data set.

    Metrics that cannot be compared give no costs.
    """
    by_place: dict[Place, dict[str, MetricComparison]] = {}
    for item in metrics:
        if item.effect is not None:
            place = (item.scope, item.sample_size, item.batch_size)
            by_place.setdefault(place, {})[item.metric] = item
    costs = []
    for place, items in by_place.items():
        cost = _cost(place, items, prices, _num_gpus(baseline, place), _num_gpus(candidate, place))
        if cost is not None:
            costs.append(cost)
    return tuple(costs)


def _cost(
    place: Place,
    items: dict[str, MetricComparison],
    prices: Prices,
    num_baseline_gpus: int,
    num_candidate_gpus: int,
) -> CostComparison | None:
    """The costs of one batch size or the data set; None where neither is known."""
    throughput = items.get("throughput_samples_per_sec")
    energy = items.get("energy_per_sample_j")
    baseline_usd = None
    candidate_usd = None
    if throughput is not None:
        baseline_price = prices.baseline_usd_per_hour
        candidate_price = prices.candidate_usd_per_hour
        baseline_usd = _usd(throughput.baseline, baseline_price, num_baseline_gpus)
        candidate_usd = _usd(throughput.candidate, candidate_price, num_candidate_gpus)
    if energy is None and baseline_usd is None and candidate_usd is None:
        return None
    scope, sample_size, batch_size = place
    return CostComparison(
        scope=scope,
        sample_size=sample_size,
        batch_size=batch_size,
        baseline_usd=baseline_usd,
        candidate_usd=candidate_usd,
        baseline_kwh=None if energy is None else _kwh(energy.baseline),
        candidate_kwh=None if energy is None else _kwh(energy.candidate),
    )


def _num_gpus(side: Side, place: Place) -> int:
    """GPUs that are paid for: the evaluation may use several, one for each worker."""
    run = side.first
    if place[0] != "evaluation" or run.evaluation is None or not run.on_gpu:
        return 1
    return run.evaluation.num_workers


def _usd(throughput: float | None, price: float | None, num_gpus: int) -> float | None:
    if not throughput or price is None:
        return None
    return SAMPLES / throughput / SECONDS_PER_HOUR * price * num_gpus


def _kwh(joules_per_sample: float | None) -> float | None:
    if joules_per_sample is None:
        return None
    return joules_per_sample * SAMPLES / JOULES_PER_KWH
