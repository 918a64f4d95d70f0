#!/usr/bin/env python
"""The evaluator compared with what a user would pick instead, and with the machine's limit.

All take turns over the same texts in one process. The rest is in the folder ``peers``.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
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
from benchmarks.peers.time_spent import operator_shares, phase_shares
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
    absent: dict[str, str]
    flops: float
    ceiling: float

    @property
    def limit_s(self) -> float:
        return self.flops / self.ceiling

    @property
    def evaluator_s(self) -> float:
        return median(self.timings.seconds[EVALUATOR])


def compare(
    evaluator: Evaluator, texts: list[str], peers: Sequence[str], num_rounds: int
) -> Comparison:
    """Time the evaluator and its peers in turn, and measure the limit."""
    loaded = evaluator.loaded
    with tempfile.TemporaryDirectory() as folder:
        contestants = prepare_contestants(evaluator, Path(folder), texts, peers)
        before = roofline.measure_ceilings(loaded.device, loaded.model.dtype).matmul_flops_per_s
        timings = time_rounds(contestants.running, texts, num_rounds)
        after = roofline.measure_ceilings(loaded.device, loaded.model.dtype).matmul_flops_per_s
    max_length = evaluator.config.profiling.max_length
    chunk = tokenize(loaded.tokenizer, texts, max_length, loaded.inputs)
    return Comparison(
        timings=timings,
        absent=contestants.absent,
        flops=real_flops(loaded.model, chunk.lengths),
        ceiling=max(before, after),
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
    rows = verdicts.peer_rows(
        timings, comparison.absent, args.peers, dtype=args.dtype, is_cuda=is_cuda
    )
    rows += verdicts.limit_rows(timings, share, dtype=args.dtype, is_cuda=is_cuda)
    name = f"{DEFAULT_DATASET_ROWS:,} such rows"
    return [*rows, common.reported(name, projection, expected="reported")]


def float32_row(
    evaluator: Evaluator, texts: list[str], args: argparse.Namespace, comparison: Comparison
) -> Row:
    """How many labels are those of the same model in float32."""
    exact = Evaluator(load_model(read_config(args, "float32")), evaluator.config)(texts)
    agreement = verdicts.label_agreement(exact, comparison.timings.labels[EVALUATOR])
    name = f"labels of {args.dtype} as float32"
    return common.reported(name, f"{agreement:.3%}", expected="reported")


def busy_row(fraction: float) -> Row:
    """The time in which a kernel ran, compared with its bar."""
    return common.checked(
        "device busy",
        fraction >= MIN_BUSY,
        expected=f">= {MIN_BUSY:.0%}",
        measured=f"{fraction:.1%}",
    )


def print_rows(rows: Sequence[Row]) -> None:
    words = {common.PASS: "pass", common.MISS: "MISSED", common.REPORTED: ""}
    for row in rows:
        print(f"{row.check:32} {row.expected:>12}  {row.measured:44} {words[row.status]}")


def print_shares(title: str, shares: dict[str, float]) -> None:
    print(title)
    for name, percent in shares.items():
        print(f"  {name:24} {percent:6.1f}")


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    logging.disable(logging.INFO)
    transformers_logging.set_verbosity_error()
    config = read_config(args, args.dtype)
    texts = read_texts(config, QUICK_TEXTS if args.quick else args.rows)
    loaded = load_model(config)
    is_cuda = loaded.device.type == "cuda"
    startup.prepare_evaluation(on_cuda=is_cuda)
    evaluator = Evaluator(loaded, config)
    size = f"{loaded.info.total_params / 1e6:.1f}M parameters"
    print(f"{len(texts):,} texts, {size}, {args.dtype}, {loaded.device}")
    num_rounds = QUICK_ROUNDS if args.quick else args.rounds
    comparison = compare(evaluator, texts, args.peers, num_rounds)
    rows = comparison_rows(comparison, args, len(texts), is_cuda=is_cuda)
    # Written at each stage, so that a benchmark that is ended early keeps its rows.
    save(args.json, rows)
    if args.tf32 and is_cuda and args.dtype == "float32":
        exact = comparison.timings.labels[EVALUATOR]
        rows += verdicts.tf32_rows(evaluator, texts, exact, comparison.flops, num_rounds)
        save(args.json, rows)
    if args.dtype != "float32":
        rows.append(float32_row(evaluator, texts, args, comparison))
        save(args.json, rows)
    operators, busy = operator_shares(evaluator, texts)
    if busy is not None:
        rows.append(busy_row(busy))
        save(args.json, rows)
    ceiling = f"Matrix ceiling {comparison.ceiling / 1e9:,.1f} GFLOP/s in {args.dtype}"
    print(f"\n{ceiling}: at most {len(texts) / comparison.limit_s:,.0f} samples/s")
    print_rows(rows)
    of_what = "" if is_cuda else " of all cores"
    phases = phase_shares(evaluator, texts)
    print_shares(f"\nWhere the evaluator's time goes, percent of the time{of_what}", phases)
    print_shares("Inside the forward pass, percent", operators)
    return 0


def save(path: Path | None, rows: Sequence[Row]) -> None:
    if path is not None:
        common.write_rows(path, rows, Path(__file__).name)


if __name__ == "__main__":
    raise SystemExit(main())
