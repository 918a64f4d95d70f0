"""Which rows go into which batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

MIN_FILL = 0.25
"""Share of the budget from which a batch ends rather than takes shorter rows in."""
FULL = 1.0
"""The same where batches take shorter rows in until the budget is spent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batching:
    """How the rows of a chunk are made into batches.

    Args:
        kind: ``token_budget`` groups rows of similar length; ``dataset_order`` takes them as they
            come.
        limit: what one batch may hold: computed tokens for ``token_budget``, rows for
            ``dataset_order``.
    """

    kind: Literal["token_budget", "dataset_order"]
    limit: int

    def plan(self, lengths: Indices, *, min_fill: float = MIN_FILL) -> list[Indices]:
        """Batches as positions into ``lengths`` (tokens a row); every position stands in exactly
        one.

        Args:
            min_fill: share of a token budget from which a batch ends where the length changes.
        """
        if self.kind == "token_budget":
            return _plan_by_length(lengths, self.limit, min_fill)
        return _plan_in_order(lengths, self.limit)

    def cost(self, lengths: Indices) -> int:
        """What one batch of these rows takes of the limit."""
        return computed_tokens(lengths) if self.kind == "token_budget" else len(lengths)

    def backed_off(self, lengths: Indices) -> Batching:
        """Half of what a batch of these rows took, because that was too much for the memory."""
        return replace(self, limit=max(1, min(self.limit, self.cost(lengths)) // 2))


def computed_tokens(lengths: Indices) -> int:
    """Tokens that a batch computes: its rows times its longest row."""
    return len(lengths) * int(lengths.max())


def _plan_by_length(lengths: Indices, budget: int, min_fill: float) -> list[Indices]:
    """Longest rows first, so that the batches that need most memory come before any work can be
    lost.

    A row longer than the budget gets a batch of its own. A batch that is full enough ends where the
    length next changes: less padding, often none and so no mask. Equal lengths keep file order, so
    the plan is repeatable.
    """
    order = np.argsort(-lengths, kind="stable")
    # Ascending, as searchsorted needs it.
    negative_lengths = -lengths[order]
    batches = []
    start = 0
    while start < len(order):
        # The first row of a batch is its longest, so its length fixes the number of rows.
        longest = -int(negative_lengths[start])
        stop = min(len(order), start + max(1, budget // longest))
        full_enough = start + math.ceil(min_fill * budget / longest)
        if full_enough < stop:
            last_length = negative_lengths[full_enough - 1]
            next_change = int(np.searchsorted(negative_lengths, last_length, side="right"))
            stop = min(stop, next_change)
        batches.append(order[start:stop])
        start = stop
    return batches


def _plan_in_order(lengths: Indices, num_rows: int) -> list[Indices]:
    order = np.arange(len(lengths), dtype=np.int64)
    return [order[start : start + num_rows] for start in range(0, len(order), num_rows)]
