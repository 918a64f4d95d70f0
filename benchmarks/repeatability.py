#!/usr/bin/env python
"""Whether the interval that one process claims holds what the next process measures.

The sweep runs several times, each in a new Python process. For each ordered pair of processes (i,
j) the interval of i either holds j's mean or not. Bar: 85% of all pairs; below that the interval is
too narrow and has to be corrected.

An interval of the mean of one process's runs cannot hold it: it ignores the differences between
processes, and both means scatter. So the published interval is that of another process's mean, and
allows for ``profiling.process_spread``, which this benchmark measures too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


from benchmarks import common
from benchmarks.common import Row
from utils.sweep.bench_stats import BETWEEN_PROCESS_CV

BAR = 0.85
MEAN = "throughput_samples_per_sec_mean"
STD = "throughput_samples_per_sec_std"
LOW = "throughput_samples_per_sec_ci95_low"
HIGH = "throughput_samples_per_sec_ci95_high"
OVERALL = "all batch sizes: intervals that hold another process's mean"
BATCH_SIZES = (1, 8, 32)
CHILD_TIMEOUT_S = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """The mean and the interval that one process published for one batch size."""

    mean: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def pairs_held(claims: Sequence[Claim]) -> tuple[int, int]:
    """How many ordered pairs of different processes hold, and how many there are."""
    pairs = [a.holds(b.mean) for a, b in itertools.permutations(claims, 2)]
    return sum(pairs), len(pairs)


def claim_rows(claims: dict[int, list[Claim]], unit: str) -> Iterator[Row]:
    """A row for each batch size, without a bar of its own, and one overall, which has it."""
    total = [0, 0]
    for size, of_size in claims.items():
        num_held, num_pairs = pairs_held(of_size)
        total = [total[0] + num_held, total[1] + num_pairs]
        means = [claim.mean for claim in of_size]
        between = statistics.stdev(means) if len(means) > 1 else 0.0
        half = statistics.fmean((claim.high - claim.low) / 2 for claim in of_size)
        intervals = ", ".join(
            f"{claim.mean:,.4g} [{claim.low:,.4g}, {claim.high:,.4g}]" for claim in of_size
        )
        yield common.reported(
            f"batches of {size}: held {num_held} of {num_pairs} pairs; "
            "standard deviation between processes",
            between,
            unit,
            note=intervals,
            expected=half,
            error=f"{between / half:.2f} of the half width" if half else "",
        )
    if not total[1]:
        yield common.not_here(OVERALL, "fewer than two processes gave results")
        return
    share = total[0] / total[1]
    yield common.checked(
        OVERALL,
        share >= BAR,
        expected=f">= {BAR:.0%}",
        measured=f"{share:.0%}",
        error=f"{total[0]} of {total[1]} pairs",
    )


def process_spread(sweeps: Sequence[Sequence[dict[str, Any]]]) -> float | None:
    """By what part of the mean processes differ beyond what the spread of their runs explains.

    The root of: the variance of the processes' means less the mean variance of a mean, over the
    squared mean; the mean of all batch sizes.
    """
    parts = []
    for rows in zip(*sweeps, strict=True):
        means = [row[MEAN] for row in rows]
        if len(means) > 1 and None not in means and rows[0]["num_runs"] > 1:
            variances = [row[STD] ** 2 / row["num_runs"] for row in rows]
            beyond = statistics.variance(means) - statistics.fmean(variances)
            parts.append(beyond / statistics.fmean(means) ** 2)
    if not parts:
        return None
    return math.sqrt(max(0.0, statistics.fmean(parts)))


def claims_of(
    sweeps: Sequence[Sequence[dict[str, Any]]], columns: tuple[str, str, str]
) -> dict[int, list[Claim]]:
    """By batch size; a batch size without an interval has no claim."""
    claims: dict[int, list[Claim]] = {}
    for row in itertools.chain.from_iterable(sweeps):
        values = [row[name] for name in columns]
        of_size = claims.setdefault(row["batch_size"], [])
        if None not in values:
            of_size.append(Claim(mean=values[0], low=values[1], high=values[2]))
    return claims


def one_sweep(path: Path, device: str, num_runs: int, num_samples: int) -> None:
    """What a child process does: load, sweep, write the rows."""
    from benchmarks.measurement_peers import MAX_LENGTH, load
    from utils.profiler import InferenceProfiler

    target = common.resolve(device)
    model, tokenizer, texts, _, _ = load(target)
    records = InferenceProfiler(model, tokenizer, device=target).profile_multiple_batch_sizes(
        (texts * num_samples)[:num_samples],
        BATCH_SIZES,
        num_runs=num_runs,
        max_length=MAX_LENGTH,
        num_warmup_runs=2,
        seed=0,
        # No row here has readings of the GPU, so no runs are added for them.
        min_window_seconds=0.0,
        on_event=lambda line: None,
    )
    path.write_text(json.dumps([record.to_dict() for record in records]), encoding="utf-8")


def sweep_in_a_process(path: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The sweep's rows from a new Python process; this one sleeps while it measures."""
    command = [
        sys.executable,
        str(Path(__file__).resolve()),
        "--device",
        args.device,
        "--runs",
        str(args.runs),
        "--samples",
        str(args.samples),
        "--one-sweep",
        str(path),
    ]
    subprocess.run(command, check=True, timeout=CHILD_TIMEOUT_S)
    return list(json.loads(path.read_text(encoding="utf-8")))


def process_row(number: int, sweep: Sequence[dict[str, Any]], column: str, unit: str) -> Row:
    """What one process measured: all that is left where the others do not end."""
    means = []
    for row in sweep:
        mean = "none" if row[column] is None else f"{row[column]:,.4g}"
        means.append(f"{mean} at {row['batch_size']}")
    return common.reported(f"process {number}: mean", f"{', '.join(means)} {unit}".rstrip())


def measure(args: argparse.Namespace) -> Iterator[Row]:
    if args.quick:
        args.processes, args.runs, args.samples = min(args.processes, 2), min(args.runs, 5), 32
    sweeps = []
    unit = "samples/s" if args.mean == MEAN else ""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.processes):
            sweeps.append(sweep_in_a_process(Path(folder) / f"{number}.json", args))
            yield process_row(number + 1, sweeps[-1], args.mean, unit)
    yield from claim_rows(claims_of(sweeps, (args.mean, args.low, args.high)), unit)
    spread = process_spread(sweeps)
    if spread is not None:
        known = BETWEEN_PROCESS_CV.get(common.resolve(args.device).type)
        allowed = (
            f"the intervals allow for {known or 'nothing: none is known for this kind of device'}"
        )
        yield common.reported(
            "what processes differ by: profiling.process_spread for this machine",
            spread,
            note=allowed,
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = common.make_parser(
        __doc__ or "", "python benchmarks/repeatability.py --processes 5 --runs 10"
    )
    parser.add_argument(
        "--processes", type=int, default=5, help="how many new processes (default: %(default)s)"
    )
    parser.add_argument(
        "--runs",
        type=int,
        default=10,
        help="runs at each batch size in each process (default: %(default)s)",
    )
    parser.add_argument(
        "--samples", type=int, default=64, help="texts a run (default: %(default)s)"
    )
    for name, default in (("mean", MEAN), ("low", LOW), ("high", HIGH)):
        parser.add_argument(
            f"--{name}",
            default=default,
            metavar="COLUMN",
            help="column of the table (default: %(default)s)",
        )
    parser.add_argument("--one-sweep", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one_sweep:
        one_sweep(args.one_sweep, args.device, args.runs, args.samples)
        return 0
    return common.run(parser, measure, argv)


if __name__ == "__main__":
    raise SystemExit(main())
