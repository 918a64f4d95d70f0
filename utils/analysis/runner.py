"""The whole analysis of a loaded model: measure each batch size that matters, trace one, judge, write the files."""

from __future__ import annotations

import math
import statistics
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
from utils.analysis import from_trace, layers, operators, roofline, tracing, verdict, wins
from utils.analysis.forecast import Forecast, fit
from utils.config_loader import Config
from utils.core import console
from utils.core.artifacts import SCHEMA_VERSION, read_json, write_json, write_text
from utils.core.errors import UserError
from utils.data.reader import sample_texts
from utils.evaluation.predictor import CPU_BUDGETS, CUDA_BUDGETS, tokenize
from utils.model_utils import LoadedModel, encode_batch

STEP_02 = "python scripts/02_baseline_inference.py"
MOST_BATCHES = 8
"""Batches of one size that are timed and counted; more add little but time."""
REPEATS = 3
SECONDS_PER_SIZE = 4.0
"""With large models fewer batches are taken, so that timing one size stays about this short (one batch at least)."""
PROBED_PART = 4
"""A quarter of the rows and of the tokens are timed too: far enough from the whole to tell their costs apart."""
DOUBLED_UP_TO_S = 0.25
"""A forward that takes longer is not decided by the host's work to start its operators: doubling it says nothing new."""

Span = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Workload:
    """Batches of texts and the model that classifies them."""

    loaded: LoadedModel
    batches: tuple[list[str], ...]
    max_length: int

    def run(self, index: int, span: Span, encode: Callable[[Callable[[], Any]], Any] = lambda run: run()) -> torch.Tensor:
        """One batch from texts to logits on the host, float32, each phase in a ``span``."""
        with span("tokenize"):
            encoded = encode(partial(self._encode, index))
        with span("host_to_device"):
            inputs = self._to_device(encoded)
        with span("forward"):
            logits = self.loaded.model(**inputs).logits
        with span("device_to_host"):
            on_host: torch.Tensor = logits.float().cpu()
        return on_host

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
        ceilings = roofline.ceilings_of(loaded.device, getattr(torch, loaded.info.dtype), config.files.ceilings)
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
        forecast = make_forecast(loaded, texts, detail, [one for _, one in measured.values()], config, warnings)
        found = _detail(measured, detail, ceilings, forecast, config, warnings)
    write_json(config.files.bottlenecks, found)
    return found


def make_forecast(
    loaded: LoadedModel, texts: Sequence[str], size: int, judged: Sequence[verdict.Evidence], config: Config, warnings: list[str]
) -> Forecast | None:
    """What other batches of the same texts would take; None, with a warning, where too few shapes were timed to tell."""
    model = fit((one for evidence in judged for one in evidence.timed), loaded.device.type)
    if model is None:
        warnings.append("Batches of too few different shapes were timed: what other batches would win is not predicted.")
        return None
    wanted = config.evaluation.max_tokens_per_batch
    budgets = (CUDA_BUDGETS if loaded.device.type == "cuda" else CPU_BUDGETS) if wanted == "auto" else (wanted,)
    lengths = tokenize(loaded.tokenizer, texts, config.profiling.max_length).lengths
    return Forecast(model=model, lengths=lengths, batch_size=size, budgets=budgets)


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
    phases, forwards_ms, spread = time_phases(workload)
    shapes = [tuple(inputs["input_ids"].shape) for inputs in batches]
    typical = batches[min(range(len(batches)), key=lambda i: abs(forwards_ms[i] - phases["forward_ms"]))]
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
        doubling_growth=_doubling_growth(workload, typical),
        padding_fraction=1 - real / sum(inputs["attention_mask"].numel() for inputs in batches),
        unknown_operators=tuple(sorted({cost.name for cost in counted if cost.flops is None})),
        timed=(*((rows, length, ms) for (rows, length), ms in zip(shapes, forwards_ms, strict=True)),
               *_probe(workload, typical)), time_spread=spread,
        ceiling_spread=max(ceilings.matmul_spread_pct, ceilings.copy_spread_pct) / 100,
    )


def time_phases(workload: Workload) -> tuple[dict[str, float], list[float], float]:
    """Milliseconds of each phase per batch: the fastest repeat, as the ceilings are, then the mean of the batches.

    Returns:
        Those; the fastest forward of each batch; the middle repeats' whole time over the fastest ones', less 1.
    """
    sums: dict[str, float] = defaultdict(float)
    forwards_ms, middle_s, fastest_s = [], 0.0, 0.0
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
        repeats = {phase: values[1:] for phase, values in seconds.items()}
        for phase, values in repeats.items():
            sums[f"{phase}_ms"] += min(values) / len(workload.batches) * 1e3
        forwards_ms.append(min(repeats["forward"]) * 1e3)
        whole = [sum(parts) for parts in zip(*repeats.values(), strict=True)]
        middle_s, fastest_s = middle_s + statistics.median(whole), fastest_s + min(whole)
    return dict(sums), forwards_ms, middle_s / fastest_s - 1


def _probe(workload: Workload, inputs: dict[str, torch.Tensor]) -> Iterator[tuple[int, int, float]]:
    """Rows, length and milliseconds of parts of a batch: batches alike in shape would not tell what rows and tokens cost."""
    rows, length = inputs["input_ids"].shape
    few, short = -(-rows // PROBED_PART), -(-length // PROBED_PART)
    for shape in {(few, length), (rows, short), (few, short), (1, short)} - {(rows, length)}:
        part = {name: tensor[: shape[0], : shape[1]].contiguous() for name, tensor in inputs.items()}
        seconds = [roofline.timed(partial(workload.forward, part), workload.loaded.device) for _ in range(1 + REPEATS)]
        yield *shape, min(seconds[1:]) * 1e3


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
    measured: dict[int, tuple[Workload, verdict.Evidence]], size: int, ceilings: roofline.Ceilings, forecast: Forecast | None,
    config: Config, warnings: list[str],
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
    judged = [one for _, one in measured.values()]
    verdicts = {one.batch_size: verdict.decide(one) for one in judged}
    rows, too_large = _sweep_rows(config), set(sizes_to_profile(config, [])[0]) - measured.keys()
    turning = verdict.turning_point(*_speeds(rows, judged), verdicts)
    ranked = wins.find_wins(
        evidence, config, groups=group_operators(table, evidence.forward_ms),
        layers=_scaled(layer_table, evidence.forward_ms),
        faster_products=ceilings.faster_products, forecast=forecast,
        largest=max(verdicts.keys() | {row["batch_size"] for row in rows}),
        too_large=min({row["batch_size"] for row in rows if row["status"] == "oom"} | too_large, default=math.inf),
    )
    unknown = sorted({name for one in judged for name in one.unknown_operators})
    if unknown:
        warnings.append(f"No FLOP formula is known for {', '.join(unknown)}: their bytes are counted, their FLOPs are not.")
    result = {
        "schema_version": SCHEMA_VERSION, "device": str(loaded.device), "dtype": loaded.info.dtype, "ceilings": asdict(ceilings),
        "detail_batch_size": size, "tracing_overhead_ratio": traced.step_ms / evidence.total_ms,
        **by_layers,
        "batch_sizes": [
            {"batch_size": one.batch_size, **asdict(verdicts[one.batch_size]), "evidence": one.to_dict(),
             "padding_fraction": one.padding_fraction, "measured_ms": one.total_ms, "floor_ms": one.floor_ms}
            for one in judged
        ],
        "confidence_rule": verdict.CONFIDENCE, "verdict_changes": turning, "wins": ranked[: wins.MOST_WINS],
        "further_wins": ranked[wins.MOST_WINS :], "main_bottleneck": _main_sentence(verdicts[size], turning, ranked),
        "verified_at": None, "warnings": list(dict.fromkeys(warnings)),
    }
    layer_table = from_trace.add_kernels_and_memory(
        result, layer_table, traced, bare, traced_inputs, workload.forward, loaded, _sweep_rows(config), config
    )
    write_text(files.stacks, "\n".join(traced.stacks) + "\n")
    write_text(files.operators, table.to_csv(index=False, columns=list(operators.COLUMNS), lineterminator="\n"))
    write_text(files.layers, layer_table.to_csv(index=False, lineterminator="\n"))
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


def _speeds(rows: Sequence[dict[str, Any]], judged: Sequence[verdict.Evidence]) -> tuple[list[verdict.Speed], str]:
    """Throughput by batch size, from the sweep where it has any, else from the sizes profiled here; and which of them."""
    name = "throughput_samples_per_sec_mean"
    swept = [
        verdict.Speed(batch_size=row["batch_size"], samples_per_s=row[name], padding_fraction=row["padding_fraction"] or 0.0)
        for row in rows if row.get(name) is not None
    ]
    here = [
        verdict.Speed(batch_size=one.batch_size, samples_per_s=1e3 * one.batch_size / one.total_ms,
                      padding_fraction=one.padding_fraction or 0.0)
        for one in judged
    ]
    return (swept, "the sweep") if swept else (here, "the profiled batch sizes")


def _scaled(layer_table: pd.DataFrame, forward_ms: float) -> list[tuple[str, float]]:
    """Each module's own time, scaled down where hooks, or a mean of disturbed calls, are longer than the fastest forward."""
    own = layer_table["self_time_ms"] * min(1.0, forward_ms / max(layer_table["self_time_ms"].sum(), 1e-9))
    return [(str(name), float(ms)) for name, ms in zip(layer_table["module"], own, strict=True)]


def group_operators(table: pd.DataFrame, forward_ms: float) -> tuple[wins.Group, ...]:
    """Operators by kind; times are scaled down where tracing made them longer than the untraced forward."""
    if not table["self_device_ms"].notna().any():
        return ()  # nothing to hold against the ceilings
    # Operators that are made of others have a time of their own, but no work and no calls to count beside theirs.
    table = table.assign(kind=table["operator"].map(costs.category), calls=table["calls"].where(table["bytes_moved"].notna()))
    sums = table.groupby("kind", sort=False)[["self_device_ms", "attainable_ms", "calls"]].sum()
    scale = min(1.0, forward_ms / max(sums["self_device_ms"].sum(), 1e-9))
    return tuple(
        wins.Group(kind=str(kind), measured_ms=float(scale * own_ms), attainable_ms=float(attainable_ms), calls=calls)
        for kind, own_ms, attainable_ms, calls in sums.itertuples()
    )


def _main_sentence(judgement: verdict.Verdict, turning: dict[str, Any], ranked: Sequence[wins.Win]) -> str:
    said = f"{judgement.sentence} Confidence: {judgement.confidence}. {turning['sentence']}"
    if not ranked:
        return f"{said} Nothing that was looked for would win 1% or more."
    first = ranked[0]
    return f"{said} First to try: {first['try']} ({first['title']}, up to {first['win_pct']:.0f}% of the batch time)."
