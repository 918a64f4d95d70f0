"""Plans of batches: every row once, within the limit, hardly any padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.evaluation.batching import FULL, Batching, computed_tokens

LENGTHS = st.lists(st.integers(1, 600), min_size=1, max_size=200).map(np.array)


@given(
    lengths=LENGTHS,
    limit=st.integers(1, 5000),
    kind=st.sampled_from(["token_budget", "dataset_order"]),
    min_fill=st.sampled_from([0.25, FULL]),
)
def test_every_row_stands_in_one_batch_within_the_limit(
    lengths: np.ndarray, limit: int, kind: str, min_fill: float
) -> None:
    batching = Batching(kind=kind, limit=limit)  # type: ignore[arg-type]
    batches = batching.plan(lengths, min_fill=min_fill)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert all(batching.cost(lengths[rows]) <= limit or len(rows) == 1 for rows in batches)


def test_alternating_lengths_have_known_padding() -> None:
    """Lengths 16 and 128: 43.75% padding in file order, none when grouped."""
    lengths = np.array([16, 128] * 64)

    def padding(batching: Batching) -> float:
        return 1 - lengths.sum() / sum(
            computed_tokens(lengths[rows]) for rows in batching.plan(lengths)
        )

    assert padding(Batching(kind="dataset_order", limit=32)) == 0.4375
    assert padding(Batching(kind="token_budget", limit=4096)) == 0.0


def test_real_lengths_have_under_two_percent_padding() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(3.7, 1.2, 8192), 1, 512).astype(np.int64)
    batches = Batching(kind="token_budget", limit=8192).plan(lengths)
    assert 1 - lengths.sum() / sum(computed_tokens(lengths[rows]) for rows in batches) < 0.02


@pytest.mark.parametrize(("kind", "after"), [("token_budget", 1000), ("dataset_order", 10)])
def test_backing_off_halves_what_the_batch_took(kind: str, after: int) -> None:
    lengths = np.full(20, 100)
    assert Batching(kind=kind, limit=10**6).backed_off(lengths).limit == after  # type: ignore[arg-type]


def test_full_batches_go_on_where_the_length_changes() -> None:
    """A budget of 1,000 holds 10 rows of 100; 25% of it, 3 rows, ends a batch at a change."""
    lengths = np.array([100] * 4 + [90] * 4 + [80] * 6)
    batching = Batching(kind="token_budget", limit=1000)

    def lengths_of_batches(**options: float) -> list[list[int]]:
        return [lengths[rows].tolist() for rows in batching.plan(lengths, **options)]

    assert lengths_of_batches() == [[100] * 4, [90] * 4, [80] * 6]
    assert lengths_of_batches(min_fill=FULL) == [
        [100] * 4 + [90] * 4 + [80] * 2,
        [80] * 4,
    ]


def test_full_batches_of_real_lengths_hold_nearly_the_budget() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(3.7, 1.2, 8192), 1, 512).astype(np.int64)

    def mean_fill(min_fill: float) -> float:
        batches = Batching(kind="token_budget", limit=16384).plan(lengths, min_fill=min_fill)
        return float(np.mean([computed_tokens(lengths[rows]) for rows in batches[:-1]])) / 16384

    assert mean_fill(0.25) < 0.65
    assert mean_fill(FULL) > 0.97
