"""The whole analysis of a loaded model: measure each batch size that matters, trace one, judge, write the files."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch.profiler import record_function

from utils import costs
from utils.analysis import from_trace, layers, operators, roofline, tracing, verdict
from utils.config_loader import Config
from utils.core import console
from utils.core.artifacts import SCHEMA_VERSION, read_json, write_json, write_text
from utils.core.errors import UserError
from utils.data.reader import sample_texts
from utils.model_utils import LoadedModel, encode_batch

STEP_02 = "python scripts/02_baseline_inference.py"
MOST_BATCHES = 8
"""Batches of one size that are timed and counted; more add little but time."""
REPEATS = 3
SECONDS_PER_SIZE = 4.0
"""With large models fewer batches are taken, so that timing one size stays about this short (one batch at least)."""
DOUBLED_UP_TO_S = 0.25
"""A forward that takes longer is not decided by the host's work to start its operators: doubling it says nothing new."""

Span = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Workload:
    """Batches of texts and the model that classifies them."""

    loaded: LoadedModel
    batches: tuple[list[str], ...]
    max_length: int

    def run(self, index: int, span: Span, encode: Callable[[Callable[[], Any]], Any] = lambda run: run()) -> None:
        """One batch from texts to logits on the host, each phase in a ``span``."""
        with span("tokenize"):
            encoded = encode(partial(self._encode, index))
        with span("host_to_device"):
            inputs = self._to_device(encoded)
        with span("forward"):
            logits = self.loaded.model(**inputs).logits
        with span("device_to_host"):
            logits.float().cpu()

    def inputs(self, index: int) -> dict[str, torch.Tensor]:
        return self._to_device(self._encode(index))

    def forward(self, inputs: dict[str, torch.Tensor]) -> object:
        return self.loaded.model(**inputs).logits

    def _encode(self, index: int) -> dict[str, torch.Tensor]:
        return encode_batch(self.loaded.tokenizer, self.batches[index % len(self.batches)], self.max_length)

    def _to_device(self, encoded: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor.to(self.loaded.device) for name, tensor in encoded.items()}


def analyse(loaded: LoadedModel, config: Config) -> dict[str, Any]:
    """Measure, trace and judge; write trace, stacks, operators, layers and bottlenecks.

    Returns:
        What ``bottlenecks.json`` holds.

    Raises:
        DataError: no data set.
        UserError: not even the smallest batch fits into memory.
    """
    warnings: list[str] = []
    sizes, optimal = sizes_to_profile(config, warnings)
    texts = sample_texts(config.data_file, config.dataset.sample_sizes[0], config.profiling.seed)
    measured: dict[int, tuple[Workload, verdict.Evidence]] = {}
    with torch.inference_mode():
        ceilings = roofline.measure(loaded.device, getattr(torch, loaded.info.dtype))
        for size in console.progress(sizes, what="Profiling batch sizes", unit="size"):
            try:
                measured[size] = measure_size(loaded, texts, size, config.profiling.max_length, ceilings, warnings)
            except torch.OutOfMemoryError:
                warnings.append(f"Batch size {size} does not fit into memory and is left out.")
                torch.cuda.empty_cache()
        if not measured:
            fix = "--set profiling.batch_sizes=[1] or a smaller profiling.max_length"
            raise UserError("No batch size fits into memory.", where="profiling.batch_sizes", fix=fix)
        detail = optimal if optimal in measured else max(measured)
        return _detail(measured, detail, ceilings, config, warnings)


def sizes_to_profile(config: Config, warnings: list[str]) -> tuple[tuple[int, ...], int]:
    """1, the optimal and the largest batch size of the sweep, and which is optimal; without a sweep the config's ends."""
    sizes = config.profiling.batch_sizes
    if not config.files.metrics.exists():
        warnings.append(
            f"{config.files.metrics.name} is not there (step 02 makes it: {STEP_02}): profiled are the first and the last "
            f"of profiling.batch_sizes, and {sizes[-1]} stands for the optimal one."
        )
        return tuple(dict.fromkeys((sizes[0], sizes[-1]))), sizes[-1]
    metrics = read_json(config.files.metrics, made_by=STEP_02)
    if metrics.get("config", {}).get("model") != config.to_dict()["model"]:
        warnings.append("baseline_metrics.json was measured with other model settings; its batch sizes are used all the same.")
    fitting = [row["batch_size"] for row in metrics["batch_size_profiling"] if row["status"] == "ok"] or [min(sizes)]
    optimal = (metrics.get("optimal_batch_size") or {}).get("batch_size", max(fitting))
    return tuple(sorted({1, optimal, max(fitting)})), optimal


def make_batches(texts: Sequence[str], size: int, warnings: list[str]) -> tuple[list[str], ...]:
    """Full batches in order, at most eight; one smaller batch where there are not texts enough, with a warning."""
    full = [list(texts[start : start + size]) for start in range(0, len(texts) - size + 1, size)]
    if full:
        return tuple(full[:MOST_BATCHES])
    warnings.append(f"Batch size {size} is profiled on {len(texts)} texts: dataset.sample_sizes has no more.")
    return (list(texts),)


def measure_size(
    loaded: LoadedModel, texts: Sequence[str], size: int, max_length: int, ceilings: roofline.Ceilings, warnings: list[str]
) -> tuple[Workload, verdict.Evidence]:
    """Time (untraced), count and, on CUDA, observe the device at one batch size."""
    workload = Workload(loaded, make_batches(texts, size, warnings), max_length)
    one_s = min(roofline.timed(lambda: workload.run(0, nullcontext), loaded.device) for _ in range(2))
    affordable = max(1, int(SECONDS_PER_SIZE / REPEATS / one_s))
    workload = Workload(loaded, workload.batches[:affordable], max_length)
    batches = [workload.inputs(index) for index in range(len(workload.batches))]
    phases = time_phases(workload)
    counted = costs.count(lambda: [workload.forward(inputs) for inputs in batches])
    number = len(batches)
    limited: dict[str, float] = defaultdict(float)
    for cost in counted:
        seconds, limit = operators.attainable_s(cost, ceilings)
        limited[limit] += seconds / number * 1e3
    real = sum(int(inputs["attention_mask"].sum()) for inputs in batches)
    busy = tracing.device_busy_ms(lambda i: workload.forward(batches[i % number]), steps=number, device=loaded.device)
    return workload, verdict.Evidence(
        device=loaded.device.type, batch_size=size, **phases,
        matmul_limited_ms=limited["matmul"], copy_limited_ms=limited["copy"],
        op_calls=sum(cost.calls for cost in counted) / number, dispatch_us=ceilings.dispatch_s * 1e6,
        flops=sum(cost.flops or 0 for cost in counted) / number,
        bytes_moved=sum(cost.bytes_moved for cost in counted) / number, device_busy_ms=busy,
        doubling_growth=_doubling_growth(workload, batches[0]),
        padding_fraction=1 - real / sum(inputs["attention_mask"].numel() for inputs in batches),
        unknown_operators=tuple(sorted({cost.name for cost in counted if cost.flops is None})),
    )


def time_phases(workload: Workload) -> dict[str, float]:
    """Milliseconds of each phase per batch: the fastest repeat, as the ceilings are, then the mean of the batches."""
    sums: dict[str, float] = defaultdict(float)
    for index in range(len(workload.batches)):
        seconds: dict[str, list[float]] = defaultdict(list)

        @contextmanager
        def stopwatch(phase: str, seconds: dict[str, list[float]] = seconds) -> Iterator[None]:
            begin = time.perf_counter()
            yield
            roofline.synchronize(workload.loaded.device)
            seconds[phase].append(time.perf_counter() - begin)

        for _ in range(1 + REPEATS):  # the first warms up at this shape
            workload.run(index, stopwatch)
        for phase, values in seconds.items():
            sums[f"{phase}_ms"] += min(values[1:]) / len(workload.batches) * 1e3
    return dict(sums)


def _doubling_growth(workload: Workload, inputs: dict[str, torch.Tensor]) -> float | None:
    """By how much the forward of a batch put twice into one takes longer; on the CPU only: CUDA has better evidence."""
    device = workload.loaded.device
    once = partial(workload.forward, inputs)
    if device.type != "cpu" or roofline.timed(once, device) > DOUBLED_UP_TO_S:
        return None
    twice = partial(workload.forward, {name: torch.cat((tensor, tensor)) for name, tensor in inputs.items()})
    pairs = [(roofline.timed(once, device), roofline.timed(twice, device)) for _ in range(1 + REPEATS)][1:]
    return min(second for _, second in pairs) / min(first for first, _ in pairs) - 1


def _in_new_thread(run: Callable[[], Any]) -> Any:
    """Run where the tracer does not look: inside, tokenizers make thousands of Python calls a text."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(run).result()


def _detail(
    measured: dict[int, tuple[Workload, verdict.Evidence]], size: int, ceilings: roofline.Ceilings, config: Config,
    warnings: list[str],
) -> dict[str, Any]:
    """Operators, layers, stacks and wins of one batch size; then everything into files."""
    workload, evidence = measured[size]
    loaded, files, steps = workload.loaded, config.files, config.profiling.trace_steps
    step = partial(workload.run, span=record_function, encode=_in_new_thread)
    with layers.named_in_trace(loaded.model):
        traced = tracing.trace(step, steps=steps, device=loaded.device, trace_file=files.trace)
    bare = tracing.bare_events(step, steps=steps, device=loaded.device) if loaded.device.type == "cuda" else []
    warnings += traced.warnings
    traced_inputs = [workload.inputs(index) for index in range(steps)]
    counted = costs.count(lambda: [workload.forward(inputs) for inputs in traced_inputs])
    table = operators.join(traced.operators, counted, steps, ceilings)
    forwards = [partial(workload.forward, workload.inputs(index)) for index in range(len(workload.batches))]
    layer_table, by_layers = layers.time_layers(loaded.model, forwards, REPEATS, loaded.device, warnings)
    bfloat16 = ceilings.bfloat16_matmul_flops_per_s
    wins = verdict.find_wins(
        evidence, group_operators(table, evidence.forward_ms), config.model, config.profiling.batch_sizes,
        bfloat16 and bfloat16 / ceilings.matmul_flops_per_s,
    )
    judged = [one for _, one in measured.values()]
    unknown = sorted({name for one in judged for name in one.unknown_operators})
    if unknown:
        warnings.append(f"No FLOP formula is known for {', '.join(unknown)}: their bytes are counted, their FLOPs are not.")
    result = {
        "schema_version": SCHEMA_VERSION, "device": str(loaded.device), "dtype": loaded.info.dtype, "ceilings": asdict(ceilings),
        "detail_batch_size": size, "tracing_overhead_ratio": traced.step_ms / evidence.total_ms,
        **by_layers,
        "batch_sizes": [
            {"batch_size": one.batch_size, **asdict(verdict.decide(one)), "evidence": one.to_dict(),
             "padding_fraction": one.padding_fraction, "measured_ms": one.total_ms, "floor_ms": one.floor_ms}
            for one in judged
        ],
        "wins": wins, "main_bottleneck": _main_sentence(verdict.decide(evidence), wins), "warnings": list(dict.fromkeys(warnings)),
    }
    layer_table = from_trace.add_kernels_and_memory(
        result, layer_table, traced, bare, traced_inputs, workload.forward, loaded, _sweep_rows(config), config
    )
    write_text(files.stacks, "\n".join(traced.stacks) + "\n")
    write_text(files.operators, table.to_csv(index=False, columns=list(operators.COLUMNS), lineterminator="\n"))
    write_text(files.layers, layer_table.to_csv(index=False, lineterminator="\n"))
    write_json(files.bottlenecks, result)
    return result


def _sweep_rows(config: Config) -> list[dict[str, Any]]:
    """The sweep's rows of the largest sample; none where it was another model's."""
    if not config.files.metrics.exists():
        return []
    metrics = read_json(config.files.metrics, made_by=STEP_02)
    rows: list[dict[str, Any]] = metrics["batch_size_profiling"]
    largest = max((row.get("sample_size") or 0 for row in rows), default=0)
    same = metrics.get("config", {}).get("model") == config.to_dict()["model"]
    return [row for row in rows if same and (row.get("sample_size") or 0) == largest]


def group_operators(table: pd.DataFrame, forward_ms: float) -> tuple[verdict.Group, ...]:
    """Operators by kind; times are scaled down where tracing made them longer than the untraced forward."""
    if not table["self_device_ms"].notna().any():
        return ()  # nothing to hold against the ceilings
    # Operators that are made of others have a time of their own, but no work and no calls to count beside theirs.
    table = table.assign(kind=table["operator"].map(costs.category), calls=table["calls"].where(table["bytes_moved"].notna()))
    sums = table.groupby("kind", sort=False)[["self_device_ms", "attainable_ms", "calls"]].sum()
    scale = min(1.0, forward_ms / max(sums["self_device_ms"].sum(), 1e-9))
    return tuple(
        verdict.Group(kind=str(kind), measured_ms=scale * own_ms, attainable_ms=attainable_ms, calls=calls)
        for kind, own_ms, attainable_ms, calls in sums.itertuples()
    )


def _main_sentence(judgement: verdict.Verdict, wins: Sequence[verdict.Win]) -> str:
    if not wins:
        return f"{judgement.sentence} Nothing that was looked for would win 1% or more."
    first = wins[0]
    return f"{judgement.sentence} First to try: {first['try']} ({first['title']}, up to {first['win_pct']:.0f}% of the batch time)."
