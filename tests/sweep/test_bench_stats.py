"""Statistics against values worked by hand and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from utils.schema.batch_size import percentile_columns
from utils.sweep import bench_stats, stability

VALUES = (2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0)


def test_summary_by_hand() -> None:
    summary = bench_stats.summarise(VALUES)
    assert (summary.mean, summary.min, summary.max, summary.median) == (5.0, 2.0, 9.0, 4.5)
    assert summary.std == pytest.approx((32 / 7) ** 0.5)


def test_one_value_has_no_spread_and_none_has_nothing() -> None:
    assert bench_stats.summarise([3.0]).std is None
    assert bench_stats.summarise([3.0]).mean == 3.0
    assert bench_stats.summarise([]).mean is None
    assert bench_stats.mean_interval([3.0]) is None
    assert bench_stats.coefficient_of_variation([3.0]) is None


def test_interval_is_scipys() -> None:
    low, high = bench_stats.mean_interval(VALUES) or (0, 0)
    expected = stats.t.interval(0.95, len(VALUES) - 1, loc=np.mean(VALUES), scale=stats.sem(VALUES))
    assert (low, high) == pytest.approx(expected)


@pytest.mark.parametrize("percent", [1, 50, 75, 90, 95, 99])
def test_needed_latencies_are_the_fewest_of_which_hardly_ever_at_most_one_is_above(
    percent: int,
) -> None:
    needed = bench_stats.min_latencies(percent)
    above = 1 - percent / 100
    assert stats.binom.cdf(1, needed, above) <= 0.01
    assert stats.binom.cdf(1, needed - 1, above) > 0.01


@pytest.mark.parametrize(("percent", "needed"), [(90, 64), (99, 662)])
def test_needed_latencies_are_those_of_mlperf(percent: int, needed: int) -> None:
    assert bench_stats.min_latencies(percent) == needed


@pytest.mark.parametrize("percent", [0, 100])
def test_extremes_are_no_percentiles(percent: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 99"):
        bench_stats.min_latencies(percent)


@pytest.mark.parametrize("percent", percentile_columns().values())
def test_percentiles_wait_for_enough_values(percent: int) -> None:
    needed = bench_stats.min_latencies(percent)
    assert bench_stats.percentile(range(needed - 1), percent) is None
    assert bench_stats.percentile(range(needed), percent) == pytest.approx(
        (needed - 1) * percent / 100
    )


def test_autocorrelation_by_hand_widens_the_interval() -> None:
    # deviations -1.5, -0.5, 0.5, 1.5: (0.75 - 0.25 + 0.75) / 5
    assert bench_stats.autocorrelation((1.0, 2.0, 3.0, 4.0)) == pytest.approx(1.25 / 5)
    assert bench_stats.autocorrelation((1.0, 1.0, 1.0)) is None
    wave = (0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0) * 5
    r = (30 - 9) * 0.25 / (40 * 0.25)  # of 39 pairs, 30 are alike
    assert bench_stats.autocorrelation(wave) == pytest.approx(r)
    worth = 40 * (1 - r) / (1 + r)
    assert bench_stats.effective_sample_size(wave) == pytest.approx(worth)
    half = stats.t.ppf(0.975, worth - 1) * np.std(wave, ddof=1) / worth**0.5
    assert bench_stats.mean_interval(wave) == pytest.approx((0.5 - half, 0.5 + half))
    assert bench_stats.effective_sample_size([float(i) for i in range(40)]) == 2, (
        "a mere trend is worth no more"
    )
    assert (
        bench_stats.effective_sample_size((1.0, 2.0) * 20) == 40
    )  # alternating values are no reason to widen


def test_the_interval_holds_the_mean_of_a_correlated_process_as_often_as_it_says() -> None:
    """A first-order process with r = 0.6.

    The plain t interval would contain its mean in about 70% of the cases.
    """
    random, covered, cases = np.random.default_rng(0), 0, 400
    for _ in range(cases):
        noise, values = random.normal(size=140), [0.0]
        for step in noise:
            values.append(0.6 * values[-1] + float(step))
        low, high = bench_stats.mean_interval([10 + value for value in values[-120:]]) or (0, 0)
        covered += low <= 10 <= high
    assert covered / cases > 0.9


def test_the_interval_holds_another_processs_mean_as_often_as_it_says() -> None:
    """Processes that differ by 5%, ten runs each that differ by 3%."""
    random, covered, cases = np.random.default_rng(5), 0, 2000
    for _ in range(cases):
        runs, other = (random.normal(centre, 0.03, 10) for centre in random.normal(1, 0.05, 2))
        low, high = bench_stats.between_process_interval(
            float(np.mean(runs)), bench_stats.mean_interval(runs) or (0, 0), 0.05
        )
        covered += low <= other.mean() <= high
    assert covered / cases == pytest.approx(0.95, abs=0.02)


def test_bootstrap_median_ci_is_scipys_bootstrap() -> None:
    values = tuple(np.random.default_rng(1).normal(5, 1, 60))
    low, high = bench_stats.bootstrap_median_ci(values) or (0, 0)
    expected = stats.bootstrap(
        (values,), np.median, method="percentile", n_resamples=5000, rng=2
    ).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.1)
    assert low < np.median(values) < high
    assert bench_stats.bootstrap_median_ci(values) == (low, high), (
        "seeded: the same values give the same interval"
    )
    assert bench_stats.bootstrap_median_ci(values[:4]) is None


def test_comparison_is_welchs() -> None:
    random = np.random.default_rng(3)
    a, b = random.lognormal(0, 0.02, 12), random.lognormal(0.05, 0.03, 9)
    comparison = bench_stats.compare(a, b)
    between = stats.ttest_ind(np.log(b), np.log(a), equal_var=False).confidence_interval(0.95)
    assert (comparison.low, comparison.high) == pytest.approx(
        (np.exp(between.low), np.exp(between.high))
    )
    assert comparison.ratio == pytest.approx(stats.gmean(b) / stats.gmean(a))


@pytest.mark.parametrize(
    ("factor", "noise", "result"),
    [
        (1.0, 0.002, "same"),
        (1.05, 0.01, "slower"),
        (0.95, 0.01, "faster"),
        (1.0, 0.1, "ambiguous"),
        (1.05, 0.3, "ambiguous"),
    ],
)
def test_the_interval_decides_between_four_results(
    factor: float, noise: float, result: str
) -> None:
    base = np.array([1 + noise * (-1) ** i for i in range(10)])
    assert bench_stats.compare(base, factor * base).result == result


def test_what_cannot_be_compared_is_ambiguous() -> None:
    assert bench_stats.compare([1.0], [2.0]) == bench_stats.Comparison(ratio=2.0)
    assert bench_stats.compare([], [2.0]).ratio is None
    assert bench_stats.compare([1.0, 0.0], [2.0, 1.0]).result == "ambiguous"
    assert (
        bench_stats.compare([1.0, 1.0], [1.1, 1.1]).result == "slower"
    )  # a stopped clock has no spread


def test_spreads_by_hand() -> None:
    assert bench_stats.median_absolute_deviation((1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0)) == 1.0
    assert stability.iqr_over_median((1.0, 2.0, 3.0, 4.0, 5.0)) == pytest.approx(2 / 3)
    assert stability.drift((1.0, 1.0, 5.0, 5.0, 2.0, 2.0)) == pytest.approx(1.0)
    assert stability.drift((1.0, 2.0, 3.0, 4.0, 5.0)) is None, "thirds of single runs are no thirds"
    assert stability.window_means((1.0, 3.0, 5.0, 5.0, 2.0, 4.0)) == (2.0, 5.0, 3.0)


def test_outliers_are_flagged() -> None:
    assert stability.outliers((1.0, 1.1, 0.9, 1.0, 1.05, 10.0)) == (10.0,)
    assert stability.outliers((1.0, 9.0)) == ()


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ((1.0, 1.0), "few-runs: there are 2 runs"),
        ((1.0, 1.3, 0.8, 1.2, 0.7, 1.1), "standard deviation"),
        ((1.0, 1.0, 1.1, 1.1, 1.2, 1.2), "drift"),
        ((1.0,) * 4 + (1.5, 1.5) + (1.01, 0.99) * 3, "outliers; they are kept"),
        ((1.0, 1.01) * 2 + (1.3, 1.31) * 2 + (1.0, 1.01) * 2, "the middle and the last third"),
        ((1.0,) * 9 + (1.7,), "59% away"),
        ((1.0, 1.0, 1.15, 1.15, 1.0, 1.15), "which is wide (the limit is 10%)"),
        ((1.0, 1.0, 1.4, 1.4, 1.0, 1.4), "very wide (the limit is 25%)"),
        ((1e-4,) * 6, "few-runs: a run takes 100 us"),
    ],
)
def test_instability_says_why(durations: tuple[float, ...], expected: str) -> None:
    assert any(expected in reason for reason in stability.instability_reasons(durations))


def test_steady_runs_are_stable() -> None:
    assert stability.instability_reasons((1.0, 1.01, 0.99, 1.0, 1.02, 1.0)) == ()


def test_the_interval_of_a_percentile_by_tables_of_order_statistics() -> None:
    # The 40th and 61st of 100 values enclose the median with 95%: Conover, 1999, section 3.2.
    assert bench_stats.percentile_bounds(range(1, 101), 50) == (40, 61)


def test_an_end_of_the_interval_needs_enough_values() -> None:
    # 0.95^72 is the first power below 2.5%.
    assert bench_stats.percentile_bounds(range(71), 95)[1] is None
    assert bench_stats.percentile_bounds(range(72), 95)[1] == 71
    assert bench_stats.percentile_bounds([], 95) == (None, None)


@pytest.mark.parametrize("percent", [50, 90, 95])
def test_the_interval_of_a_percentile_covers_it_as_often_as_it_says(percent: int) -> None:
    stream = np.random.default_rng(percent)
    true = -np.log(1 - percent / 100)
    covered = 0
    for values in stream.exponential(size=(1000, 200)):
        low, high = bench_stats.percentile_bounds(values, percent)
        assert low is not None and high is not None
        covered += low <= true <= high
    assert covered >= 935
