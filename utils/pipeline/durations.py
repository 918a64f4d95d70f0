"""Durations and costs in words, for estimates."""

from __future__ import annotations

SECONDS_PER_HOUR = 3600.0


def duration_text(seconds: float) -> str:
    """A duration in the unit that suits it, seconds, minutes or hours; at least a second."""
    if seconds < 1.5:
        return "1 second"
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / SECONDS_PER_HOUR:.1f} hours"


def cost_text(seconds: float, price_per_hour_usd: float, num_gpus: int = 1) -> str:
    """What that time costs, with the price that it follows from.

    Args:
        price_per_hour_usd: of one GPU.
        num_gpus: how many are paid for at once.
    """
    dollars = seconds / SECONDS_PER_HOUR * price_per_hour_usd * num_gpus
    amount = f"about ${dollars:,.2f}"
    if dollars < 0.01:
        amount = "less than $0.01"
    elif dollars >= 100:
        amount = f"about ${dollars:,.0f}"
    price = f"${price_per_hour_usd:,.2f} per hour"
    if num_gpus > 1:
        price += f" for each of {num_gpus} GPUs"
    return f"{amount} at {price}"


def num_paid_gpus(device: str, num_workers: int) -> int:
    """How many GPUs a run pays for: one for each worker; a machine without GPUs has one price."""
    return 1 if device == "cpu" else num_workers
