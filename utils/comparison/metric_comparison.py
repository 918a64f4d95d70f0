"""Compares every metric of two sides: effects, decisions, and verdicts in words."""

from __future__ import annotations

from collections.abc import Hashable

from utils.comparison.compatibility import Refusals
from utils.comparison.decisions import decide
from utils.comparison.effects import estimate_effect
from utils.comparison.loading import RunResults, Side
from utils.comparison.metric_table import (
    MetricKey,
    get_metric,
    metric_keys,
    missing_reason,
    process_values,
    verdict_in_words,
)
from utils.schema.comparison import MetricComparison
from utils.schema.comparison_effects import Decision, Effect
from utils.sweep.bench_stats import BETWEEN_PROCESS_CV

SPEED_ALPHA = 0.04
"""Probability of one or more false differences among the verdicts on speed. What a comparison is
made for gets most of the 5%."""
OTHER_ALPHA = 0.01
"""The same among all other metrics."""


def compare_metrics(
    baseline: Side, candidate: Side, refusals: Refusals, *, margin: float, force: bool
) -> tuple[tuple[MetricComparison, ...], int]:
    """Compare every metric; also the number of comparisons that are corrected for."""
    spread = _process_spread(baseline.first, candidate.first)
    keys = metric_keys(baseline, candidate)
    effects = {}
    for key in keys:
        effects[key] = estimate_effect(
            process_values(baseline, key),
            process_values(candidate, key),
            process_spread=spread,
            variation=get_metric(key).variation,
        )
    decisions, num_tests = _decide_all(effects, refusals, margin=margin, force=force)
    items = []
    for key in keys:
        item = _metric_comparison(baseline, candidate, key, effects[key])
        reason = refusals.reason(key)
        changes: dict[str, object] = {}
        if key in decisions:
            metric = get_metric(key)
            decision = decisions[key]
            changes["decision"] = decision
            changes["verdict"] = verdict_in_words(metric, decision.verdict)
            changes["effect"] = effects[key]
            changes["forced"] = reason is not None
        if reason is not None:
            changes["reason"] = reason
        items.append(item.model_copy(update=changes))
    return tuple(items), num_tests


def _decide_all(
    effects: dict[MetricKey, Effect], refusals: Refusals, *, margin: float, force: bool
) -> tuple[dict[MetricKey, Decision], int]:
    """Decide the effects that are compared: the speed by itself, then everything else."""
    speeds: dict[MetricKey, Effect] = {}
    others: dict[MetricKey, Effect] = {}
    for key, effect in effects.items():
        is_refused = refusals.reason(key) is not None and not force
        if effect.ratio is None or is_refused:
            continue
        group = speeds if get_metric(key).is_speed else others
        group[key] = effect
    decisions = decide(speeds, margin=margin, alpha=SPEED_ALPHA, same_quantity=_speed_of)
    decisions |= decide(others, margin=margin, alpha=OTHER_ALPHA)
    quantities: set[Hashable] = set()
    for key, effect in {**speeds, **others}.items():
        if effect.p_difference is not None:
            quantities.add(_speed_of(key) if key in speeds else key)
    return decisions, len(quantities)


def _speed_of(key: MetricKey) -> Hashable:
    """Time per text, time per batch, texts and tokens per second state one quantity."""
    return (key.scope, key.sample_size, key.batch_size)


def _metric_comparison(
    baseline: Side, candidate: Side, key: MetricKey, effect: Effect
) -> MetricComparison:
    """Both values, without a verdict yet, and why there is none where a value is missing."""
    metric = get_metric(key)
    reason = None
    if effect.baseline is None:
        reason = missing_reason(baseline, key)
    elif effect.candidate is None:
        reason = missing_reason(candidate, key)
    elif effect.ratio is None:
        reason = effect.no_interval
    return MetricComparison(
        scope=key.scope,
        sample_size=key.sample_size,
        batch_size=key.batch_size,
        metric=key.name,
        label=metric.label,
        unit=metric.unit,
        baseline=effect.baseline,
        candidate=effect.candidate,
        reason=reason,
        forced=False,
    )


def _process_spread(one: RunResults, other: RunResults) -> float | None:
    """The larger spread between processes of both sides; None where one is not known."""
    spreads = []
    for run in (one, other):
        configured = run.metrics.config.get("profiling", {}).get("process_spread")
        if configured is None:
            kind = "cuda" if run.on_gpu else "cpu"
            configured = BETWEEN_PROCESS_CV.get(kind)
        if configured is None:
            return None
        spreads.append(float(configured))
    return max(spreads)
