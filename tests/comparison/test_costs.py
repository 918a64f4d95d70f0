"""Money and energy for a million samples, worked by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.comparison.builders import Payload, compare, write_process
from tests.reporting.builders import Scenario
from utils.comparison.costs import GivenPrices
from utils.schema.comparison import Comparison, CostComparison

GPU = Scenario(gpu=True)


def cost(comparison: Comparison, batch_size: int | None) -> CostComparison:
    [item] = [item for item in comparison.costs if item.batch_size == batch_size]
    return item


def set_price(price: float):
    def change(payload: Payload) -> None:
        payload["config"]["cost"]["gpu_price_per_hour_usd"] = price

    return change


def test_the_cost_follows_from_throughput_and_price(tmp_path: Path) -> None:
    def set_throughput(payload: Payload) -> None:
        for row in payload["batch_size_profiling"]:
            row["throughput_samples_per_sec_mean"] = 1000.0
            row["energy_per_sample_j"] = 3.6

    before = write_process(tmp_path, "before", scenario=GPU, change=set_throughput)
    after = write_process(tmp_path, "after", scenario=GPU)
    comparison = compare(before, after, prices=GivenPrices(both=3.6))
    at_8 = cost(comparison, 8)
    # 1,000 seconds at 3.6 USD per hour, and 3.6 MJ.
    assert at_8.baseline_usd == pytest.approx(1.0)
    assert at_8.baseline_kwh == pytest.approx(1.0)
    assert at_8.candidate_usd is not None


def test_without_a_price_there_is_energy_alone(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before", scenario=GPU)
    comparison = compare(before, write_process(tmp_path, "after", scenario=GPU))
    assert cost(comparison, 8).baseline_usd is None
    assert cost(comparison, 8).baseline_kwh is not None
    on_cpu = write_process(tmp_path, "cpu")
    assert compare(on_cpu, write_process(tmp_path, "cpu2")).costs == ()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (GivenPrices(), (1.5, 2.5)),
        (GivenPrices(default=9.0), (1.5, 2.5)),
        (GivenPrices(both=3.0), (3.0, 3.0)),
        (GivenPrices(both=3.0, candidate=4.0), (3.0, 4.0)),
        (GivenPrices(candidate=4.0), (1.5, 4.0)),
    ],
)
def test_a_given_price_goes_before_the_recorded_one(
    tmp_path: Path, given: GivenPrices, expected: tuple[float, float]
) -> None:
    before = write_process(tmp_path, "before", change=set_price(1.5))
    after = write_process(tmp_path, "after", change=set_price(2.5))
    prices = compare(before, after, prices=given).prices
    assert (prices.baseline_usd_per_hour, prices.candidate_usd_per_hour) == expected


def test_the_present_setting_stands_in_for_runs_without_a_price(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before")
    after = write_process(tmp_path, "after", change=set_price(2.5))
    prices = compare(before, after, prices=GivenPrices(default=1.0)).prices
    assert (prices.baseline_usd_per_hour, prices.candidate_usd_per_hour) == (1.0, 2.5)


def test_an_evaluation_on_several_gpus_pays_for_each(tmp_path: Path) -> None:
    def use_four(payload: Payload) -> None:
        payload["full_dataset_metrics"]["num_workers"] = 4

    before = write_process(tmp_path, "before", scenario=GPU)
    after = write_process(tmp_path, "after", scenario=GPU, change=use_four)
    evaluation = cost(compare(before, after, prices=GivenPrices(both=1.0)), None)
    assert evaluation.candidate_usd == pytest.approx(4 * (evaluation.baseline_usd or 0.0))
