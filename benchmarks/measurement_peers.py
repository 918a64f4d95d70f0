#!/usr/bin/env python
"""The sweep's figures against torch.utils.benchmark and MLPerf LoadGen: same model, inputs and threads, one process.

All tools run the same closure or the same steps on the same batch: end to end is tokenise, copy, forward, copy back; forward
alone is the model's call on inputs that lie on the device. The tools take short turns in an order that alternates by
round, so that a machine that changes is in all figures alike; ours against another is the median of the rounds' ratios.
Bar: ours within 3% of both references at every batch size.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.utils.benchmark import Timer

from benchmarks import common, workloads
from benchmarks.common import Row
from utils.config_loader import load_config
from utils.core.files import PROJECT_ROOT
from utils.profiler import InferenceProfiler

BATCH_SIZES = (1, 8, 32)
TOLERANCE = 0.03
MAX_LENGTH = 512
TOKENS = 64
"""Length of each text where the embedded model is not built."""
MIN_QUERIES = 64
"""Fewest queries from which LoadGen gives a 90th percentile: with fewer it calls its run invalid."""
LOADGEN_FIX = "pip install mlcommons-loadgen (wheels for Linux on x86-64)"
SUMMARY = {
    "SingleStream": r"50\.00 percentile latency \(ns\)\s*:\s*(\d+)",
    "Offline": r"Samples per second:\s*([\d.]+)",
}
OPTIMUM_TRANSFORMERS = "transformers==4.57.*"
OPTIMUM_PEER = Path(__file__).with_name("optimum_peer.py")
OURS, TIMER, SINGLE, OFFLINE = (
    "ours",
    "torch.utils.benchmark",
    "LoadGen SingleStream",
    "LoadGen Offline",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """One batch, which every tool runs again and again."""

    model: Any
    tokenizer: Any
    device: torch.device
    texts: tuple[str, ...]
    seconds: float
    """How long each tool measures in each round."""

    def end_to_end(self) -> torch.Tensor:
        """From the texts to their logits on the host."""
        with torch.inference_mode():
            encoded = self.tokenizer(
                list(self.texts),
                padding=True,
                truncation=True,
                max_length=MAX_LENGTH,
                return_tensors="pt",
            )
            batch = {
                name: encoded[name].to(self.device) for name in ("input_ids", "attention_mask")
            }
            return self.model(**batch).logits.float().cpu()  # type: ignore[no-any-return]

    def forward(self) -> Callable[[], None]:
        """The model's call alone, on inputs that lie on the device, to the end of its last kernel."""
        encoded = self.tokenizer(
            list(self.texts),
            padding=True,
            truncation=True,
            max_length=MAX_LENGTH,
            return_tensors="pt",
        )
        batch = {name: encoded[name].to(self.device) for name in ("input_ids", "attention_mask")}

        def call() -> None:
            with torch.inference_mode():
                self.model(**batch)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        return call


def ours(work: Workload, batch_s: float) -> dict[str, float]:
    """Milliseconds a batch and batches a second, as the sweep gives them."""
    size, runs = len(work.texts), 2
    batches = max(8, round(work.seconds / batch_s / runs))
    profiler = InferenceProfiler(work.model, work.tokenizer, device=work.device)
    (record,) = profiler.profile_multiple_batch_sizes(
        list(work.texts) * batches,
        [size],
        num_runs=runs,
        max_length=MAX_LENGTH,
        num_warmup_runs=0,
        seed=0,
        on_event=lambda line: None,
    )
    latency, rate = record.latency_per_batch_ms_median, record.throughput_batches_per_sec_median
    assert latency is not None and rate is not None and record.forward_ms_mean is not None
    return {"latency": latency, "forward": record.forward_ms_mean, "rate": rate}


def timer_ms(function: Callable[[], Any], seconds: float, statistic: str = "median") -> float:
    """Median or mean milliseconds a call by torch.utils.benchmark, which runs on one thread unless told otherwise."""
    timer = Timer("function()", globals={"function": function}, num_threads=torch.get_num_threads())
    return 1e3 * float(getattr(timer.blocked_autorange(min_run_time=seconds), statistic))


def loadgen(work: Workload, scenario: str, batch_s: float) -> float:
    """LoadGen's own summary: median nanoseconds a query (SingleStream) or samples a second (Offline); a sample is one batch."""
    import mlperf_loadgen as lg

    threads = torch.get_num_threads()

    def issue(queries: list[Any]) -> None:
        if (
            torch.get_num_threads() != threads
        ):  # LoadGen may call from a thread of its own, which starts with all cores
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
        log.log_output.outdir, log.log_output.copy_summary_to_stdout, log.enable_trace = (
            folder,
            False,
            False,
        )
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
    """The figure in LoadGen's summary."""
    found = re.search(SUMMARY[scenario], text)
    if found is None:
        raise ValueError(f"LoadGen's summary of {scenario} has no figure:\n{text}")
    return float(found[1])


def rounds_of(work: Workload, rounds: int, with_loadgen: bool) -> dict[str, list[float]]:
    """Each tool's figure in each round: latency in ms, ``rate`` in batches a second."""
    forward = work.forward()
    for _ in range(3):
        work.end_to_end()
        forward()
    batch_s = timer_ms(work.end_to_end, 0.1) / 1e3
    figures: dict[str, list[float]] = {}

    def keep(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    def measure_ours() -> None:
        for name, value in ours(work, batch_s).items():
            keep(f"{OURS} {name}", value)

    turns: list[Callable[[], None]] = [
        measure_ours,
        lambda: keep(f"{TIMER} latency", timer_ms(work.end_to_end, work.seconds)),
        lambda: keep(
            f"{TIMER} forward", timer_ms(forward, work.seconds, "mean")
        ),  # ours is a mean, too
    ]
    if with_loadgen:
        turns += [
            lambda: keep(f"{SINGLE} latency", loadgen(work, "SingleStream", batch_s) / 1e6),
            lambda: keep(f"{OFFLINE} rate", loadgen(work, "Offline", batch_s)),
        ]
    for i in range(rounds):
        for turn in turns if i % 2 == 0 else reversed(turns):
            turn()
    return figures


def peer_rows(size: int, figures: dict[str, list[float]]) -> Iterator[Row]:
    """Ours against each reference; the spread of the rounds' own ratios says what one round is worth."""
    for reference, what, unit, word in (
        (TIMER, "latency", "ms", "latency a batch"),
        (SINGLE, "latency", "ms", "latency a batch"),
        (OFFLINE, "rate", "batches/s", "throughput"),
        (TIMER, "forward", "ms", "forward alone, mean"),
    ):
        theirs = figures.get(f"{reference} {what}")
        check = f"batches of {size}, {word}: ours against {reference}"
        if theirs is None:
            yield common.not_here(check, LOADGEN_FIX)
            continue
        mine = figures[f"{OURS} {what}"]
        ratios = [a / b - 1 for a, b in zip(mine, theirs, strict=True)]
        first, _, third = statistics.quantiles(ratios, n=4)
        note = f"half of the rounds {first:+.1%} to {third:+.1%}"
        expected, apart = statistics.median(theirs), statistics.median(ratios)
        yield Row(
            check=check,
            expected=expected,
            measured=expected * (1 + apart),
            unit=unit,
            error=f"{apart:+.2%}",
            note=note,
            status=common.verdict(ratios, -TOLERANCE, TOLERANCE),
        )


def load(device: torch.device) -> tuple[Any, Any, list[str], str, Path | None]:
    """The embedded model and texts from its corpus, or a small Qwen2 with random weights where that is not built."""
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


def optimum_rows(
    model_dir: Path | None, device: torch.device, sizes: Sequence[int], own_ms: dict[int, float]
) -> Iterator[Row]:
    """optimum-benchmark in an environment of its own, inline and in a process of its own; forward on inputs that it makes up."""
    names = [
        f"batches of {size}, forward: optimum-benchmark, {launcher}"
        for launcher in ("inline", "process")
        for size in sizes
    ]
    if model_dir is None:
        yield from (
            common.not_here(name, "needs the embedded model: python scripts/build_demo_assets.py")
            for name in names
        )
        return
    try:
        python = optimum_environment()
    except subprocess.CalledProcessError as error:
        yield from (
            common.not_here(name, f"its environment cannot be made: {str(error.stderr)[-200:]}")
            for name in names
        )
        return
    for launcher in ("inline", "process"):
        for size in sizes:
            check = f"batches of {size}, forward: optimum-benchmark, {launcher}"
            done = subprocess.run(
                [
                    str(python),
                    str(OPTIMUM_PEER),
                    launcher,
                    str(model_dir),
                    str(size),
                    str(TOKENS),
                    device.type,
                ],
                capture_output=True,
                text=True,
                timeout=600,
                cwd=model_dir,  # it leaves a log file where it runs
            )
            if done.returncode:
                yield common.not_here(check, f"it failed: {done.stderr.strip().splitlines()[-1:]}")
                continue
            theirs = json.loads(done.stdout.splitlines()[-1])["latency_ms"]
            own, note = own_ms[size], "expected is our forward at its shape"
            yield common.reported(
                check, theirs, "ms", note, expected=own, error=f"{theirs / own - 1:+.1%}"
            )


def optimum_environment() -> Path:
    """The interpreter of ``.bench-env``, made where it is missing: optimum-benchmark needs another transformers than ours."""
    folder = PROJECT_ROOT / ".bench-env"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        torch_version = f"torch=={torch.__version__.split('+')[0]}"
        subprocess.run(
            [
                str(python),
                "-m",
                "pip",
                "install",
                "--quiet",
                torch_version,
                "optimum-benchmark",
                OPTIMUM_TRANSFORMERS,
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        (folder / "ready").touch()
    return python


def forward_at_shape(
    model: Any, device: torch.device, sizes: Sequence[int], seconds: float
) -> dict[int, float]:
    """Our forward on texts of ``TOKENS`` tokens, which is the shape that optimum-benchmark is given."""
    tokenizer, text = workloads.word_tokenizer(), workloads.text_of(TOKENS)
    found = {}
    for size in sizes:
        work = Workload(
            model=model, tokenizer=tokenizer, device=device, texts=(text,) * size, seconds=seconds
        )
        work.end_to_end()
        found[size] = ours(work, timer_ms(work.end_to_end, 0.1) / 1e3)["forward"]
    return found


def body(args: argparse.Namespace) -> list[Row]:
    device = common.resolve(args.device)
    rounds, seconds = (2, 0.3) if args.quick else (11, 0.4)
    rounds = args.rounds or rounds
    with_loadgen = importlib.util.find_spec("mlperf_loadgen") is not None
    model, tokenizer, texts, name, folder = load(device)
    print(
        f"{name} on {device}, {torch.get_num_threads()} threads; {rounds} rounds of {seconds:g} s for each tool\n"
    )
    rows: list[Row] = []
    for size in BATCH_SIZES:
        work = Workload(
            model=model,
            tokenizer=tokenizer,
            device=device,
            texts=tuple(texts[:size]),
            seconds=seconds,
        )
        rows += peer_rows(size, rounds_of(work, rounds, with_loadgen))
    if args.optimum_benchmark:
        rows += optimum_rows(
            folder, device, BATCH_SIZES, forward_at_shape(model, device, BATCH_SIZES, seconds)
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = common.make_parser(__doc__ or "", "python benchmarks/measurement_peers.py --quick")
    common.add_rounds(parser)
    parser.add_argument(
        "--optimum-benchmark",
        action="store_true",
        help="also optimum-benchmark, in an environment made for it",
    )
    return common.run(parser, body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
