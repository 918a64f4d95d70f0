"""The time of forwards that were not run, fitted to times whose origin is known."""

from __future__ import annotations

import pytest

from utils.diagnosis.forecast import TimedForward, fit_time_model

SHAPES = [(1, 10), (1, 100), (8, 100), (8, 500), (32, 200)]


def summed_ms(num_rows: int, length: int) -> float:
    return 2 + 0.01 * num_rows * length + 1e-5 * num_rows * length * length


def overlapped_ms(num_rows: int, length: int) -> float:
    return max(20, 0.01 * num_rows * length)


def test_a_summed_model_gives_back_its_coefficients() -> None:
    timed = [TimedForward(*shape, summed_ms(*shape)) for shape in SHAPES]
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
        timed.append(TimedForward(num_rows, length, ms))
    model = fit_time_model(timed, "cpu")
    assert model is not None
    assert (model.fixed_ms, model.ms_per_token) == pytest.approx((2, 0.01), rel=0.02)


def test_host_and_device_run_side_by_side_on_cuda_alone() -> None:
    timed = [TimedForward(*shape, overlapped_ms(*shape)) for shape in SHAPES]
    on_cuda = fit_time_model(timed, "cuda")
    on_cpu = fit_time_model(timed, "cpu")
    assert on_cpu is not None and not on_cpu.overlapped
    assert on_cuda is not None and on_cuda.overlapped and on_cuda.error < 1e-6
    assert (on_cuda.fixed_ms, on_cuda.ms_per_token) == pytest.approx((20, 0.01))


def test_three_shapes_are_too_few() -> None:
    timed = [TimedForward(1, 10, 1.0), TimedForward(1, 10, 2.0)]
    timed += [TimedForward(1, 20, 1.0), TimedForward(1, 30, 1.0)]
    assert fit_time_model(timed, "cpu") is None
