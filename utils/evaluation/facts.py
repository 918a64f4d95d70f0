"""What the comparisons of an evaluation say, in words for the terminal and the report alike; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def comparison_facts(whole: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What grouping by length won over file order, and compiling over not: both measured on the same rows."""
    facts = []
    if won := whole["batching_comparison"]:
        padding = " against ".join(f"{100 * won[f'{way}_padding_fraction']:.2f}%" for way in ("token_budget", "dataset_order"))
        facts.append((
            "Grouping by length won",
            f"{_speeds(won, 'token_budget', 'dataset_order')} in file order; padding {padding}; "
            f"{won['label_agreement']:.2%} of the labels equal ({won['num_rows']:,} rows)",
        ))
    if won := whole["compile_comparison"]:
        facts.append(("Compiling won", f"{_speeds(won, 'compiled', 'plain')}; compiling took {won['compile_s']:,.1f} s"))
    return facts


def _speeds(won: Mapping[str, Any], first: str, second: str) -> str:
    speeds = " against ".join(f"{won[f'{way}_samples_per_sec']:,.1f}" for way in (first, second))
    return f"{won['speedup']:.2f} times: {speeds} samples/s"
