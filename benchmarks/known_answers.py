#!/usr/bin/env python
"""Bottlenecks that are known by construction, diagnosed by step 03, and what removing them saves.

Operators alone: a large matrix product, an element-wise chain, thousands of tiny operators. A real
Qwen2 classifier: a tokeniser that sleeps, batches of 90% padding, a layer made slow on purpose,
batches that are too small.
Bars: every verdict right, the planted layer on top, and the predicted saving within 15% of what
removing the cause saves. A machine that others use may spoil a try, so each check has three; the
row says which one it was.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd
import torch

from benchmarks import common, workloads
from benchmarks.common import MISS, Row, checked, within
from utils.diagnosis import roofline
from utils.diagnosis.bottleneck import classify_bottleneck
from utils.diagnosis.diagnose import diagnose
from utils.diagnosis.diagnosis_settings import DiagnosisSettings
from utils.diagnosis.findings import Findings, PresentSettings
from utils.diagnosis.measurement import measure_batch_size, observe_device
from utils.diagnosis.suggestions import rank_suggestions
from utils.diagnosis.verify import measure_suggestion
from utils.diagnosis.workload import Workload
from utils.schema.ceilings import Ceilings
from utils.schema.diagnosis import Suggestion
from utils.system.timing import time_interleaved

Check = Callable[[Path, torch.device], list[Row]]
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


@cache
def ceilings_file(device: torch.device) -> Path:
    """The file of the ceilings of a CUDA device, which take 20 s, once for all checks."""
    return Path(tempfile.mkdtemp()) / "ceilings.json"


def measure_ceilings(device: torch.device, file: Path) -> Ceilings:
    """The ceilings in float32, also saved to ``file`` for a diagnosis that reads them there.

    On a CPU, whose speed other programs change, they are measured just before each check.
    """
    if device.type == "cpu":
        return roofline.load_or_measure_ceilings(device, torch.float32, file)
    shared = ceilings_file(device)
    ceilings = roofline.load_or_measure_ceilings(device, torch.float32, shared)
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(shared, file)
    return ceilings


def operator_rows(name: str, folder: Path, device: torch.device) -> list[Row]:
    """The verdict on operators alone."""
    make, expected = OPERATORS[name]
    ceilings = measure_ceilings(device, folder / "ceilings.json")
    evidence = workloads.operator_evidence(make(device), ceilings, device)
    bottleneck = classify_bottleneck(evidence)
    row = checked(
        name,
        bottleneck.verdict == expected,
        expected=expected,
        measured=bottleneck.verdict,
        note=bottleneck.sentence,
    )
    return [row]


def tokeniser_rows(folder: Path, device: torch.device) -> list[Row]:
    """A tokeniser that sleeps: the verdict, and what the same without the sleep saves."""
    loaded, config = workloads.ready(folder, workloads.small_qwen2(device), [16] * 16)
    ceilings = measure_ceilings(loaded.device, config.files.ceilings)
    texts = [workloads.text_of(16)] * 16
    sleeping = replace(loaded, tokenizer=workloads.SleepingTokenizer(loaded.tokenizer, SLEEP_S))
    with torch.inference_mode():
        timed = measure_batch_size(sleeping, texts, 4, 64, ceilings)
        quick = measure_batch_size(loaded, texts, 4, 64, ceilings).evidence
        slow = observe_device(timed).evidence
    verdict = classify_bottleneck(slow).verdict
    suggestions = rank_suggestions(Findings(evidence=slow), PresentSettings.of(config))
    suggestion = _with_title(suggestions, "Faster tokeniser")
    saving_ms = slow.total_ms - quick.total_ms
    return [
        checked(
            "tokeniser that sleeps",
            verdict == "input-bound",
            expected="input-bound",
            measured=verdict,
        ),
        within(
            "tokeniser that sleeps: saving",
            saving_ms,
            None if suggestion is None else suggestion.saving_ms,
            "ms",
            relative=TOLERANCE,
        ),
    ]


def padding_rows(folder: Path, device: torch.device) -> list[Row]:
    """Batches of 90% padding: the first suggestion, and what grouping by length saves."""
    size, model = _decided_by_the_device(device)
    settings = (
        f"profiling.batch_sizes=[1, {size}]",
        "profiling.trace_steps=1",
        # Grouping by length is suggested only where it is not set.
        "evaluation.batching=dataset_order",
    )
    lengths = workloads.padded_lengths(size) * 4
    loaded, config = workloads.ready(folder, model, lengths, *settings)
    measure_ceilings(loaded.device, config.files.ceilings)
    diagnosis = diagnose(loaded, DiagnosisSettings.of(config))
    largest = diagnosis.batch_sizes[-1]
    first = diagnosis.suggestions[0]
    rows = [
        within("90% padding: counted", 0.9, largest.padding_fraction, "", absolute=1e-9),
        checked(
            "90% padding: the first suggestion",
            first.title == "Less padding",
            expected="Less padding",
            measured=first.title,
        ),
    ]
    tried = measure_suggestion(loaded, DiagnosisSettings.of(config), size, first)
    if tried.measured_speedup is None or tried.label_agreement is None:
        row = checked("90% padding: saving", False, expected="tried", measured=str(tried.reason))
        return [*rows, row]
    really_ms = largest.measured_ms * (1 - 1 / tried.measured_speedup)
    rows.append(
        within("90% padding: saving", really_ms, first.saving_ms, "ms a batch", relative=TOLERANCE)
    )
    rows.append(
        checked(
            "90% padding: labels",
            tried.label_agreement == 1,
            expected="all equal",
            measured=f"{tried.label_agreement:.2%}",
        )
    )
    return rows


def layer_rows(folder: Path, device: torch.device) -> list[Row]:
    """A layer's MLP made 20 ms slower: its name and index, and what removing the delay saves."""
    size, model = _decided_by_the_device(device, layers=4)
    settings = f"profiling.batch_sizes=[{size}]", "profiling.trace_steps=1"
    loaded, config = workloads.ready(folder, model, [32] * 2 * size, *settings)
    measure_ceilings(loaded.device, config.files.ceilings)
    rate = workloads.cycles_per_s(device) if device.type == "cuda" else 0.0
    slow = workloads.SlowModule(loaded.model.model.layers[2].mlp, SLOW_S, rate)
    loaded.model.model.layers[2].mlp = slow
    diagnosis = diagnose(loaded, DiagnosisSettings.of(config))
    layers = pd.read_csv(config.files.layers)
    top = layers.sort_values("self_time_ms", ascending=False).iloc[0]
    suggestion = _with_title(diagnosis.all_suggestions, f"Slow layer: {SLOW_LAYER}")
    workload = Workload(loaded, ([workloads.text_of(32)] * size,), 64)

    def run_with_delay(seconds: float) -> Callable[[], object]:
        def run() -> object:
            slow.seconds = seconds
            return workload.run(0, nullcontext)

        return run

    variants = {"slow": run_with_delay(SLOW_S), "quick": run_with_delay(0.0)}
    with torch.inference_mode():
        seconds, _ = time_interleaved(variants, ROUNDS)
    # A busy machine makes a round longer, never shorter.
    really_ms = 1e3 * (min(seconds["slow"]) - min(seconds["quick"]))
    return [
        checked(
            "slow layer: on top of layers.csv",
            (top["module"], top["layer_index"]) == (SLOW_LAYER, 2),
            expected=f"{SLOW_LAYER}, index 2",
            measured=f"{top['module']}, index {top['layer_index']:.0f}",
        ),
        within(
            "slow layer: saving",
            really_ms,
            None if suggestion is None else suggestion.saving_ms,
            "ms a batch",
            relative=TOLERANCE,
        ),
    ]


def batch_size_rows(folder: Path, device: torch.device) -> list[Row]:
    """Texts of one length in batches that are too small: the speed-up of batches twice as large."""
    name = "small batches: speed-up of twice the size"
    # Sorted by length, so that in file order none is padded.
    lengths = [8] * 16 + [32] * 16 + [64] * 16 + [128] * 16
    settings = "profiling.batch_sizes=[1, 2, 4]", "profiling.trace_steps=1"
    loaded, config = workloads.ready(folder, workloads.small_qwen2(device), lengths, *settings)
    measure_ceilings(loaded.device, config.files.ceilings)
    diagnosis = diagnose(loaded, DiagnosisSettings.of(config))
    suggestion = _with_title(diagnosis.all_suggestions, "Larger batches")
    if suggestion is None:
        return [checked(name, False, expected="a suggestion", measured="none")]
    tried = measure_suggestion(
        loaded, DiagnosisSettings.of(config), diagnosis.detail_batch_size, suggestion
    )
    if tried.measured_speedup is None:
        return [checked(name, False, expected="tried", measured=str(tried.reason))]
    row = within(
        name,
        tried.measured_speedup,
        suggestion.predicted_speedup,
        "times",
        relative=TOLERANCE,
    )
    return [row]


def _with_title(suggestions: Sequence[Suggestion], title: str) -> Suggestion | None:
    for suggestion in suggestions:
        if suggestion.title == title:
            return suggestion
    return None


def _decided_by_the_device(device: torch.device, layers: int = 2) -> tuple[int, Any]:
    """A batch size and a model whose forward is long beside the host's work to start it."""
    if device.type == "cuda":
        return 64, workloads.small_qwen2(device, layers=4, width=1024)
    return 16, workloads.small_qwen2(device, layers=layers)


def tried(check: Check, device: torch.device) -> list[Row]:
    """The rows of the first try without a miss, else of the last."""
    rows: list[Row] = []
    for number in range(1, TRIES + 1):
        with tempfile.TemporaryDirectory() as folder:
            rows = check(Path(folder), device)
        if any(row.status == MISS for row in rows):
            continue
        if number > 1:
            rows = [replace(row, note=f"{row.note} (try {number})".strip()) for row in rows]
        return rows
    return rows


def measure(args: argparse.Namespace) -> Iterator[Row]:
    device = common.resolve(args.device)
    checks: list[Check] = [
        *(partial(operator_rows, name) for name in OPERATORS),
        tokeniser_rows,
        padding_rows,
        layer_rows,
    ]
    if not args.quick:
        checks.append(batch_size_rows)
    for check in checks:
        yield from tried(check, device)


def main(argv: Sequence[str] | None = None) -> int:
    parser = common.make_parser(__doc__ or "", "python benchmarks/known_answers.py --quick")
    return common.run(parser, measure, argv)


if __name__ == "__main__":
    raise SystemExit(main())
