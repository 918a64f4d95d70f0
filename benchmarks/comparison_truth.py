#!/usr/bin/env python
"""Whether the comparison of two runs says what is true.

Simulated pairs of sides, of which the truth is known: how often equal sides are called different,
how often a true change is found, and how often equal sides are called equivalent. A pair has the
time and the rate of four batch sizes, corrected together as those of a real comparison.

Real sweeps of the demo in processes of their own, one after the other: pairs of sides that are the
same, none of which may be called different, and a pair of which the candidate has one module that
is slowed down, which has to be found and named first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


from benchmarks import common
from benchmarks.common import MISS, PASS, UNDECIDED, Row
from benchmarks.comparison_parts.quality_simulation import BASELINE_ACCURACY, simulate_quality
from benchmarks.comparison_parts.real_sides import (
    PLANTED_SHARE,
    SLOWED_MODULE,
    DemoSweeps,
    called_different,
    compare,
    first_module,
    largest_spread,
    measure_planted,
    pairs_of,
    speeds,
)
from benchmarks.comparison_parts.simulation import Outcome, Situation, simulate

FALSE_DIFFERENCES = 0.05
FOUND = 0.95
EQUIVALENT = 0.80
CONTAINED = 0.93
"""Of intervals that promise 95%: a bootstrap of few rows reaches a little less."""
NUM_PAIRS = 1000
NUM_QUICK_PAIRS = 200
NUM_REAL_PAIRS = 6
TRUE_CHANGE = 1.10
ENOUGH_FOR_CHANGE = 5
"""Processes a side with which a change of 10% is found at a spread of 3%."""
ENOUGH_FOR_EQUIVALENCE = {0.0: 5, 0.01: 8, 0.03: 50}
"""Processes a side by spread between processes, with the margin of 2%."""


def equal_sides(num_pairs: int) -> Iterator[Row]:
    """Equal sides, of which at most 5% of the pairs may be called different."""
    for spread in (0.0, 0.03, 0.12):
        for count in (1, 3, 5):
            situation = _alike(count, spread)
            outcome = simulate(situation, num_pairs=num_pairs, seed=0)
            yield _false_differences(f"{_describe(situation)}: called different", outcome)
    for counts in ((2, 5), (1, 5)):
        situation = Situation(num_baseline=counts[0], num_candidate=counts[1], spread=0.03)
        outcome = simulate(situation, num_pairs=num_pairs, seed=0)
        yield _false_differences(f"{_describe(situation)}: called different", outcome)
    unlike = replace(_alike(3, 0.03), candidate_spread=0.12)
    outcome = simulate(unlike, num_pairs=num_pairs, seed=0)
    yield common.reported(
        "equal sides, spreads 3% and 12%, 3 a side: called different", f"{outcome.false_share:.1%}"
    )


def _alike(count: int, spread: float, time_ratio: float = 1.0) -> Situation:
    """Equal counts and spreads; with one process a side the spread is known."""
    return Situation(
        num_baseline=count,
        num_candidate=count,
        spread=spread,
        time_ratio=time_ratio,
        known_spread=spread,
    )


def _describe(situation: Situation) -> str:
    counts = f"{situation.num_baseline} a side"
    if situation.num_baseline != situation.num_candidate:
        counts = f"{situation.num_baseline} and {situation.num_candidate} processes"
    sides = "equal sides"
    if situation.time_ratio != 1:
        sides = f"a true change of {situation.time_ratio - 1:.0%}"
    return f"{sides}, spread {situation.spread:.0%}, {counts}"


def _false_differences(check: str, outcome: Outcome) -> Row:
    """At most 5%; more counts as missed where 5% gives so many once in a thousand."""
    status = PASS
    if outcome.false_share > FALSE_DIFFERENCES:
        status = UNDECIDED
    if outcome.pairs_with_a_difference > stats.binom.ppf(
        0.999, outcome.num_pairs, FALSE_DIFFERENCES
    ):
        status = MISS
    return Row(
        check=check,
        status=status,
        expected=f"<= {FALSE_DIFFERENCES:.0%} of the pairs",
        measured=f"{outcome.false_share:.1%}",
        error=f"{outcome.pairs_with_a_difference} of {outcome.num_pairs} pairs",
    )


def spread_set_too_low(num_pairs: int) -> Iterator[Row]:
    """One process a side, with less than the true spread as ``profiling.process_spread``."""
    for known in (0.0, 0.01, 0.03, 0.06, 0.09, 0.12):
        situation = replace(_alike(1, 0.12), known_spread=known)
        outcome = simulate(situation, num_pairs=num_pairs, seed=0)
        yield common.reported(
            f"equal sides, spread 12%, 1 a side, process_spread {known:.0%}: called different",
            f"{outcome.false_share:.1%}",
            error="the truth" if known == 0.12 else f"{known / 0.12:.0%} of the truth",
        )


def true_change(num_pairs: int) -> Iterator[Row]:
    """All batch sizes take 10% longer; found are comparisons that say so."""
    for count in (1, 2, 3, 4, 5, 6):
        situation = _alike(count, 0.03, TRUE_CHANGE)
        outcome = simulate(situation, num_pairs=num_pairs, seed=0)
        check = f"{_describe(situation)}: found at a batch size"
        error = f"at one or more batch sizes: {outcome.false_share:.1%}"
        found = outcome.share("increase")
        if count < ENOUGH_FOR_CHANGE:
            yield common.reported(check, f"{found:.1%}", error=error)
            continue
        yield common.checked(
            check, found >= FOUND, expected=f">= {FOUND:.0%}", measured=f"{found:.1%}", error=error
        )


def equivalent_sides(num_pairs: int) -> Iterator[Row]:
    """Equal sides with enough processes to say that they are."""
    for spread, count in ENOUGH_FOR_EQUIVALENCE.items():
        situation = _alike(count, spread)
        outcome = simulate(situation, num_pairs=num_pairs, seed=0)
        share = outcome.share("equivalent")
        yield common.checked(
            f"{_describe(situation)}: called equivalent within 2%",
            share >= EQUIVALENT,
            expected=f">= {EQUIVALENT:.0%}",
            measured=f"{share:.1%}",
            error=f"called different: {1 - share - outcome.share('inconclusive'):.1%}",
        )


def quality(num_pairs: int) -> Iterator[Row]:
    """Predictions of 400 rows: McNemar's test, and intervals of accuracy and macro F1."""
    equal = simulate_quality(BASELINE_ACCURACY, num_pairs=num_pairs, seed=0)
    yield common.checked(
        "equally good predictions: McNemar's p value at most 5%",
        equal.significant <= FALSE_DIFFERENCES,
        expected=f"<= {FALSE_DIFFERENCES:.0%} of the pairs",
        measured=f"{equal.significant:.1%}",
    )
    for accuracy in (BASELINE_ACCURACY, 0.5):
        outcome = equal
        if accuracy != BASELINE_ACCURACY:
            outcome = simulate_quality(accuracy, num_pairs=num_pairs, seed=0)
        change = f"{0.15 * (accuracy - BASELINE_ACCURACY):+.1%}"
        shares = {"accuracy": outcome.accuracy_contained, "macro F1": outcome.f1_contained}
        for name, share in shares.items():
            yield common.checked(
                f"accuracy changed by {change}: 95% intervals of {name} with the true change",
                share >= CONTAINED,
                expected=f">= {CONTAINED:.0%}",
                measured=f"{share:.1%}",
            )


def real_equal_sides(sweeps: DemoSweeps, num_processes: int) -> Iterator[Row]:
    """Twelve sweeps make six pairs, none of which may be called different."""
    folders = [sweeps.sweep(f"same-{number}") for number in range(2 * NUM_REAL_PAIRS)]
    comparisons = [compare(sides) for sides in pairs_of(folders, num_processes)]
    different = []
    for number, comparison in enumerate(comparisons, start=1):
        for item in called_different(comparison):
            different.append(f"pair {number}: {item.label}, batch size {item.batch_size}")
    num_different = sum(bool(called_different(comparison)) for comparison in comparisons)
    yield common.checked(
        f"the demo's sweep, {num_processes} a side, equal sides: called different",
        num_different == 0,
        expected="none",
        measured=f"{num_different} of {len(comparisons)} pairs",
        note="; ".join(different),
    )
    spread = largest_spread(comparisons)
    if spread is not None:
        yield common.reported(
            "the demo's sweep: largest spread of a throughput between processes", f"{spread:.1%}"
        )


def real_slow_down(sweeps: DemoSweeps, num_processes: int) -> Iterator[Row]:
    """A module that makes the forward pass 20% longer."""
    comparison = compare(measure_planted(sweeps, num_processes))
    verdicts = [item.verdict for item in speeds(comparison)]
    ratios = []
    for item in speeds(comparison):
        if item.effect is not None and item.effect.ratio is not None:
            ratios.append(f"{item.effect.ratio:.2f} at {item.batch_size}")
    yield common.checked(
        f"{SLOWED_MODULE} slowed down by {PLANTED_SHARE:.0%} of the forward pass, "
        f"{num_processes} a side: throughput called slower",
        "slower" in verdicts and "faster" not in verdicts,
        expected="at one or more batch sizes",
        measured=f"{verdicts.count('slower')} of {len(verdicts)} batch sizes",
        note=f"ratios {', '.join(ratios)}",
    )
    module = first_module(comparison)
    yield common.checked(
        "module with the largest difference in the diagnosis",
        module == SLOWED_MODULE,
        expected=SLOWED_MODULE,
        measured=module or "none",
    )


def real(args: argparse.Namespace) -> Iterator[Row]:
    """Sweeps of the demo; their results are deleted at the end."""
    if args.quick:
        yield common.not_here("real sweeps of the demo", "they take minutes; run without --quick")
        return
    with tempfile.TemporaryDirectory() as folder:
        sweeps = DemoSweeps(folder=Path(folder), settings=tuple(args.settings))
        sweeps.prepare()
        if args.part in ("all", "planted"):
            yield from real_slow_down(sweeps, args.processes)
        if args.part in ("all", "equal"):
            yield from real_equal_sides(sweeps, args.processes)


def measure(args: argparse.Namespace) -> Iterator[Row]:
    num_pairs = NUM_QUICK_PAIRS if args.quick else NUM_PAIRS
    if args.part in ("all", "simulated"):
        for part in (equal_sides, spread_set_too_low, true_change, equivalent_sides, quality):
            yield from part(num_pairs)
    if args.part != "simulated":
        yield from real(args)


def main(argv: Sequence[str] | None = None) -> int:
    parser = common.make_parser(
        __doc__ or "", "python benchmarks/comparison_truth.py --part planted --processes 5"
    )
    parser.add_argument(
        "--part",
        choices=("all", "simulated", "planted", "equal"),
        default="all",
        help="simulated sides, a real slow-down that is planted, or real equal sides",
    )
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of all real sweeps; may be given often",
    )
    parser.add_argument(
        "--processes",
        type=int,
        choices=range(1, NUM_REAL_PAIRS + 1),
        default=3,
        metavar="N",
        help="real processes of each side, from 1 to 6 (default: %(default)s)",
    )
    return common.run(parser, measure, argv)


if __name__ == "__main__":
    raise SystemExit(main())
