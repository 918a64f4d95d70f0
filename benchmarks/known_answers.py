#!/usr/bin/env python
"""Bottlenecks that are known by construction, found by step 03's analysis, and what removing them really brings.

Operators alone: a large matrix product, an element-wise chain, thousands of tiny operators. A real Qwen2 classifier: a tokeniser
that sleeps, batches of 90% padding, a layer made slow on purpose, batches that are too small.
Bars: every verdict right, the planted layer on top, and what is said to be recoverable within 15% of what removing it brings.
A machine that others use may spoil a try, so each answer has three; the row says which one it was.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd
import torch

from benchmarks import common, workloads
from benchmarks.common import MISS, Row, judged, within
from utils.analysis import roofline, runner
from utils.analysis.verdict import decide
from utils.analysis.verify import try_win
from utils.analysis.wins import find_wins
from utils.evaluation.comparison import time_interleaved

TRIES = 3
TOLERANCE = 0.15
SLEEP_S = SLOW_S = 0.02
SLOW_LAYER = "model.layers.2.mlp"
ROUNDS = 15

OPERATORS = {
    "large matrix product": (workloads.large_product, "compute-bound"),
    "element-wise chain over a large tensor": (workloads.element_wise_chain, "memory-bound"),
    "thousands of tiny operators": (workloads.tiny_operators, "overhead-bound"),
}


def operator_row(name: str, device: torch.device) -> Row:
    """The verdict on operators alone, ceilings measured just before."""
    make, expected = OPERATORS[name]
    found = decide(workloads.operator_evidence(make(device), roofline.measure(device, torch.float32), device))
    return judged(name, found.verdict == expected, expected=expected, measured=found.verdict, note=found.sentence)


def tokeniser_rows(folder: Path, device: torch.device) -> list[Row]:
    """A tokeniser that sleeps: the verdict, and the win against the same without the sleep."""
    loaded, config = workloads.ready(folder, workloads.small_qwen2(device), [16] * 16)
    ceilings = roofline.ceilings_of(loaded.device, torch.float32, config.files.ceilings)
    texts = [workloads.text_of(16)] * 16
    sleeping = replace(loaded, tokenizer=workloads.SleepingTokenizer(loaded.tokenizer, SLEEP_S))
    with torch.inference_mode():
        (_, slow), (_, quick) = (runner.measure_size(one, texts, 4, 64, ceilings, []) for one in (sleeping, loaded))
    found = decide(slow).verdict
    win_ms = next((float(win["win_ms"]) for win in find_wins(slow, config) if win["title"] == "slow tokeniser"), None)
    return [
        judged("tokeniser that sleeps", found == "input-bound", expected="input-bound", measured=found),
        within("tokeniser that sleeps: win", slow.total_ms - quick.total_ms, win_ms, "ms", relative=TOLERANCE),
    ]


def padding_rows(folder: Path, device: torch.device) -> list[Row]:
    """Batches of 90% padding: the first win, and what grouping the same texts by length brings."""
    size, model = _decided_by_the_device(device)
    settings = f"profiling.batch_sizes=[1, {size}]", "profiling.trace_steps=1"
    loaded, config = workloads.ready(folder, model, workloads.padded_lengths(size) * 4, *settings)
    found = runner.analyse(loaded, config)
    evidence, first = found["batch_sizes"][-1]["evidence"], found["wins"][0]
    rows = [
        within("90% padding: counted", 0.9, evidence["padding_fraction"], "", absolute=1e-9),
        judged("90% padding: the first win", first["title"] == "padding", expected="padding", measured=first["title"]),
    ]
    tried = try_win(loaded, config, size, first)
    if tried["reason"]:
        return [*rows, judged("90% padding: win", False, expected="tried", measured=tried["reason"])]
    really_ms = found["batch_sizes"][-1]["measured_ms"] * (1 - 1 / tried["measured_speedup"])
    rows.append(within("90% padding: win", really_ms, first["win_ms"], "ms a batch", relative=TOLERANCE))
    return [*rows, judged("90% padding: labels", tried["label_agreement"] == 1, expected="all equal",
                          measured=f"{tried['label_agreement']:.2%}")]


def layer_rows(folder: Path, device: torch.device) -> list[Row]:
    """A layer's MLP made 20 ms slower: found by name and index, and the win against the same without the slowness."""
    size, model = _decided_by_the_device(device, layers=4)
    loaded, config = workloads.ready(folder, model, [32] * 2 * size, f"profiling.batch_sizes=[{size}]", "profiling.trace_steps=1")
    rate = workloads.cycles_per_s(device) if device.type == "cuda" else 0.0
    slow = workloads.SlowModule(loaded.model.model.layers[2].mlp, SLOW_S, rate)
    loaded.model.model.layers[2].mlp = slow
    found = runner.analyse(loaded, config)
    top = pd.read_csv(config.files.layers).sort_values("self_time_ms", ascending=False).iloc[0]
    win = next((win for win in found["wins"] if win["title"] == f"slow layer: {SLOW_LAYER}"), None)
    workload = runner.Workload(loaded, ([workloads.text_of(32)] * size,), 64)

    def way(seconds: float) -> Callable[[], object]:
        def run() -> object:
            slow.seconds = seconds
            return workload.run(0, nullcontext)
        return run

    with torch.inference_mode():
        seconds, _ = time_interleaved({"slow": way(SLOW_S), "quick": way(0.0)}, ROUNDS)
    really_ms = 1e3 * (min(seconds["slow"]) - min(seconds["quick"]))  # a busy machine makes a round longer, never shorter
    return [
        judged("slow layer: on top of layers.csv", (top["module"], top["layer_index"]) == (SLOW_LAYER, 2),
               expected=f"{SLOW_LAYER}, index 2", measured=f"{top['module']}, index {top['layer_index']:.0f}"),
        within("slow layer: win", really_ms, win and win["win_ms"], "ms a batch", relative=TOLERANCE),
    ]


def batch_size_row(folder: Path, device: torch.device) -> Row:
    """Texts of one length in batches that are too small: the speed-up of batches twice as large."""
    lengths = [length for length in (8, 32, 64, 128) for _ in range(16)]  # sorted: in file order none is padded
    settings = "profiling.batch_sizes=[1, 2, 4]", "profiling.trace_steps=1"
    loaded, config = workloads.ready(folder, workloads.small_qwen2(device), lengths, *settings)
    found = runner.analyse(loaded, config)
    win = next((win for win in (*found["wins"], *found["further_wins"]) if win["title"] == "batch size"), None)
    if win is None:
        return judged("small batches: speed-up of twice the size", False, expected="a win", measured="none found")
    tried = try_win(loaded, config, found["detail_batch_size"], win)
    return within("small batches: speed-up of twice the size", tried["measured_speedup"], win["predicted_speedup"], "times",
                  relative=TOLERANCE, note=tried["reason"] or "")


def _decided_by_the_device(device: torch.device, layers: int = 2) -> tuple[int, Any]:
    """A batch size and a model whose forward is long beside the host's work to start it."""
    if device.type == "cuda":
        return 64, workloads.small_qwen2(device, layers=4, width=1024)
    return 16, workloads.small_qwen2(device, layers=layers)


def tried(check: Callable[[Path, torch.device], Row | Sequence[Row]], device: torch.device) -> list[Row]:
    """The rows of the first try without a miss, else of the last."""
    rows: list[Row] = []
    for number in range(1, TRIES + 1):
        with tempfile.TemporaryDirectory() as folder:
            found = check(Path(folder), device)
        rows = [found] if isinstance(found, Row) else list(found)
        if all(row.status != MISS for row in rows):
            return rows if number == 1 else [replace(row, note=f"{row.note} (try {number})".strip()) for row in rows]
    return rows


def body(args: argparse.Namespace) -> list[Row]:
    device = common.resolve(args.device)
    checks: list[Callable[[Path, torch.device], Row | Sequence[Row]]] = [
        *(lambda _, device, name=name: operator_row(name, device) for name in OPERATORS), tokeniser_rows, padding_rows, layer_rows,
    ]
    if not args.quick:
        checks.append(batch_size_row)
    return [row for check in checks for row in tried(check, device)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = common.make_parser(__doc__ or "", "python benchmarks/known_answers.py --quick")
    return common.run(parser, body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
