"""What a million texts cost at the price of the configuration."""

from __future__ import annotations

from utils.reporting import roads
from utils.reporting.formatting import Fact
from utils.reporting.results import Results

PRICE_SETTING = "cost.gpu_price_per_hour_usd"
TEXTS = 1_000_000


def price_per_hour_usd(results: Results) -> float | None:
    """The price of one GPU that was set when the results were measured."""
    price: float | None = results.metrics.config.get("cost", {}).get("gpu_price_per_hour_usd")
    return price


def cost_facts(results: Results) -> list[Fact]:
    """The cost of a million texts on both roads; none without a price."""
    price = price_per_hour_usd(results)
    if price is None:
        return []
    facts = []
    for speed in (roads.evaluation_speed(results), roads.sweep_speed(results)):
        if speed is None or not speed.samples_per_s:
            continue
        num_gpus = 1
        name = speed.road[0].upper() + speed.road[1:]
        if speed.row is not None:
            name += f", batch size {speed.row.batch_size}"
        elif results.on_gpu and results.evaluation is not None:
            # Each worker of the evaluation has a GPU of its own, and each is paid for.
            num_gpus = results.evaluation.num_workers
        dollars = price * num_gpus / 3600 / speed.samples_per_s * TEXTS
        facts.append(Fact(name, f"{dollars:,.3g} USD for a million texts"))
    return facts
