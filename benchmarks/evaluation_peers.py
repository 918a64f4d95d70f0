#!/usr/bin/env python
"""The evaluator compared with what a user would pick instead, and with the machine's limit.

All take turns over the same texts in one process. The rest is in the folder ``peers``.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from transformers.utils import logging as transformers_logging

from benchmarks import common
from benchmarks.common import Row
from benchmarks.peers import verdicts
from benchmarks.peers.contestants import (
    COMPILED,
    EVALUATOR,
    PEERS,
    Evaluator,
    Timings,
    prepare_contestants,
    time_rounds,
)
from benchmarks.peers.limit import real_flops
from benchmarks.peers.time_spent import device_busy_fraction, operator_shares, phase_shares
from utils.config_loader import Config, load_config
from utils.demo.assets import ensure_demo_assets
from utils.diagnosis import roofline
from utils.evaluation.tokens import tokenize
from utils.model_utils import load_model
from utils.pipeline import startup

# Rows of the default data set. Its time is projected at the lengths of the embedded corpus.
DEFAULT_DATASET_ROWS = 369_475
MIN_BUSY = 0.95
QUICK_TEXTS = 512
QUICK_ROUNDS = 2


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/demo.yaml")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, auto")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    parser.add_argument(
        "--architecture",
        metavar="PATH",
        help="random weights of this shape instead of the embedded model",
    )
    parser.add_argument(
        "--rows", type=int, default=2048, help="texts of the embedded corpus, drawn with a seed"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=(*PEERS, COMPILED),
        default=PEERS,
        help="who else runs (default: other tools)",
    )
    parser.add_argument(
        "--tf32", action="store_true", help="on CUDA in float32: then the same with TF32"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="512 texts, 2 rounds: shows that it runs, proves nothing",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="PATH",
        help="write the rows and the machine's record there too",
    )
    return parser


def read_config(args: argparse.Namespace, dtype: str) -> Config:
    # The corpus at its real lengths: the demo truncates it further.
    words = [
        f"model.device={args.device}",
        f"model.dtype={dtype}",
        "profiling.max_length=512",
    ]
    if args.architecture:
        words += [
            f"model.name={args.architecture}",
            "model.load_format=dummy",
            "model.tokenizer=embedded",
        ]
    return load_config(args.config, [*words, *args.overrides])


def read_texts(config: Config, count: int) -> list[str]:
    import pandas as pd

    frame = pd.read_parquet(ensure_demo_assets(config.embedded) / "corpus_eval.parquet")
    return list(frame["text"].sample(min(count, len(frame)), random_state=0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The timed rounds, and the limit beside them.

    Args:
        flops: what the real tokens of all texts need.
        ceiling: FLOPs a second of the best matrix product, measured before and after the rounds.
    """

    timings: Timings
    flops: float
    ceiling: float
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def limit_s(self) -> float:
        return self.flops / self.ceiling

    @property
    def evaluator_s(self) -> float:
        return median(self.timings.seconds[EVALUATOR])


def compare_alone(evaluator: Evaluator, texts: list[str]) -> Comparison:
    """One round of the evaluator alone, after one in which it chose its budget, and the limit."""
    loaded = evaluator.loaded
    evaluator(texts)
    max_length = evaluator.config.profiling.max_length
    chunk = tokenize(loaded.tokenizer, texts, max_length, loaded.inputs)
    return Comparison(
        timings=time_rounds({EVALUATOR: evaluator}, texts, 1),
        flops=real_flops(loaded.model, chunk.lengths),
        ceiling=roofline.measure_matmul_flops_per_s(loaded.device, loaded.model.dtype),
    )


def compare(
    evaluator: Evaluator,
    texts: list[str],
    peers: Sequence[str],
    num_rounds: int,
    after_round: Callable[[Comparison], object] = lambda comparison: None,
) -> Comparison:
    """Time the evaluator and its peers in turn, and measure the limit before and after.

    Args:
        after_round: receives what is known so far: first of the evaluator alone, then after each
            round of all.
    """
    loaded = evaluator.loaded
    alone = compare_alone(evaluator, texts)
    after_round(alone)
    with tempfile.TemporaryDirectory() as folder:
        names = [name for name in peers if name != COMPILED]
        contestants = prepare_contestants(evaluator, Path(folder), texts, names)

        def save_round(timings: Timings) -> None:
            after_round(replace(alone, timings=timings, absent=contestants.absent))

        timings = time_rounds(contestants.running, texts, num_rounds, save_round)
    ceiling = roofline.measure_matmul_flops_per_s(loaded.device, loaded.model.dtype)
    return Comparison(
        timings=timings,
        absent=contestants.absent,
        flops=alone.flops,
        ceiling=max(alone.ceiling, ceiling),
    )


def comparison_rows(
    comparison: Comparison, args: argparse.Namespace, num_texts: int, *, is_cuda: bool
) -> list[Row]:
    """Speed, labels and share of the limit."""
    timings = comparison.timings
    share = comparison.limit_s / comparison.evaluator_s
    rate = num_texts / comparison.evaluator_s
    minutes = DEFAULT_DATASET_ROWS / rate / 60
    projection = f"{minutes:,.1f} min at {rate:,.0f} rows/s"
    peers = [name for name in args.peers if name != COMPILED]
    rows = verdicts.peer_rows(timings, comparison.absent, peers, dtype=args.dtype, is_cuda=is_cuda)
    rows.append(verdicts.limit_row(share, dtype=args.dtype, is_cuda=is_cuda))
    name = f"{DEFAULT_DATASET_ROWS:,} such rows"
    return [*rows, common.reported(name, projection, expected="reported")]


def compare_compiled(
    evaluator: Evaluator, texts: list[str], args: argparse.Namespace, comparison: Comparison
) -> list[Row]:
    """The evaluator with and without ``evaluation.compile``, which may take a minute to compile."""
    with tempfile.TemporaryDirectory() as folder:
        contestants = prepare_contestants(evaluator, Path(folder), texts, [COMPILED])
    timings = time_rounds(contestants.running, texts, args.rounds)
    return verdicts.compiled_rows(
        timings,
        contestants.absent,
        comparison.limit_s,
        dtype=args.dtype,
        is_cuda=evaluator.loaded.device.type == "cuda",
    )


def float32_row(
    evaluator: Evaluator, texts: list[str], args: argparse.Namespace, comparison: Comparison
) -> Row:
    """How many labels are those of the same model in float32."""
    with closing(Evaluator(load_model(read_config(args, "float32")), evaluator.config)) as other:
        exact = other(texts)
    agreement = verdicts.label_agreement(exact, comparison.timings.labels[EVALUATOR])
    name = f"labels of {args.dtype} as float32"
    return common.reported(name, f"{agreement:.3%}", expected="reported")


def busy_row(fraction: float | None) -> Row:
    """The time in which a kernel ran, compared with its bar."""
    if fraction is None:
        return common.not_here("device busy", "the profiler saw no kernels")
    return common.checked(
        "device busy",
        fraction >= MIN_BUSY,
        expected=f">= {MIN_BUSY:.0%}",
        measured=f"{fraction:.1%}",
    )


def further_rows(
    evaluator: Evaluator, texts: list[str], args: argparse.Namespace, comparison: Comparison
) -> Iterator[Row]:
    """What is measured after the rounds; traces come last, because they slow later launches."""
    is_cuda = evaluator.loaded.device.type == "cuda"
    if args.tf32 and is_cuda and args.dtype == "float32":
        exact = comparison.timings.labels[EVALUATOR]
        yield from verdicts.tf32_rows(evaluator, texts, exact, comparison.flops, args.rounds)
    if args.dtype != "float32":
        yield float32_row(evaluator, texts, args, comparison)
    if COMPILED in args.peers:
        yield from compare_compiled(evaluator, texts, args, comparison)
    if is_cuda:
        yield busy_row(device_busy_fraction(evaluator, texts))
    print_time_spent(evaluator, texts)


def print_time_spent(evaluator: Evaluator, texts: list[str]) -> None:
    of_what = "" if evaluator.loaded.device.type == "cuda" else " of all cores"
    phases = phase_shares(evaluator, texts)
    print_shares(f"\nWhere the evaluator's time goes, percent of the time{of_what}", phases)
    operators = operator_shares(evaluator, texts)
    print_shares("Inside the forward pass, percent", operators)


def print_shares(title: str, shares: dict[str, float]) -> None:
    print(title)
    for name, percent in shares.items():
        print(f"  {name:24} {percent:6.1f}")


def print_rows(rows: Sequence[Row]) -> None:
    words = {common.PASS: "pass", common.MISS: "MISSED", common.REPORTED: ""}
    for row in rows:
        word = words.get(row.status, f"{row.status}: {row.note}")
        print(f"{row.check:32} {row.expected or '':>12}  {row.measured or '':44} {word}")


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    if args.quick:
        args.rounds = QUICK_ROUNDS
    logging.disable(logging.INFO)
    transformers_logging.set_verbosity_error()
    config = read_config(args, args.dtype)
    texts = read_texts(config, QUICK_TEXTS if args.quick else args.rows)
    loaded = load_model(config)
    is_cuda = loaded.device.type == "cuda"
    startup.prepare_evaluation(on_cuda=is_cuda)
    size = f"{loaded.info.total_params / 1e6:.1f}M parameters"
    print(f"{len(texts):,} texts, {size}, {args.dtype}, {loaded.device}")

    # Written at each stage, so that a benchmark that is ended early keeps its rows.
    def save_round(comparison: Comparison) -> None:
        save(args.json, comparison_rows(comparison, args, len(texts), is_cuda=is_cuda))

    with closing(Evaluator(loaded, config)) as evaluator:
        comparison = compare(evaluator, texts, args.peers, args.rounds, save_round)
        rows = comparison_rows(comparison, args, len(texts), is_cuda=is_cuda)
        save(args.json, rows)
        for row in further_rows(evaluator, texts, args, comparison):
            rows.append(row)
            save(args.json, rows)
    ceiling = f"Matrix ceiling {comparison.ceiling / 1e9:,.1f} GFLOP/s in {args.dtype}"
    print(f"\n{ceiling}: at most {len(texts) / comparison.limit_s:,.0f} samples/s")
    print_rows(rows)
    return common.exit_code(rows)


def save(path: Path | None, rows: Sequence[Row]) -> None:
    if path is not None:
        common.write_rows(path, rows, Path(__file__).name)


if __name__ == "__main__":
    raise SystemExit(main())
