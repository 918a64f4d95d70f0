"""The time of forwards that were not run, fitted to times whose origin is known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.diagnosis.builders import timed_forward
from utils.diagnosis.forecast import Forecast, TimeModel, fit_time_model, make_forecast
from utils.evaluation.batching import FULL, MIN_FILL

SHAPES = [(1, 10), (1, 100), (8, 100), (8, 500), (32, 200)]


def summed_ms(num_rows: int, length: int) -> float:
    return 2 + 0.01 * num_rows * length + 1e-5 * num_rows * length * length


def overlapped_ms(num_rows: int, length: int) -> float:
    return max(20, 0.01 * num_rows * length)


def test_a_summed_model_gives_back_its_coefficients() -> None:
    timed = [timed_forward(*shape, summed_ms(*shape)) for shape in SHAPES]
    model = fit_time_model(timed, "cuda")
    assert model is not None and not model.overlapped
    assert model.error < 1e-6 and model.longest_tokens == 6400
    coefficients = (model.fixed_ms, model.ms_per_token, model.ms_per_pair)
    assert coefficients == pytest.approx((2, 0.01, 1e-5))


def test_one_disturbed_time_of_five_changes_little() -> None:
    timed = []
    for num_rows, length in SHAPES:
        ms = 2 + 0.01 * num_rows * length
        if (num_rows, length) == (8, 100):
            ms *= 3
        timed.append(timed_forward(num_rows, length, ms))
    model = fit_time_model(timed, "cpu")
    assert model is not None
    assert (model.fixed_ms, model.ms_per_token) == pytest.approx((2, 0.01), rel=0.02)


def test_host_and_device_run_side_by_side_on_cuda_alone() -> None:
    timed = [timed_forward(*shape, overlapped_ms(*shape)) for shape in SHAPES]
    on_cuda = fit_time_model(timed, "cuda")
    on_cpu = fit_time_model(timed, "cpu")
    assert on_cpu is not None and not on_cpu.overlapped
    assert on_cuda is not None and on_cuda.overlapped and on_cuda.error < 1e-6
    assert (on_cuda.fixed_ms, on_cuda.ms_per_token) == pytest.approx((20, 0.01))


def test_three_shapes_are_too_few() -> None:
    timed = [timed_forward(1, 10, 1.0), timed_forward(1, 10, 2.0)]
    timed += [timed_forward(1, 20, 1.0), timed_forward(1, 30, 1.0)]
    assert fit_time_model(timed, "cpu") is None


def test_times_that_follow_from_rows_and_tokens_only_roughly_predict_nothing() -> None:
    shapes = [(rows, length) for rows in (1, 2, 4) for length in (8, 16, 64)]
    lengths = np.array([8, 16, 64])

    def forecast(*times_ms: float) -> tuple[Forecast | None, str | None]:
        timed = [timed_forward(*shape, ms) for shape, ms in zip(shapes, times_ms, strict=True)]
        return make_forecast(timed, lengths, 4, (1024,), MIN_FILL, "cpu")

    predicted, reason = forecast(*(1 + 0.1 * rows * length for rows, length in shapes))
    assert predicted is not None and reason is None
    predicted, reason = forecast(9, 1, 30, 2, 90, 1, 400, 1, 2)
    assert predicted is None
    assert reason is not None and "as on a busy machine" in reason


def test_too_few_shapes_predict_nothing() -> None:
    timed = [timed_forward(1, 8, 1.0), timed_forward(2, 8, 2.0)]
    predicted, reason = make_forecast(timed, np.array([8]), 1, (1024,), MIN_FILL, "cpu")
    assert predicted is None
    assert reason == "batches of too few different shapes were timed"


@pytest.mark.parametrize(
    ("min_fill", "grouped_ms"),
    [
        # Batches end where the length changes: 4 x 100, 8 x 50 and 16 x 25 tokens.
        (MIN_FILL, 3 * 10 + 1200 * 0.1),
        # One batch of 16 rows of 100 tokens, and one of the 12 rows of 25 tokens that are left.
        (FULL, 2 * 10 + (1600 + 300) * 0.1),
    ],
)
def test_grouped_batches_are_as_full_as_the_evaluations(min_fill: float, grouped_ms: float) -> None:
    model = TimeModel(
        fixed_ms=10.0,
        ms_per_token=0.1,
        ms_per_pair=0.0,
        overlapped=False,
        error=0.0,
        longest_tokens=4096,
    )
    forecast = Forecast(
        model=model,
        lengths=np.array([100] * 4 + [50] * 8 + [25] * 16),
        batch_size=1,
        budgets=(1600,),
        min_fill=min_fill,
    )
    one_by_one_ms = 28 * 10 + 1200 * 0.1
    assert forecast.best_budget_fraction() == pytest.approx(grouped_ms / one_by_one_ms)
