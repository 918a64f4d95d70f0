"""FLOPs of many shapes: counted once each within a time, then computed or left out."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from utils.sweep.flops import (
    COUNTING_S,
    ENOUGH_LENGTHS,
    MIN_LENGTHS,
    FlopCounter,
    FlopsPerSample,
)

WIDTH = 8
CPU = torch.device("cpu")


class WordTokenizer:
    """A token for each word, padded on the right."""

    padding_side = "right"
    pad_token_id = 0
    model_input_names = ("input_ids", "attention_mask")

    def __call__(self, texts: list[str], **_: Any) -> dict[str, torch.Tensor]:
        lengths = [len(text.split()) for text in texts]
        ids = torch.zeros(len(texts), max(lengths), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, length in enumerate(lengths):
            mask[row, :length] = 1
        return {"input_ids": ids, "attention_mask": mask}


class CountedModel(torch.nn.Module):
    """A product for each token and one for each pair of tokens of a row; it notes its shapes."""

    def __init__(self, window: int | None = None) -> None:
        super().__init__()
        self.window = window
        self.shapes: list[tuple[int, int]] = []

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        num_rows, length = input_ids.shape
        self.shapes.append((num_rows, length))
        tokens = torch.ones(num_rows, length, WIDTH)  # (rows, length, width)
        weights = torch.ones(num_rows, WIDTH, WIDTH)  # (rows, width, width)
        states = torch.bmm(tokens, weights)
        keys = states[:, : self.window]  # (rows, keys, width)
        scores = torch.bmm(states, keys.transpose(1, 2))  # (rows, length, keys)
        return SimpleNamespace(logits=scores[:, 0])


def flops_of(num_rows: int, length: int) -> int:
    """Two FLOPs for each element of the two products."""
    return num_rows * (2 * length * WIDTH * WIDTH + 2 * length * length * WIDTH)


def text_of(length: int) -> str:
    return " ".join(["word"] * length)


def count(
    model: CountedModel, lengths: list[int], size: int, seconds_per_look: float = 0.0
) -> FlopsPerSample:
    """FLOPs of texts of these lengths; the clock advances at each look at it."""
    texts = [text_of(length) for length in lengths]
    counter = make_counter(model, ticking_clock(seconds_per_look))
    return counter.per_sample(texts, size, 512)


def make_counter(model: CountedModel, clock: Callable[[], float]) -> FlopCounter:
    names = ("input_ids", "attention_mask")
    return FlopCounter(model, WordTokenizer(), names, CPU, clock)


def ticking_clock(seconds_per_look: float) -> Callable[[], float]:
    """Each look is so many seconds after the one before."""
    looks = iter(range(10**6))
    return lambda: next(looks) * seconds_per_look


def test_every_shape_is_counted_once() -> None:
    model = CountedModel()
    counted = count(model, [3, 5, 3, 5, 3], 1)
    assert sorted(model.shapes) == [(1, 3), (1, 5)]
    assert counted.value == (3 * flops_of(1, 3) + 2 * flops_of(1, 5)) / 5


def test_shapes_counted_at_one_batch_size_are_not_counted_again() -> None:
    model = CountedModel()
    counter = make_counter(model, ticking_clock(0.0))
    texts = [text_of(4)] * 5
    counter.per_sample(texts, 4, 512)
    counter.per_sample(texts, 1, 512)
    assert sorted(model.shapes) == [(1, 4), (4, 4)], "the last text of the first pass is alone"


def test_after_its_time_shapes_between_counted_ones_are_computed() -> None:
    model = CountedModel()
    lengths = list(range(1, 101))
    counted = count(model, lengths, 1, seconds_per_look=COUNTING_S)
    assert len(model.shapes) == MIN_LENGTHS
    assert counted.value == pytest.approx(sum(flops_of(1, n) for n in lengths) / 100)
    assert counted.reason is None


def test_shapes_on_one_curve_are_computed_before_the_time_is_over() -> None:
    """The curve is known from lengths that are spread over all of them."""
    model = CountedModel()
    lengths = list(range(1, 101))
    counted = count(model, lengths, 1)
    assert len(model.shapes) == ENOUGH_LENGTHS
    counted_lengths = sorted(length for _, length in model.shapes)
    assert counted_lengths[0] == 1
    assert counted_lengths[-1] == 100
    widest_gap = max(b - a for a, b in zip(counted_lengths, counted_lengths[1:], strict=False))
    assert widest_gap <= 2 * 100 / ENOUGH_LENGTHS
    assert counted.value == pytest.approx(sum(flops_of(1, n) for n in lengths) / 100, rel=1e-9)


@pytest.mark.parametrize("window", [5, 40, 90, 98])
def test_within_its_time_every_shape_of_no_curve_is_counted(window: int) -> None:
    windowed = CountedModel(window=window)
    lengths = list(range(1, 101))
    counted = count(windowed, lengths, 1)
    expected = 0
    for length in lengths:
        keys = min(length, window)
        expected += 2 * length * WIDTH * WIDTH + 2 * length * keys * WIDTH
    assert counted.value == pytest.approx(expected / 100, rel=1e-9)


def test_flops_that_lie_on_no_curve_are_left_out_with_their_reason() -> None:
    windowed = CountedModel(window=40)
    counted = count(windowed, list(range(1, 101)), 1, seconds_per_look=COUNTING_S)
    assert counted.value is None
    assert counted.reason is not None
    assert f"{MIN_LENGTHS} of 100 shapes" in counted.reason


def test_few_shapes_are_counted_however_long_that_takes() -> None:
    model = CountedModel()
    counted = count(model, [3, 5, 8], 1, seconds_per_look=10 * COUNTING_S)
    assert counted.value == sum(flops_of(1, n) for n in (3, 5, 8)) / 3


def test_a_batch_with_another_number_of_rows_is_not_computed_from_the_others() -> None:
    model = CountedModel()
    lengths = [length for length in range(1, 101) for _ in range(2)] + [7]
    counted = count(model, lengths, 2, seconds_per_look=COUNTING_S)
    assert (1, 7) in model.shapes
    total = 2 * sum(flops_of(1, n) for n in range(1, 101)) + flops_of(1, 7)
    assert counted.value == pytest.approx(total / 201)
