"""Effects and decisions: values worked by hand or by SciPy, and inputs that decide nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.comparison.statistics_builders import process_values
from utils.comparison.decisions import decide
from utils.comparison.effects import Variation, estimate_effect
from utils.comparison.log_ratio import ProcessValue
from utils.schema.comparison_effects import Decision, Effect


def effect_of(
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    variation: Variation = "timed",
    process_spread: float | None = None,
) -> Effect:
    return estimate_effect(
        process_values(baseline),
        process_values(candidate),
        process_spread=process_spread,
        variation=variation,
    )


def decide_alone(effect: Effect, margin: float = 0.02) -> Decision:
    return decide({"only": effect}, margin=margin)["only"]


def test_several_processes_give_welch_t_interval_of_the_log_ratio() -> None:
    baseline, candidate = [100.0, 103.0, 98.0, 101.0], [92.0, 90.0, 95.0, 91.0]
    expected = stats.ttest_ind(np.log(candidate), np.log(baseline), equal_var=False)
    effect = effect_of(baseline, candidate)
    assert effect.ratio == pytest.approx(stats.gmean(candidate) / stats.gmean(baseline))
    assert effect.p_difference == pytest.approx(expected.pvalue)
    assert effect.degrees_of_freedom == pytest.approx(expected.df)
    assert effect.ci95 == pytest.approx(tuple(np.exp(expected.confidence_interval(0.95))))
    assert effect.ci90 == pytest.approx(tuple(np.exp(expected.confidence_interval(0.90))))
    assert effect.interval_from == "processes"
    assert (effect.num_baseline, effect.num_candidate) == (4, 4)


def test_unequal_counts_give_the_wider_of_welch_and_pooled() -> None:
    baseline, candidate = [100.0, 100.4], [110.0, 100.0, 120.0, 105.0, 95.0]
    for sides in ((baseline, candidate), (candidate, baseline)):
        widths = []
        for equal_variances in (True, False):
            test = stats.ttest_ind(np.log(sides[1]), np.log(sides[0]), equal_var=equal_variances)
            interval = test.confidence_interval(0.95)
            widths.append(interval.high - interval.low)
        interval_95 = effect_of(*sides).ci95
        assert interval_95 is not None
        assert math.log(interval_95[1] / interval_95[0]) == pytest.approx(max(widths))


def test_the_spread_of_one_side_stands_for_a_single_process_on_the_other() -> None:
    baseline = [100.0, 104.0, 97.0, 102.0]
    deviation = np.std(np.log(baseline), ddof=1)
    effect = effect_of(baseline, [130.0])
    assert effect.degrees_of_freedom == 3
    assert effect.process_std == pytest.approx(deviation)
    assert effect.standard_error == pytest.approx(deviation * math.sqrt(1 + 1 / 4))


def test_one_process_a_side_uses_the_known_spread_and_the_error_of_its_runs() -> None:
    effect = estimate_effect(
        [ProcessValue(mean=100, std=4.0, num_runs=16)],
        [ProcessValue(mean=120, std=6.0, num_runs=4)],
        process_spread=0.03,
    )
    variances = [2 * 0.03**2, 0.04**2 / 16, 0.05**2 / 4]
    total = sum(variances)
    assert effect.interval_from == "process_spread"
    assert effect.standard_error == pytest.approx(math.sqrt(total))
    freedom = total**2 / (variances[1] ** 2 / 15 + variances[2] ** 2 / 3)
    assert effect.degrees_of_freedom == pytest.approx(freedom)
    statistic = math.log(1.2) / math.sqrt(total)
    assert effect.p_difference == pytest.approx(2 * stats.t.sf(statistic, freedom))


def test_a_spread_of_zero_leaves_the_runs_alone() -> None:
    baseline = [10.0, 10.2, 9.9, 10.1, 10.0]
    candidate = [10.4, 10.6, 10.5, 10.3, 10.6]
    sides = []
    for runs in (baseline, candidate):
        sides.append(
            ProcessValue(mean=float(np.mean(runs)), std=float(np.std(runs, ddof=1)), num_runs=5)
        )
    effect = estimate_effect([sides[0]], [sides[1]], process_spread=0.0)
    expected = stats.ttest_ind(candidate, baseline, equal_var=False)
    # The logarithm of a mean and the mean of logarithms differ by little at this spread.
    assert effect.p_difference == pytest.approx(expected.pvalue, rel=0.1)


@pytest.mark.parametrize("num_processes", [1, 2, 3])
@pytest.mark.parametrize("process_spread", [None, 0.0, 0.12])
def test_identical_sides_have_the_ratio_one_and_do_not_differ(
    num_processes: int, process_spread: float | None
) -> None:
    means = [100.0, 107.3, 94.1][:num_processes]
    effect = effect_of(means, means[::-1], process_spread=process_spread)
    assert effect.ratio == 1
    assert effect.ci95 == (1, 1)
    assert decide_alone(effect).verdict == "equivalent"


@pytest.mark.parametrize(
    ("baseline", "candidate", "reason"),
    [
        ([], [100.0], "not measured by any process of the baseline"),
        ([100.0, 101.0], [], "not measured by any process of the candidate"),
        ([], [], "not measured by any process of the baseline"),
        ([0.0, 0.0], [5.0, 5.1], "a value is 0"),
        ([5.0], [0.0], "a value is 0"),
        ([100.0], [200.0], "profiling.process_spread"),
        ([100.0, 100.0, 100.0], [200.0, 200.0, 200.0], "agree to the last digit"),
        ([100.0, 100.0], [200.0], "agree to the last digit"),
    ],
)
def test_what_cannot_be_decided_is_inconclusive_with_its_reason(
    baseline: list[float], candidate: list[float], reason: str
) -> None:
    effect = effect_of(baseline, candidate)
    decision = decide_alone(effect)
    assert effect.ci95 is None and effect.p_difference is None
    assert decision.verdict == "inconclusive"
    assert reason in decision.reason


@pytest.mark.parametrize("num_runs", [1, 10])
def test_one_process_a_side_without_a_spread_of_runs_decides_nothing(num_runs: int) -> None:
    single = [ProcessValue(mean=100, std=None, num_runs=num_runs)]
    double = [ProcessValue(mean=200, std=None, num_runs=num_runs)]
    effect = estimate_effect(single, double, process_spread=0.01)
    assert decide_alone(effect).verdict == "inconclusive"
    assert "spread of this metric within a process" in (effect.no_interval or "")


def test_no_variation_of_runs_decides_nothing_without_a_spread_of_processes() -> None:
    baseline = [ProcessValue(mean=100, std=0.0, num_runs=10)]
    candidate = [ProcessValue(mean=200, std=0.0, num_runs=10)]
    effect = estimate_effect(baseline, candidate, process_spread=0.0)
    assert decide_alone(effect).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("variation", "num_processes", "verdict"),
    [
        ("computed", 1, "increase"),
        ("computed", 3, "increase"),
        ("repeatable", 1, "inconclusive"),
        ("repeatable", 2, "increase"),
        ("timed", 3, "inconclusive"),
    ],
)
def test_what_repeats_exactly_is_compared_exactly(
    variation: Variation, num_processes: int, verdict: str
) -> None:
    effect = effect_of([10.0] * num_processes, [11.0] * num_processes, variation=variation)
    assert effect.ratio == 1.1
    assert decide_alone(effect).verdict == verdict


def test_an_exact_difference_within_the_margin_is_equivalent() -> None:
    decision = decide_alone(effect_of([1000.0] * 2, [1010.0] * 2, variation="repeatable"))
    assert decision.verdict == "equivalent"
    assert "smaller than the margin" in decision.reason


def test_what_should_repeat_but_does_not_is_compared_by_its_spread() -> None:
    effect = effect_of([10.0, 10.1, 10.0], [12.0, 12.1, 12.0], variation="repeatable")
    assert effect.interval_from == "processes"


def test_a_significant_difference_within_the_margin_is_equivalent() -> None:
    baseline = [100.0, 100.1, 99.9, 100.05]
    effect = effect_of(baseline, [1.005 * mean for mean in baseline])
    decision = decide_alone(effect)
    assert decision.adjusted_p is not None and decision.adjusted_p < 0.05
    assert decision.verdict == "equivalent"
    assert "smaller than the margin" in decision.reason
    assert decide_alone(effect, margin=0.001).verdict == "increase"


def test_a_rate_and_its_time_are_decided_alike() -> None:
    baseline = [100.0, 101.0, 99.0, 100.5, 100.0]
    for factor in (0.982, 1.0, 1.018, 1.3):
        candidate = [factor * mean for mean in (100.2, 100.9, 99.1, 100.0, 100.3)]
        rate = decide_alone(effect_of(baseline, candidate))
        time_ = decide_alone(
            effect_of([1 / mean for mean in baseline], [1 / mean for mean in candidate])
        )
        mirrored = {"increase": "decrease", "decrease": "increase"}
        assert time_.verdict == mirrored.get(rate.verdict, rate.verdict)
        assert time_.adjusted_p == pytest.approx(rate.adjusted_p)


def test_values_far_apart_keep_finite_ends() -> None:
    effect = effect_of([1e-6, 1e6], [1e-6, 2e6])
    assert effect.ci95 is not None
    assert all(0 < end < math.inf for end in effect.ci95)
    assert decide_alone(effect).verdict == "inconclusive"


def test_holm_multiplies_by_the_number_of_comparisons_that_are_left() -> None:
    baseline = [100.0, 101.0, 99.0]
    effects = {}
    for factor in (1.0, 1.03, 1.05, 1.4):
        effects[factor] = effect_of(baseline, [factor * mean for mean in (100.5, 101.2, 98.6)])
    p_values = {factor: effect.p_difference or 0.0 for factor, effect in effects.items()}
    decisions = decide(effects)
    assert decisions[1.4].adjusted_p == pytest.approx(4 * p_values[1.4])
    assert decisions[1.05].adjusted_p == pytest.approx(3 * p_values[1.05])
    assert decisions[1.03].adjusted_p == pytest.approx(2 * p_values[1.03])
    assert decisions[1.0].adjusted_p == pytest.approx(p_values[1.0])


def test_metrics_that_restate_one_quantity_count_once() -> None:
    baseline, candidate = [100.0, 101.0, 99.0], [104.0, 105.5, 103.0]
    rate = effect_of(baseline, candidate)
    time_ = effect_of([1 / mean for mean in baseline], [1 / mean for mean in candidate])
    effects = {("1", "rate"): rate, ("1", "time"): time_}
    together = decide(effects, same_quantity=lambda key: key[0])
    apart = decide(effects)
    assert together[("1", "rate")].adjusted_p == pytest.approx(rate.p_difference)
    assert apart[("1", "rate")].adjusted_p == pytest.approx(2 * (rate.p_difference or 0))


def test_the_smallest_detectable_difference_is_found_four_times_of_five() -> None:
    generator = np.random.default_rng(0)
    spread = 0.03
    undecided = [effect_of(*sides) for sides in _log_normal_sides(generator, 0.0, spread, 200)]
    detectable = []
    for effect in undecided:
        decision = decide_alone(effect, margin=1e-6)
        if decision.smallest_detectable is not None:
            detectable.append(decision.smallest_detectable)
    # Each estimate uses its own standard deviation; the median is near that of the true one.
    true_log = math.log1p(float(np.median(detectable)))
    found = 0
    for sides in _log_normal_sides(generator, true_log, spread, 500):
        found += decide_alone(effect_of(*sides), margin=1e-6).verdict == "increase"
    assert found / 500 == pytest.approx(0.8, abs=0.06)


def test_more_processes_than_there_are_give_a_verdict_with_the_same_spread() -> None:
    generator = np.random.default_rng(1)
    effect = effect_of([100.0, 103.0, 97.0], [104.0, 107.0, 101.0])
    decision = decide_alone(effect)
    assert decision.verdict == "inconclusive"
    assert decision.more_processes is not None
    assert effect.ratio is not None and effect.process_std is not None
    found = 0
    enough = 3 + decision.more_processes
    sides = _log_normal_sides(
        generator, math.log(effect.ratio), effect.process_std, 400, num_processes=enough
    )
    for baseline, candidate in sides:
        found += decide_alone(effect_of(baseline, candidate)).verdict == "increase"
    assert found / 400 == pytest.approx(0.8, abs=0.07)


def test_without_a_known_spread_three_processes_a_side_are_recommended() -> None:
    decision = decide_alone(effect_of([100.0], [110.0]))
    assert decision.more_processes == 2
    assert decision.smallest_detectable is None


MEANS = st.one_of(
    st.floats(min_value=1e-9, max_value=1e9), st.sampled_from((0.0, 1.0, 1.0 + 1e-15))
)
STDS = st.one_of(st.none(), st.floats(min_value=0.0, max_value=1e9))
VALUES = st.builds(
    ProcessValue, mean=MEANS, std=STDS, num_runs=st.integers(min_value=0, max_value=50)
)
SIDES = st.lists(VALUES, max_size=5)
SPREADS = st.one_of(st.none(), st.floats(min_value=0.0, max_value=0.99))
VARIATIONS = st.sampled_from(("timed", "repeatable", "computed"))


@given(baseline=SIDES, candidate=SIDES, process_spread=SPREADS, variation=VARIATIONS)
@settings(max_examples=300, deadline=None)
def test_any_values_give_a_decision_and_swapped_sides_the_opposite_one(
    baseline: list[ProcessValue],
    candidate: list[ProcessValue],
    process_spread: float | None,
    variation: Variation,
) -> None:
    verdicts = []
    for sides in ((baseline, candidate), (candidate, baseline)):
        effect = estimate_effect(*sides, process_spread=process_spread, variation=variation)
        verdicts.append(decide_alone(effect).verdict)
        assert (effect.interval_from == "none") == (effect.ci95 is None)
    mirrored = {"increase": "decrease", "decrease": "increase"}
    assert verdicts[1] == mirrored.get(verdicts[0], verdicts[0])


def _log_normal_sides(
    generator: np.random.Generator,
    log_ratio: float,
    spread: float,
    num_pairs: int,
    num_processes: int = 5,
) -> list[tuple[list[float], list[float]]]:
    pairs = []
    for _ in range(num_pairs):
        logs = generator.normal(0.0, spread, (2, num_processes))
        pairs.append((list(np.exp(logs[0])), list(np.exp(log_ratio + logs[1]))))
    return pairs
