"""What removing each cause of lost time would win, what to try, and how much faster that should be."""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.analysis.forecast import Forecast, in_file_order
from utils.analysis.verdict import INPUT_SHARE, Evidence
from utils.config_loader import Config

SMALLEST_WIN = 0.01  # less than 1% of the batch time lies within the spread of the measurement
NEVER_WAITS = 0.9
"""Share of the forward from which on a CUDA device is busy throughout: then faster kernels make it as much shorter."""
MOST_WINS = 3  # the largest ones, which are shown first
SLOW_LAYER, LEAST_PEERS = 2.0, 3
"""A module that takes twice what its like take in the other layers (three of them at least) is no accident of timing."""
SLOW_LAYER_SHARE = 0.05  # of the forward that it has to cost: less may be one interrupt in the mean of a few calls
LONG_TEXTS = 0.95  # share of the texts that a smaller ``max_length`` must leave whole
LENGTH_STEP = 8  # lengths are rounded up to a multiple of 8, which matrix units like
TOKEN_BUDGET = "evaluation.batching=token_budget"
COMPILE = "evaluation.compile=true"
ESTIMATE, AT_MOST = "estimate", "at most"
"""Whether a prediction follows from measured times of what goes away, or is only the end that it cannot pass."""

Win = dict[str, Any]
"""What removing one cause wins, ``win_ms`` and ``win_pct`` of a batch, and ``predicted_speedup`` of the whole batch, which is an
``estimate`` or ``at most`` (``prediction``); its title, cause, evidence, what to try and the setting that does so, or None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Operators of one kind in one batch: untraced milliseconds, milliseconds at the ceilings, calls."""

    kind: str
    measured_ms: float
    attainable_ms: float
    calls: float


def find_wins(
    found: Evidence, config: Config, *, groups: Sequence[Group] = (), layers: Sequence[tuple[str, float]] = (),
    faster_products: Mapping[str, float] | None = None, forecast: Forecast | None = None, largest: int = 0,
    too_large: float = math.inf,
) -> list[Win]:
    """All wins of at least 1% of the batch time, the largest first. They overlap: they do not add up.

    Args:
        layers: dotted name and own milliseconds of each module.
        faster_products: how many times faster these matrix products are under a setting of ``model``.
        largest: batch size of the sweep; ``too_large``: the smallest that ran out of memory.
    """
    wins = (*_batching_wins(found, config, forecast, largest, too_large), *_host_wins(found, config),
            *_layer_wins(found, layers), *_operator_wins(found, groups, config, forecast),
            *_precision_wins(found, groups, config, faster_products or {}, forecast))
    large_enough = [win for win in wins if win["win_pct"] >= 100 * SMALLEST_WIN]
    return sorted(large_enough, key=lambda win: float(win["win_ms"]), reverse=True)


def _win(
    found: Evidence, win_ms: float, title: str, *, cause: str, advice: str, evidence: str, setting: str | None = None,
    prediction: str = ESTIMATE,
) -> Win:
    left_ms = found.total_ms - win_ms
    return {
        "title": title, "cause": cause, "win_ms": win_ms, "win_pct": 100 * win_ms / found.total_ms,
        "predicted_speedup": found.total_ms / left_ms if left_ms > 0 else None, "prediction": prediction, "try": advice,
        "setting": setting, "evidence": evidence, "batch_size": None, "verified": None,
    }


def _most_by_kernels(found: Evidence, forecast: Forecast | None) -> float:
    """Milliseconds that faster kernels can win at most: on CUDA not what the host takes to start them, whoever waits for whom."""
    if found.device_busy_ms is None:
        return found.forward_ms - found.overhead_ms
    if forecast is not None:
        return max(0.0, found.forward_ms - forecast.model.fixed_ms)
    return found.device_busy_ms if found.device_busy_ms >= NEVER_WAITS * found.forward_ms else 0.0


def _batching_wins(
    found: Evidence, config: Config, forecast: Forecast | None, largest: int, too_large: float
) -> Iterable[Win]:
    """What other batches of the same texts would take, padding and fixed costs together: only the sum is what one gets."""
    if forecast is None:
        return
    fitted = f"forward times fitted within {forecast.model.error:.0%}"
    padded = found.padding_ms >= found.overhead_ms
    padding = f"{found.padding_fraction or 0:.1%} of the tokens of the profiled batches are padding"
    eaten = f"at {2 * found.batch_size} in file order it would be {forecast.padding_at(2 * found.batch_size):.1%}"
    already = ", as step 02's evaluation does here" if config.evaluation.batching == "token_budget" else ""
    yield _win(
        found, found.forward_ms * (1 - forecast.left_by_budget()), "padding" if padded else "small batches",
        cause="short texts are filled up to the longest of their batch, and the model computes the filling" if padded else
        "each batch starts all operators anew; in file order larger ones would be padded",
        advice="group texts of like length" + already, setting=TOKEN_BUDGET, evidence=f"{padding}; {eaten}; {fitted}",
    )
    larger = 2 * found.batch_size
    if found.batch_size >= largest and larger < too_large:  # else the sweep has tried it
        sizes = ",".join(map(str, sorted({*config.profiling.batch_sizes, larger})))
        yield _win(
            found, found.forward_ms * (1 - forecast.left(in_file_order(larger))), "batch size",
            cause="every batch starts all operators anew", advice=f"batches of {larger}",
            setting=f"profiling.batch_sizes=[{sizes}]", evidence=f"{padding}; {eaten}; {fitted}",
        ) | {"batch_size": larger}
    cut = LENGTH_STEP * math.ceil(float(np.quantile(forecast.lengths, LONG_TEXTS)) / LENGTH_STEP)
    if cut < min(config.profiling.max_length, int(forecast.lengths.max())):
        yield _win(
            found, found.forward_ms * (1 - forecast.left(longest=cut)), "long texts",
            cause="few texts are much longer than the others", advice=f"cut texts at {cut} tokens; compare accuracy",
            setting=f"profiling.max_length={cut}",
            evidence=f"{(forecast.lengths > cut).mean():.1%} of the texts are longer; {fitted}",
        )


def _host_wins(found: Evidence, config: Config) -> Iterable[Win]:
    """What the host does before, beside and after the model."""
    copying_ms = found.host_to_device_ms + found.device_to_host_ms
    said = f"tokenising {found.tokenize_ms:.3g} ms, copying {copying_ms:.3g} ms, forward {found.forward_ms:.3g} ms"
    if found.tokenize_ms / found.total_ms > INPUT_SHARE:
        yield _win(found, found.tokenize_ms, "slow tokeniser", evidence=said, cause="it takes longer than all the rest",
                   advice="a fast tokenizer, in several processes, or texts tokenised once and kept")
    yield _win(
        found, min(found.input_ms, found.forward_ms), "tokenising and copying", evidence=said,
        cause="they run before and after the model, not beside it",
        advice="tokenise and copy the next batch while the model runs (prefetch), as step 02's evaluation does",
    )
    yield _win(
        found, found.overhead_ms, "overhead", cause="the host's work to start operators, the same for every batch size",
        advice="torch.compile, which starts fewer operators", prediction=AT_MOST,
        setting=None if config.evaluation.compile else COMPILE,
        evidence=f"{found.op_calls:,.0f} operators at {found.dispatch_us:.3g} us"
        + ("" if found.device_busy_ms is None else f"; device busy {found.device_busy_ms:.3g} ms")
        + ("" if found.doubling_growth is None else f"; twice the batch takes {found.doubling_growth:+.0%} time"),
    )


def _layer_wins(found: Evidence, layers: Sequence[tuple[str, float]]) -> Iterable[Win]:
    """The module that takes longest beyond what its like take: those of the same name in the other layers."""
    alike: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for name, own_ms in layers:
        if re.search(r"\.\d+(\.|$)", name):
            alike[re.sub(r"\.\d+(?=\.|$)", ".*", name, count=1)].append((own_ms, name))
    slow = []
    for peers in alike.values():
        *others, (own_ms, name) = sorted(peers)
        if len(others) >= LEAST_PEERS - 1:
            others_ms = statistics.median(ms for ms, _ in others)
            slow.append((own_ms - others_ms if own_ms > SLOW_LAYER * others_ms else 0.0, own_ms, name))
    excess_ms, own_ms, name = max(slow, default=(0.0, 0.0, ""))
    if excess_ms >= SLOW_LAYER_SHARE * found.forward_ms:
        yield _win(
            found, min(excess_ms, found.forward_ms), f"slow layer: {name}", advice=f"look at what {name} does that its like do not",
            cause="this module takes longer than the same module of the other layers",
            evidence=f"{own_ms:.3g} ms, the others {own_ms - excess_ms:.3g} ms",
        )


def _operator_wins(found: Evidence, groups: Sequence[Group], config: Config, forecast: Forecast | None) -> Iterable[Win]:
    def excess(group: Group) -> float:
        # On the CPU an operator's time holds the price of starting it, which is a win of its own.
        starting = group.calls * found.dispatch_us / 1e3 if found.device == "cpu" else 0.0
        return group.measured_ms - group.attainable_ms - starting

    if not groups:
        return
    worst = max(groups, key=excess)
    if worst.kind == "attention" and config.model.attn_implementation == "eager":
        advice, setting = "fused attention", "model.attn_implementation=sdpa"
    elif worst.kind in ("matrix product", "attention"):
        advice, setting = "larger or better filled batches, whose shapes reach the ceiling", None
    else:
        advice = "torch.compile, which fuses operators so that intermediate results are not stored"
        setting = None if config.evaluation.compile else COMPILE
    yield _win(
        found, max(0.0, min(excess(worst), _most_by_kernels(found, forecast))), f"slow operators: {worst.kind}", advice=advice,
        setting=setting, prediction=AT_MOST, cause="they take longer than their FLOPs and bytes need at the measured ceilings",
        evidence=f"{worst.measured_ms:.3g} ms where {worst.attainable_ms:.3g} ms are attainable, {worst.calls:,.0f} calls",
    )


def _precision_wins(
    found: Evidence, groups: Sequence[Group], config: Config, faster_products: Mapping[str, float], forecast: Forecast | None
) -> Iterable[Win]:
    """The matrix products' own time, faster as the largest of them are; bfloat16 also moves half the bytes elsewhere."""
    products_ms = sum(group.measured_ms for group in groups if group.kind == "matrix product")
    for setting, times in faster_products.items():
        moved_ms = found.copy_limited_ms / 2 if "dtype" in setting else 0.0
        saved_ms = min(products_ms * (1 - 1 / times) + moved_ms, _most_by_kernels(found, forecast))
        if times > 1:
            yield _win(
                found, saved_ms, "precision", setting=setting, advice=f"{setting.rpartition('.')[2]}; compare accuracy",
                # On a CPU the other operators may become slower by more than the products win.
                prediction=ESTIMATE if found.device == "cuda" else AT_MOST,
                cause=f"matrix products run in {config.model.dtype}, matmul_precision {config.model.matmul_precision}",
                evidence=f"matrix products take {products_ms:.3g} ms; the largest of them are {times:.1f} times faster with it",
            )
