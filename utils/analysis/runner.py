"""The whole analysis of a loaded model: measure and trace each batch size that matters, judge, write the files."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.profiler import record_function

from utils import costs
from utils.analysis import kernels, layers, memory, operators, roofline, tracing, verdict, wins
from utils.analysis.forecast import WORST_FIT, Forecast, fit
from utils.analysis.kernels import Event
from utils.config_loader import Config
from utils.core import console
from utils.core.artifacts import SCHEMA_VERSION, read_json, write_json, write_text
from utils.core.device import is_out_of_memory
from utils.core.errors import UserError
from utils.evaluation.predictor import CPU_BUDGETS, CUDA_BUDGETS, tokenize
from utils.model.encoding import encode_batch
from utils.model_utils import LoadedModel, check_on_texts
from utils.sample import draw_texts

STEP_02 = "python scripts/02_baseline_inference.py"
MOST_BATCHES = 8  # of one size that are timed and counted; more add little but time
REPEATS = 3
SECONDS_PER_SIZE = 4.0  # with large models fewer batches are taken, one at least, so that timing a size stays about this short
MOST_PRODUCTS = 4
"""Matrix products that are tried in another precision: in a transformer two or three shapes have nearly all the FLOPs."""
PROBED_PART = 4  # a quarter of the rows and of the tokens are timed too: far enough from the whole to tell their costs apart
DOUBLED_UP_TO_S = 0.25
"""A forward that takes longer is not decided by the host's work to start its operators: doubling it says nothing new."""

MOST_LENGTHENED = 1.5
"""A trace of the modules that makes the forward longer than this many times does not leave shares as they are."""

Span = Callable[[str], AbstractContextManager[Any]]
Inputs = dict[str, torch.Tensor]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Workload:
    """Batches of texts and the model that classifies them."""

    loaded: LoadedModel
    batches: tuple[list[str], ...]
    max_length: int

    def run(self, index: int, span: Span, encode: Callable[[int], Inputs] | None = None) -> torch.Tensor:
        """One batch from texts to logits on the host, float32, rows x labels; each phase in a ``span``."""
        with span("tokenize"):
            encoded = (encode or self.encode)(index)
        with span("host_to_device"):
            inputs = self.to_device(encoded)
        with span("forward"):
            logits = self.forward(inputs)
        with span("device_to_host"):
            return logits.float().cpu()

    def encode(self, index: int) -> Inputs:
        """A batch's token ids and mask on the host, each of rows x length; after the last comes the first again."""
        return encode_batch(self.loaded.tokenizer, self.batches[index % len(self.batches)], self.max_length)

    def inputs(self, index: int) -> Inputs:
        """A batch on the device, with its mask also where the model takes none."""
        return self.to_device(self.encode(index))

    def forward(self, inputs: Inputs) -> torch.Tensor:
        taken = {name: inputs[name] for name in self.loaded.inputs.names if name in inputs}
        logits: torch.Tensor = self.loaded.model(**taken).logits
        return logits

    def to_device(self, encoded: Inputs) -> Inputs:
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
    sizes, optimal, sweep = read_sweep(config, warnings)
    sample = draw_texts(loaded, config, config.dataset.sample_sizes[0])
    texts = sample.texts
    warnings += sample.warnings
    warnings += check_on_texts(loaded, texts, config.profiling.max_length)
    workloads: dict[int, Workload] = {}
    judged: dict[int, verdict.Evidence] = {}
    with torch.inference_mode():
        ceilings = roofline.ceilings_of(loaded.device, getattr(torch, loaded.info.dtype), config.files.ceilings)
        for size in console.progress(sizes, what="Profiling batch sizes", unit="size"):
            try:
                workloads[size], judged[size] = measure_size(loaded, texts, size, config.profiling.max_length, ceilings, warnings)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                warnings.append(f"Batch size {size} does not fit into memory and is left out.")
                torch.cuda.empty_cache()
        if not judged:
            fix = "--set profiling.batch_sizes=[1] or a smaller profiling.max_length"
            raise UserError("No batch size fits into memory.", where="profiling.batch_sizes", fix=fix)
        detail = optimal if optimal in judged else max(judged)
        too_large = {row["batch_size"] for row in sweep if row["status"] == "oom"} | set(sizes) - judged.keys()
        forecast = make_forecast(loaded, texts, detail, judged.values(), config, warnings)
        found = _detail(workloads, judged, detail, sweep, too_large, ceilings, forecast, config, warnings)
    write_json(config.files.bottlenecks, found)
    return found


def make_forecast(
    loaded: LoadedModel, texts: Sequence[str], size: int, judged: Iterable[verdict.Evidence], config: Config, warnings: list[str]
) -> Forecast | None:
    """What other batches of the same texts would take; None, with a warning, where the timed ones do not tell."""
    model = fit((one for evidence in judged for one in evidence.timed), loaded.device.type)
    if model is None or model.error > WORST_FIT:
        why = "Batches of too few different shapes were timed" if model is None else (
            f"Forward times follow from rows and tokens within {model.error:.0%} only (limit {WORST_FIT:.0%}), as on a busy "
            "machine")
        warnings.append(f"{why}: what other batches would win is not predicted.")
        return None
    wanted = config.evaluation.max_tokens_per_batch
    budgets = (CUDA_BUDGETS if loaded.device.type == "cuda" else CPU_BUDGETS) if wanted == "auto" else (wanted,)
    lengths = tokenize(loaded.tokenizer, texts, config.profiling.max_length, loaded.inputs).lengths
    return Forecast(model=model, lengths=lengths, batch_size=size, budgets=budgets)


def read_sweep(config: Config, warnings: list[str]) -> tuple[tuple[int, ...], int, list[Row]]:
    """What is to be profiled: 1, the optimal and the largest batch size of the sweep; without one the config's first and last.

    Returns:
        Those; the optimal one; the sweep's rows of its largest sample, none where it was another model's.
    """
    sizes = config.profiling.batch_sizes
    if not config.files.metrics.exists():
        warnings.append(
            f"{config.files.metrics.name} is not there (step 02 makes it: {STEP_02}): profiled are the first and the last "
            f"of profiling.batch_sizes, and {sizes[-1]} stands for the optimal one."
        )
        return tuple(dict.fromkeys((sizes[0], sizes[-1]))), sizes[-1], []
    metrics = read_json(config.files.metrics, made_by=STEP_02)
    rows: list[Row] = metrics["batch_size_profiling"]
    fitting = [row["batch_size"] for row in rows if row["status"] == "ok"] or [min(sizes)]
    optimal = (metrics.get("optimal_batch_size") or {}).get("batch_size", max(fitting))
    largest = max((row.get("sample_size") or 0 for row in rows), default=0)
    rows = [row for row in rows if (row.get("sample_size") or 0) == largest]
    if metrics.get("config", {}).get("model") != config.to_dict()["model"]:
        warnings.append("baseline_metrics.json was measured with other model settings; its batch sizes are used all the same.")
        rows = []
    return tuple(sorted({1, optimal, max(fitting)})), optimal, rows


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
    number = len(workload.batches)
    batches = [workload.inputs(index) for index in range(number)]
    phases, forwards_ms, spread = time_phases(workload, 1 if one_s > SECONDS_PER_SIZE else REPEATS)
    typical = batches[min(range(number), key=lambda i: abs(forwards_ms[i] - phases["forward_ms"]))]
    counted = costs.count_op_costs(lambda: [workload.forward(inputs) for inputs in batches])
    limited_ms: dict[str, float] = defaultdict(float)
    for cost in counted:
        seconds, limit = operators.attainable_s(cost, ceilings)
        limited_ms[limit] += seconds / number * 1e3
    masks = [inputs["attention_mask"] for inputs in batches]
    timed = [(*mask.shape, ms) for mask, ms in zip(masks, forwards_ms, strict=True)]
    return workload, verdict.Evidence(
        device=loaded.device.type, batch_size=size, **phases,
        matmul_limited_ms=limited_ms["matmul"], copy_limited_ms=limited_ms["copy"],
        op_calls=sum(cost.calls for cost in counted) / number, dispatch_us=ceilings.dispatch_s * 1e6,
        flops=sum(cost.flops or 0 for cost in counted) / number, bytes_moved=sum(cost.bytes_moved for cost in counted) / number,
        device_busy_ms=tracing.device_busy_ms(lambda i: workload.forward(batches[i % number]), steps=number, device=loaded.device),
        doubling_growth=_doubling_growth(workload, typical, min(forwards_ms) / 1e3),
        padding_fraction=1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks),
        unknown_operators=tuple(sorted({cost.name for cost in counted if cost.flops is None})),
        timed=(*timed, *_probe(workload, typical)), time_spread=spread,
        ceiling_spread=max(ceilings.matmul_spread_pct, ceilings.copy_spread_pct) / 100,
    )


def time_phases(workload: Workload, repeats: int = REPEATS) -> tuple[dict[str, float], list[float], float]:
    """Milliseconds of each phase per batch: the fastest repeat, as the ceilings are, then the mean of the batches.

    Returns:
        Those; the fastest forward of each batch; the middle repeats' whole time over the fastest ones', less 1.
    """
    rows: list[dict[str, float]] = []

    @contextmanager
    def stopwatch(phase: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        roofline.synchronize(workload.loaded.device)
        rows[-1][f"{phase}_ms"] = 1e3 * (time.perf_counter() - begin)

    batches = [index for index in range(len(workload.batches)) for _ in range(1 + repeats)]
    for index in batches:
        rows.append({})
        workload.run(index, stopwatch)
    warm = pd.DataFrame(rows).groupby(batches).tail(-1)  # the first of each batch warms up at its shape
    batch = [batches[row] for row in warm.index]
    fastest, whole = warm.groupby(batch).min(), warm.sum(axis=1).groupby(batch)
    return fastest.mean().to_dict(), fastest["forward_ms"].to_list(), float(whole.median().sum() / whole.min().sum() - 1)


def _probe(workload: Workload, inputs: Inputs) -> Iterator[tuple[int, int, float]]:
    """Rows, length and milliseconds of parts of a batch: batches alike in shape would not tell what rows and tokens cost.

    Shorter batches come from the tokenizer, which keeps the end token that some models read their result at.
    """
    rows, length = inputs["input_ids"].shape
    texts = next(batch for batch in workload.batches if len(batch) == rows)
    few, short = -(-rows // PROBED_PART), -(-length // PROBED_PART)
    timed: set[tuple[int, int]] = {(rows, length)}
    for num_rows, max_length in ((few, length), (rows, short), (few, short), (1, short)):
        encoded = encode_batch(workload.loaded.tokenizer, texts[:num_rows], max_length)
        shape = (encoded["input_ids"].shape[0], encoded["input_ids"].shape[1])
        if shape in timed:
            continue
        timed.add(shape)
        part = workload.to_device(encoded)
        seconds = [roofline.timed(partial(workload.forward, part), workload.loaded.device) for _ in range(1 + REPEATS)]
        yield *shape, min(seconds[1:]) * 1e3


def _doubling_growth(workload: Workload, inputs: Inputs, fastest_s: float) -> float | None:
    """By how much the forward of a batch put twice into one takes longer; on the CPU only: CUDA has better evidence."""
    device = workload.loaded.device
    once = partial(workload.forward, inputs)
    if device.type != "cpu" or fastest_s > DOUBLED_UP_TO_S:
        return None
    twice = partial(workload.forward, {name: torch.cat((tensor, tensor)) for name, tensor in inputs.items()})
    pairs = [(roofline.timed(once, device), roofline.timed(twice, device)) for _ in range(1 + REPEATS)][1:]
    return min(second for _, second in pairs) / min(first for first, _ in pairs) - 1


def _detail(
    workloads: dict[int, Workload], judged: dict[int, verdict.Evidence], size: int, sweep: Sequence[Row], too_large: set[int],
    ceilings: roofline.Ceilings, forecast: Forecast | None, config: Config, warnings: list[str],
) -> dict[str, Any]:
    """Operators, layers, stacks and wins of one batch size; then everything into files.

    Args:
        too_large: batch sizes that ran out of memory.
    """
    workload, evidence = workloads[size], judged[size]
    loaded, files, steps = workload.loaded, config.files, config.profiling.trace_steps
    for folder in files.traces_dir.glob("batch_*"):  # an earlier run's
        shutil.rmtree(folder)
    for other in (one for one in workloads if one != size):
        _traced(workloads[other], steps, ceilings, files.traces_dir / f"batch_{other}", warnings)
    traced, table, counted = _traced(workload, steps, ceilings, files.traces_dir, warnings)
    bare = tracing.bare_events(_step(workload), steps=steps, device=loaded.device) if loaded.device.type == "cuda" else []
    layer_times, layers_missing = time_modules(workload, evidence, warnings)
    layer_table = layer_times.table
    verdicts = {batch_size: verdict.decide(one) for batch_size, one in judged.items()}
    turning = verdict.turning_point(*_speeds(sweep, sorted(verdicts), forecast), verdicts)
    traced_ms = statistics.fmean(evidence.timed[index % len(workload.batches)][2] for index in range(steps))
    # What a module could save is the time of its kernels, not the device's idle time between them.
    busy_share = min(1.0, (evidence.device_busy_ms or evidence.forward_ms) / evidence.forward_ms)
    own_ms = layer_table["self_time_ms"].dropna() * busy_share
    ranked = wins.find_wins(
        evidence, config, groups=group_operators(table, traced_ms, evidence.forward_ms),
        layers=list(zip(layer_table["module"][own_ms.index], own_ms, strict=True)),
        faster_products=roofline.faster_products(largest_products(counted), loaded.device, ceilings), forecast=forecast,
        largest=max(verdicts.keys() | {row["batch_size"] for row in sweep}), too_large=min(too_large, default=math.inf),
    )
    unknown = sorted({name for one in judged.values() for name in one.unknown_operators})
    if unknown:
        warnings.append(f"No FLOP formula is known for {', '.join(unknown)}: their bytes are counted, their FLOPs are not.")
    result = {
        "schema_version": SCHEMA_VERSION, "device": str(loaded.device), "dtype": loaded.info.dtype,
        "matmul_precision": config.model.matmul_precision, "ceilings": asdict(ceilings),
        "detail_batch_size": size, "tracing_overhead_ratio": traced.step_ms / (evidence.input_ms + traced_ms),
        "layers_by_kind": layers.aggregate(layer_table, "kind"),
        "layers_by_index": layers.aggregate(layer_table, "layer_index"),
        "batch_sizes": [
            {"batch_size": one.batch_size, **asdict(verdicts[one.batch_size]), "evidence": one.to_dict(),
             "padding_fraction": one.padding_fraction, "measured_ms": one.total_ms, "floor_ms": one.floor_ms}
            for one in judged.values()
        ],
        "confidence_rule": verdict.CONFIDENCE, "verdict_changes": turning, "wins": ranked[: wins.MOST_WINS],
        "further_wins": ranked[wins.MOST_WINS :], "main_bottleneck": _main_sentence(verdicts[size], turning, ranked),
        "verified_at": None, "warnings": list(dict.fromkeys(warnings)),
    }
    of_traces, layer_memory = kernels_and_memory(workload, bare, traced.events, config)
    write_table(files.layers, layer_table.join(layer_memory, on="module"))
    of_traces["not_measured"] |= layers_missing
    return result | of_traces


def time_modules(
    workload: Workload, evidence: verdict.Evidence, warnings: list[str]
) -> tuple[layers.LayerTimes, dict[str, str]]:
    """Time by module, from a trace of its own: without shapes, memory and stacks, which cost time.

    Returns:
        The times, and ``layers`` with the reason where they were not measured.
    """
    loaded = workload.loaded
    num_batches = len(workload.batches)
    batches = [workload.inputs(index) for index in range(num_batches)]
    passes = 1 if evidence.total_ms > 1e3 * SECONDS_PER_SIZE else REPEATS
    with layers.annotate_modules(loaded.model):
        events = tracing.bare_events(
            lambda step: workload.forward(batches[step % num_batches]),
            steps=passes * num_batches, device=loaded.device,
        )
    on_cuda = loaded.device.type == "cuda"
    times = layers.measure_layers(loaded.model, events, num_batches, evidence.forward_ms, on_cuda=on_cuda)
    if times.traced_forward_ms is None:
        return times, {"layers": tracing.NO_KERNELS if events else tracing.NONE_READABLE}
    lengthened = times.traced_forward_ms / evidence.forward_ms
    if not on_cuda and lengthened > MOST_LENGTHENED:
        warnings.append(
            f"Tracing the modules made the forward {lengthened:.1f} times as long: in layers.csv the shares of modules "
            "with many short operators are too high."
        )
    return times, {}


def kernels_and_memory(
    workload: Workload, bare: Sequence[Event], events: Sequence[Event], config: Config
) -> tuple[dict[str, Any], pd.DataFrame]:
    """``kernels``, ``memory`` and ``not_measured``, their tables into files; and what memory each module adds.

    Args:
        bare: events of a trace without shapes, memory and stacks, for the kernels.
    """
    loaded, files = workload.loaded, config.files
    on_cuda = loaded.device.type == "cuda"
    not_measured = {}
    on_device = kernels.summarise(bare)
    if on_device is None:
        not_measured["kernels"] = "no GPU was used"
        if on_cuda:
            not_measured["kernels"] = tracing.NO_KERNELS if bare else tracing.NONE_READABLE
    peak = None
    layer_memory = pd.DataFrame(columns=["memory_kept_mb", "memory_peak_mb"], dtype=float)
    step = memory.find_peak_step(events, on_cuda=on_cuda)
    if step is None:
        not_measured["memory.peak"] = "the trace is incomplete, or holds no allocations"
    else:
        peak = asdict(memory.attribute_peak(step, events, memory.weights_bytes(loaded.model), on_cuda=on_cuda))
        layer_memory = memory.by_module(step, events)
    tables = {files.kernels: kernels.table(bare) if on_device else None, files.memory: memory.timeline(step) if step else None}
    for file, table in tables.items():
        if table is None:
            file.unlink(missing_ok=True)  # an earlier run's
        else:
            write_table(file, table)
    return {"kernels": on_device, "memory": {"peak": peak}, "not_measured": not_measured}, layer_memory


def write_table(file: Path, table: pd.DataFrame) -> None:
    """As CSV, with the same line ends everywhere."""
    write_text(file, table.to_csv(index=False, lineterminator="\n"))


def _step(workload: Workload) -> Callable[[int], object]:
    def in_new_thread(index: int) -> Inputs:
        """Where the tracer does not look: inside, tokenizers make thousands of Python calls a text."""
        with ThreadPoolExecutor(max_workers=1) as executor:
            return executor.submit(workload.encode, index).result()

    return partial(workload.run, span=record_function, encode=in_new_thread)


def _traced(
    workload: Workload, steps: int, ceilings: roofline.Ceilings, folder: Path, warnings: list[str]
) -> tuple[tracing.Trace, pd.DataFrame, tuple[costs.OperatorCost, ...]]:
    """Trace, stacks and operators of one batch size, also written to ``folder``; and what the traced forwards cost."""
    loaded = workload.loaded
    with layers.annotate_modules(loaded.model):
        traced = tracing.trace(_step(workload), steps=steps, device=loaded.device, trace_file=folder / "trace.json")
    warnings += traced.warnings
    counted = costs.count_op_costs(lambda: [workload.forward(workload.inputs(index)) for index in range(steps)])
    table = operators.join(traced.operators, counted, steps, ceilings)
    write_text(folder / "stacks.txt", "\n".join(traced.stacks) + "\n")
    write_table(folder / "operators.csv", table[list(operators.COLUMNS)])
    return traced, table, counted


def _speeds(rows: Sequence[Row], sizes: Sequence[int], forecast: Forecast | None) -> tuple[list[verdict.Speed], str]:
    """Throughput by batch size on the same texts, from the sweep where it has any, else forecast; and which of them."""
    name = "throughput_samples_per_sec_mean"
    swept = [(row["batch_size"], row[name], row["padding_fraction"] or 0.0) for row in rows if row.get(name) is not None]
    source = "the sweep" if swept else "the forward passes of the sample, forecast from those that were timed"
    if not swept and forecast:
        swept = [(size, forecast.samples_per_s(size), forecast.padding_at(size)) for size in sizes]
    return [verdict.Speed(batch_size=size, samples_per_s=rate, padding_fraction=padding) for size, rate, padding in swept], source


def largest_products(counted: Sequence[costs.OperatorCost]) -> list[tuple[int, int, int, float]]:
    """Rows, inner size, columns and calls of the matrix products with the most FLOPs."""
    chosen = [cost for cost in counted if costs.base_op_name(cost.name) in ("mm", "addmm") and cost.flops]
    chosen.sort(key=lambda cost: cost.flops or 0, reverse=True)
    products = [(cost.input_shapes[-2], cost.input_shapes[-1], cost.calls) for cost in chosen[:MOST_PRODUCTS]]
    return [(left[0], left[1], right[1], calls) for left, right, calls in products]


def group_operators(table: pd.DataFrame, traced_ms: float, forward_ms: float) -> tuple[wins.Group, ...]:
    """Operators by kind, per average batch; times are scaled down where tracing made them longer than the untraced forward.

    Args:
        traced_ms: untraced forward of the traced batches, which may be longer or shorter than the average one, ``forward_ms``.
    """
    if not table["self_device_ms"].notna().any():
        return ()  # nothing to hold against the ceilings
    # Operators that are made of others have a time of their own, but no work and no calls to count beside theirs.
    table = table.assign(kind=table["operator"].map(costs.category), calls=table["calls"].where(table["bytes_moved"].notna()))
    sums = table.groupby("kind", sort=False)[["self_device_ms", "attainable_ms", "calls"]].sum()
    average = forward_ms / traced_ms
    untraced = average * min(1.0, traced_ms / max(sums["self_device_ms"].sum(), 1e-9))
    return tuple(
        wins.Group(kind=str(kind), measured_ms=untraced * own_ms, attainable_ms=average * attainable_ms, calls=calls)
        for kind, own_ms, attainable_ms, calls in sums.itertuples()
    )


def _main_sentence(judgement: verdict.Verdict, turning: dict[str, Any], ranked: Sequence[wins.Win]) -> str:
    said = f"{judgement.sentence} Confidence: {judgement.confidence}. {turning['sentence']}"
    if not ranked:
        return f"{said} Nothing that was looked for would win 1% or more."
    # What is known to come before what may come at most.
    first = next((win for win in ranked[: wins.MOST_WINS] if win["prediction"] == wins.ESTIMATE), ranked[0])
    much = "about" if first["prediction"] == wins.ESTIMATE else wins.AT_MOST
    return f"{said} First to try: {first['try']} ({first['title']}, {much} {first['win_pct']:.0f}% of the batch time)."
