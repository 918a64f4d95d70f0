#!/usr/bin/env python
"""The sweep's results compared with torch.utils.benchmark and MLPerf LoadGen.

Model, inputs, threads and process are the same. All tools run the same closure or the same steps on
the same batch: end to end is tokenise, copy, forward, copy back; forward alone is the model's call
on inputs that lie on the device. The tools take short turns in an order that alternates by round,
so that a change of the machine is in all results alike; the sweep is compared with another tool by
the median of the rounds' ratios.
Bar: the sweep within 3% of both references at every batch size.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.utils.benchmark import Timer

from benchmarks import common, workloads
from benchmarks.common import Row
from benchmarks.peers.optimum import optimum_rows
from utils.config_loader import load_config
from utils.profiler import InferenceProfiler

BATCH_SIZES = (1, 8, 32)
TOLERANCE = 0.03
MAX_LENGTH = 512
# Length of each text where the embedded model is not built.
TOKENS = 64
# The fewest queries from which LoadGen gives a 90th percentile: with fewer its run is invalid.
MIN_QUERIES = 64
LOADGEN_FIX = "pip install mlcommons-loadgen (wheels for Linux on x86-64)"
SUMMARY = {
    "SingleStream": r"50\.00 percentile latency \(ns\)\s*:\s*(\d+)",
    "Offline": r"Samples per second:\s*([\d.]+)",
}
SWEEP = "the sweep"
TIMER = "torch.utils.benchmark"
SINGLE = "LoadGen SingleStream"
OFFLINE = "LoadGen Offline"
# Reference, what both measure, its unit, and its name in the table.
COMPARISONS = (
    (TIMER, "latency", "ms", "latency a batch"),
    (SINGLE, "latency", "ms", "latency a batch"),
    (OFFLINE, "rate", "batches/s", "throughput"),
    (TIMER, "forward", "ms", "forward alone, mean"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """One batch, which every tool runs again and again."""

    model: Any
    tokenizer: Any
    device: torch.device
    texts: tuple[str, ...]
    # How long each tool measures in each round.
    seconds: float

    def end_to_end(self) -> torch.Tensor:
        """From the texts to their logits on the host."""
        with torch.inference_mode():
            return self.model(**self.batch()).logits.float().cpu()  # type: ignore[no-any-return]

    def batch(self) -> dict[str, torch.Tensor]:
        """The texts as inputs that lie on the device."""
        encoded = self.tokenizer(
            list(self.texts),
            padding=True,
            truncation=True,
            max_length=MAX_LENGTH,
            return_tensors="pt",
        )
        return {name: encoded[name].to(self.device) for name in ("input_ids", "attention_mask")}

    def forward(self) -> Callable[[], None]:
        """The model's call alone, on inputs that are ready, to the end of its last kernel."""
        batch = self.batch()

        def call() -> None:
            with torch.inference_mode():
                self.model(**batch)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        return call


def sweep(work: Workload, batch_s: float) -> dict[str, float]:
    """Milliseconds a batch and batches a second, as the sweep gives them."""
    size, runs = len(work.texts), 2
    batches = max(8, round(work.seconds / batch_s / runs))
    profiler = InferenceProfiler(work.model, work.tokenizer, device=work.device)
    texts = list(work.texts) * batches
    record = workloads.sweep_one_size(
        profiler, texts, size, runs, max_length=MAX_LENGTH, num_warmup_runs=0
    )
    latency = record.latency_per_batch_ms_median
    rate = record.throughput_batches_per_sec_median
    assert latency is not None and rate is not None and record.forward_ms_mean is not None
    return {"latency": latency, "forward": record.forward_ms_mean, "rate": rate}


def timer_ms(function: Callable[[], Any], seconds: float, statistic: str = "median") -> float:
    """Median or mean milliseconds a call by torch.utils.benchmark."""
    # Its own default is one thread.
    timer = Timer("function()", globals={"function": function}, num_threads=torch.get_num_threads())
    return 1e3 * float(getattr(timer.blocked_autorange(min_run_time=seconds), statistic))


def loadgen(work: Workload, scenario: str, batch_s: float) -> float:
    """LoadGen's own summary; one of its samples is one batch.

    Returns:
        Median nanoseconds a query (SingleStream) or samples a second (Offline).
    """
    import mlperf_loadgen as lg

    threads = torch.get_num_threads()

    def issue(queries: list[Any]) -> None:
        # LoadGen may call from a thread of its own, which starts with all cores.
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        for query in queries:
            work.end_to_end()
            lg.QuerySamplesComplete([lg.QuerySampleResponse(query.id, 0, 0)])

    count = max(MIN_QUERIES, round(work.seconds / batch_s))
    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = round(1e3 * work.seconds)
    settings.min_query_count = 1 if scenario == "Offline" else count
    settings.single_stream_expected_latency_ns = round(1e9 * batch_s)
    settings.offline_expected_qps = count / work.seconds
    with tempfile.TemporaryDirectory() as folder:
        log = lg.LogSettings()
        log.log_output.outdir = folder
        log.log_output.copy_summary_to_stdout = False
        log.enable_trace = False
        sut = lg.ConstructSUT(issue, lambda: None)
        qsl = lg.ConstructQSL(MIN_QUERIES, MIN_QUERIES, lambda indices: None, lambda indices: None)
        try:
            lg.StartTestWithLogSettings(
                sut, qsl, settings, log, os.path.join(folder, "audit.config")
            )
        finally:
            lg.DestroyQSL(qsl)
            lg.DestroySUT(sut)
        return read_summary(
            (Path(folder) / "mlperf_log_summary.txt").read_text(encoding="utf-8"), scenario
        )


def read_summary(text: str, scenario: str) -> float:
    """The result in LoadGen's summary."""
    match = re.search(SUMMARY[scenario], text)
    if match is None:
        raise ValueError(f"LoadGen's summary of {scenario} has no result:\n{text}")
    return float(match[1])


def rounds_of(work: Workload, rounds: int, with_loadgen: bool) -> dict[str, list[float]]:
    """Each tool's result in each round: latency in ms, ``rate`` in batches a second."""
    forward = work.forward()
    for _ in range(3):
        work.end_to_end()
        forward()
    batch_s = timer_ms(work.end_to_end, 0.1) / 1e3
    results: dict[str, list[float]] = {}

    def save(name: str, value: float) -> None:
        results.setdefault(name, []).append(value)

    def measure_sweep() -> None:
        for name, value in sweep(work, batch_s).items():
            save(f"{SWEEP} {name}", value)

    turns: list[Callable[[], None]] = [
        measure_sweep,
        lambda: save(f"{TIMER} latency", timer_ms(work.end_to_end, work.seconds)),
        # The sweep's forward is a mean, too.
        lambda: save(f"{TIMER} forward", timer_ms(forward, work.seconds, "mean")),
    ]
    if with_loadgen:
        turns += [
            lambda: save(f"{SINGLE} latency", loadgen(work, "SingleStream", batch_s) / 1e6),
            lambda: save(f"{OFFLINE} rate", loadgen(work, "Offline", batch_s)),
        ]
    for i in range(rounds):
        for turn in turns if i % 2 == 0 else reversed(turns):
            turn()
    return results


def peer_rows(size: int, results: dict[str, list[float]]) -> Iterator[Row]:
    """The sweep compared with each reference, and the spread of the rounds' own ratios."""
    for reference, what, unit, word in COMPARISONS:
        reference_values = results.get(f"{reference} {what}")
        check = f"batches of {size}, {word}: the sweep against {reference}"
        if reference_values is None:
            yield common.not_here(check, LOADGEN_FIX)
            continue
        sweep_values = results[f"{SWEEP} {what}"]
        ratios = [a / b - 1 for a, b in zip(sweep_values, reference_values, strict=True)]
        first, _, third = statistics.quantiles(ratios, n=4)
        note = f"half of the rounds {first:+.1%} to {third:+.1%}"
        expected = statistics.median(reference_values)
        difference = statistics.median(ratios)
        yield Row(
            check=check,
            expected=expected,
            measured=expected * (1 + difference),
            unit=unit,
            error=f"{difference:+.2%}",
            note=note,
            status=common.verdict(ratios, -TOLERANCE, TOLERANCE),
        )


def load(device: torch.device) -> tuple[Any, Any, list[str], str, Path | None]:
    """The embedded model and texts from its corpus, or a small Qwen2 with random weights."""
    config = load_config("configs/demo.yaml", [f"model.device={device}"])
    folder = config.embedded_dir
    if not (folder / "stamp.json").exists():
        text = workloads.text_of(TOKENS)
        model = workloads.small_qwen2(device)
        return (
            model,
            workloads.word_tokenizer(),
            [text] * max(BATCH_SIZES),
            "Qwen2 of 2 layers, random weights",
            None,
        )
    import pyarrow.parquet as pq

    from utils.model_utils import load_model

    loaded = load_model(config)
    texts = pq.read_table(folder / "corpus_eval.parquet", columns=["text"])["text"].to_pylist()
    middle = sorted(texts[: 50 * max(BATCH_SIZES)], key=len)
    start = (len(middle) - max(BATCH_SIZES)) // 2
    return (
        loaded.model,
        loaded.tokenizer,
        middle[start : start + max(BATCH_SIZES)],
        "the embedded model",
        folder / "model",
    )


def forward_at_shape(
    model: Any, device: torch.device, sizes: Sequence[int], seconds: float
) -> dict[int, float]:
    """Milliseconds of the forward by the sweep, on the shape that optimum-benchmark is given."""
    tokenizer, text = workloads.word_tokenizer(), workloads.text_of(TOKENS)
    forward_ms = {}
    for size in sizes:
        work = Workload(
            model=model, tokenizer=tokenizer, device=device, texts=(text,) * size, seconds=seconds
        )
        work.end_to_end()
        forward_ms[size] = sweep(work, timer_ms(work.end_to_end, 0.1) / 1e3)["forward"]
    return forward_ms


def measure(args: argparse.Namespace) -> Iterator[Row]:
    device = common.resolve(args.device)
    rounds, seconds = (2, 0.3) if args.quick else (11, 0.4)
    rounds = args.rounds or rounds
    with_loadgen = importlib.util.find_spec("mlperf_loadgen") is not None
    model, tokenizer, texts, name, folder = load(device)
    print(
        f"{name} on {device}, {torch.get_num_threads()} threads; "
        f"{rounds} rounds of {seconds:g} s for each tool\n"
    )
    for size in BATCH_SIZES:
        work = Workload(
            model=model,
            tokenizer=tokenizer,
            device=device,
            texts=tuple(texts[:size]),
            seconds=seconds,
        )
        yield from peer_rows(size, rounds_of(work, rounds, with_loadgen))
    if args.optimum_benchmark:
        own_ms = forward_at_shape(model, device, BATCH_SIZES, seconds)
        yield from optimum_rows(folder, device, TOKENS, own_ms)


def main(argv: Sequence[str] | None = None) -> int:
    parser = common.make_parser(__doc__ or "", "python benchmarks/measurement_peers.py --quick")
    common.add_rounds(parser)
    parser.add_argument(
        "--optimum-benchmark",
        action="store_true",
        help="also optimum-benchmark, in an environment made for it",
    )
    return common.run(parser, measure, argv)


if __name__ == "__main__":
    raise SystemExit(main())
