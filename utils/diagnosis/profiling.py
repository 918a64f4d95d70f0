"""Traces of the batch sizes; of one of them operators, modules, kernels and memory."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

import pandas as pd
from torch.profiler import record_function

from utils.core.files import write_text
from utils.core.result_files import ResultFiles
from utils.diagnosis import attention, kernels, layers, memory, operators, tracing
from utils.diagnosis.evidence import Evidence
from utils.diagnosis.findings import OperatorGroup
from utils.diagnosis.kernels import Event
from utils.diagnosis.measurement import (
    SECONDS_PER_SIZE,
    TIMED_REPEATS,
    MeasuredSize,
    mean_forward_ms,
)
from utils.diagnosis.roofline import MatrixProduct
from utils.diagnosis.workload import Inputs, Workload
from utils.model import costs
from utils.pipeline import console
from utils.schema.ceilings import Ceilings
from utils.schema.profile import AttentionUse, KernelSummary, KindTime, LayerTime, PeakMemory
from utils.schema.warning_codes import WarningCode

MAX_PRODUCTS = 4
"""Matrix products that are tried in another precision; a few shapes have nearly all the FLOPs."""
MAX_LENGTHENING = 1.5
"""A trace of the modules that makes the forward more times as long changes the modules' shares."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedSize:
    """The trace of one batch size, with its operators and what they cost."""

    trace: tracing.Trace
    operators: pd.DataFrame
    op_costs: tuple[costs.OperatorCost, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceFindings:
    """What a trace's events say of kernels and memory.

    Args:
        module_memory: what memory each module adds; the index holds the modules' names.
        unavailable: reason by the name of what is missing in ``bottlenecks.json``.
    """

    kernels: KernelSummary | None
    peak_memory: PeakMemory | None
    module_memory: pd.DataFrame
    unavailable: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class DetailedProfile:
    """One batch size in detail.

    Args:
        tracing_overhead_ratio: a traced step's time over an untraced one's.
        layers_by_kind, layers_by_index: the modules' own time, added up.
        module_ms: a module's own time in one forward; on CUDA that of its kernels.
        groups: operators by kind.
        op_costs: of the traced forwards.
        attention: the kernels of every batch size that was traced; empty where none is known.
    """

    tracing_overhead_ratio: float
    layers_by_kind: tuple[KindTime, ...]
    layers_by_index: tuple[LayerTime, ...]
    module_ms: dict[str, float]
    groups: tuple[OperatorGroup, ...]
    op_costs: tuple[costs.OperatorCost, ...]
    attention: tuple[AttentionUse, ...]
    kernels: KernelSummary | None
    peak_memory: PeakMemory | None
    unavailable: dict[str, str]
    warnings: tuple[str, ...]


def profile_sizes(
    measured: Mapping[int, MeasuredSize],
    detail: int,
    ceilings: Ceilings,
    files: ResultFiles,
    steps: int,
) -> DetailedProfile:
    """Trace every batch size, and one of them in detail; write traces, stacks and tables.

    Args:
        detail: the batch size that is looked at in detail.
        steps: how many batches are traced.
    """
    # Left by an earlier run.
    for folder in files.traces_dir.glob("batch_*"):
        shutil.rmtree(folder)
    warnings: list[str] = []
    uses: list[AttentionUse] = []
    for size, one in console.progress(measured.items(), what="Tracing batch sizes", unit="size"):
        if size != detail:
            folder = files.traces_dir / f"batch_{size}"
            traced = trace_size(one.workload, steps, ceilings, folder)
            warnings += traced.trace.warnings
            uses += _find_attention(traced, one, ceilings, steps)
    profile = profile_size(measured[detail], ceilings, files, steps)
    uses += profile.attention
    uses.sort(key=attrgetter("batch_size"))
    return replace(
        profile,
        attention=tuple(uses),
        warnings=(*warnings, *profile.warnings),
    )


def _find_attention(
    traced: TracedSize, measured: MeasuredSize, ceilings: Ceilings, steps: int
) -> list[AttentionUse]:
    """The attention kernels of one batch size."""
    evidence = measured.evidence
    traced_ms = mean_forward_ms(evidence, measured.workload, steps)
    average = evidence.forward_ms / traced_ms
    return attention.find_attention(
        traced.operators,
        batch_size=evidence.batch_size,
        ceilings=ceilings,
        scale=average * operators.untraced_share(traced.operators, traced_ms),
    )


def profile_size(
    measured: MeasuredSize, ceilings: Ceilings, files: ResultFiles, steps: int
) -> DetailedProfile:
    """Trace one batch size in detail; write traces, stacks and tables."""
    workload = measured.workload
    evidence = measured.evidence
    traced = trace_size(workload, steps, ceilings, files.traces_dir)
    kernel_events = _record_kernels(workload, steps)
    layer_times = time_modules(workload, evidence)
    findings = read_events(workload, kernel_events, traced.trace.events, files)
    table = layer_times.table
    write_table(files.layers, table.join(findings.module_memory, on="module"))
    traced_ms = mean_forward_ms(evidence, workload, steps)
    return DetailedProfile(
        tracing_overhead_ratio=traced.trace.step_ms / (evidence.input_ms + traced_ms),
        layers_by_kind=layers.aggregate_by_kind(table),
        layers_by_index=layers.aggregate_by_layer(table),
        module_ms=module_times_ms(table, evidence),
        groups=operators.group_operators(traced.operators, traced_ms, evidence.forward_ms),
        op_costs=traced.op_costs,
        attention=tuple(_find_attention(traced, measured, ceilings, steps)),
        kernels=findings.kernels,
        peak_memory=findings.peak_memory,
        unavailable=findings.unavailable | layer_times.unavailable,
        warnings=(*traced.trace.warnings, *layer_times.warnings),
    )


def _record_kernels(workload: Workload, steps: int) -> list[Event]:
    """Events of a trace without shapes, memory and stacks, which delay kernels; CUDA alone."""
    device = workload.loaded.device
    if device.type != "cuda":
        return []
    return tracing.record_kernel_events(_TracedStep(workload), steps=steps, device=device)


@dataclass(frozen=True, kw_only=True, slots=True)
class _ModuleTimes:
    table: pd.DataFrame
    unavailable: dict[str, str]
    warnings: tuple[str, ...] = ()


def time_modules(workload: Workload, evidence: Evidence) -> _ModuleTimes:
    """Time by module, from a trace of its own: recording shapes, memory and stacks costs time."""
    loaded = workload.loaded
    number = len(workload.batches)
    batches = [workload.inputs(index) for index in range(number)]
    passes = 1 if evidence.total_ms > 1e3 * SECONDS_PER_SIZE else TIMED_REPEATS
    with layers.annotate_modules(loaded.model):
        events = tracing.record_kernel_events(
            lambda step: workload.forward(batches[step % number]),
            steps=passes * number,
            device=loaded.device,
        )
    on_cuda = loaded.device.type == "cuda"
    times = layers.measure_layers(
        loaded.model, events, number, evidence.forward_ms, on_cuda=on_cuda
    )
    if times.traced_forward_ms is None:
        reason = tracing.NO_KERNELS if events else tracing.NONE_READABLE
        unavailable = dict.fromkeys(("layers_by_kind", "layers_by_index"), reason)
        return _ModuleTimes(table=times.table, unavailable=unavailable)
    lengthening = times.traced_forward_ms / evidence.forward_ms
    warnings: tuple[str, ...] = ()
    if not on_cuda and lengthening > MAX_LENGTHENING:
        warning = WarningCode.TRACE.warn(
            f"tracing the modules made the forward pass {lengthening:.1f} times as long: in"
            " layers.csv the shares of modules with many short operators are too high"
        )
        warnings = (warning,)
    return _ModuleTimes(table=times.table, unavailable={}, warnings=warnings)


def module_times_ms(table: pd.DataFrame, evidence: Evidence) -> dict[str, float]:
    """Own time by module, as far as it was measured; without the device's idle time."""
    busy_ms = evidence.forward_ms
    if evidence.device_busy_ms is not None:
        busy_ms = min(busy_ms, evidence.device_busy_ms)
    times = {}
    for name, own_ms in zip(table["module"], table["self_time_ms"], strict=True):
        if pd.notna(own_ms):
            times[name] = own_ms * busy_ms / evidence.forward_ms
    return times


def trace_size(workload: Workload, steps: int, ceilings: Ceilings, folder: Path) -> TracedSize:
    """Trace one batch size and count the same forwards; write the files of ``folder``."""
    loaded = workload.loaded
    with layers.annotate_modules(loaded.model):
        trace = tracing.trace(
            _TracedStep(workload),
            steps=steps,
            device=loaded.device,
            trace_file=folder / "trace.json",
        )
    op_costs = costs.count_op_costs(
        lambda: [workload.forward(workload.inputs(index)) for index in range(steps)]
    )
    table = operators.build_operator_table(trace.operators, op_costs, steps, ceilings)
    write_text(folder / "stacks.txt", "\n".join(trace.stacks) + "\n")
    write_table(folder / "operators.csv", table[list(operators.COLUMNS)])
    return TracedSize(trace=trace, operators=table, op_costs=op_costs)


def read_events(
    workload: Workload,
    kernel_events: Sequence[Event],
    events: Sequence[Event],
    files: ResultFiles,
) -> TraceFindings:
    """Kernels and memory of the traced steps; write their tables.

    Args:
        kernel_events: of a trace without shapes, memory and stacks, which delay kernels.
        events: of the trace with memory.
    """
    on_cuda = workload.loaded.device.type == "cuda"
    unavailable = {}
    summary = kernels.summarize_kernels(kernel_events)
    if summary is None:
        unavailable["kernels"] = _why_no_kernels(kernel_events, on_cuda=on_cuda)
        # Left by an earlier run.
        files.kernels.unlink(missing_ok=True)
    else:
        write_table(files.kernels, kernels.build_kernel_table(kernel_events))
    step = memory.find_peak_step(events, on_cuda=on_cuda)
    if step is None:
        unavailable["peak_memory"] = "the trace is incomplete, or holds no allocations"
        # Left by an earlier run.
        files.memory.unlink(missing_ok=True)
        peak = None
        module_memory = memory.no_module_memory()
    else:
        write_table(files.memory, memory.timeline(step))
        weights = memory.weights_bytes(workload.loaded.model)
        peak = memory.attribute_peak(step, events, weights, on_cuda=on_cuda)
        module_memory = memory.by_module(step, events)
    return TraceFindings(
        kernels=summary,
        peak_memory=peak,
        module_memory=module_memory,
        unavailable=unavailable,
    )


def largest_products(op_costs: Sequence[costs.OperatorCost]) -> list[MatrixProduct]:
    """The matrix products with the most FLOPs."""
    products = []
    for cost in op_costs:
        if costs.base_op_name(cost.name) in ("mm", "addmm") and cost.flops:
            products.append((cost.flops, cost))
    products.sort(key=lambda product: product[0], reverse=True)
    largest = []
    for _, cost in products[:MAX_PRODUCTS]:
        # The bias of ``addmm`` comes first.
        left, right = cost.input_shapes[-2:]
        largest.append(
            MatrixProduct(rows=left[0], inner=left[1], columns=right[1], calls=cost.calls)
        )
    return largest


def write_table(file: Path, table: pd.DataFrame) -> None:
    """As CSV, with the same line ends everywhere."""
    write_text(file, table.to_csv(index=False, lineterminator="\n"))


def _why_no_kernels(kernel_events: Sequence[Event], *, on_cuda: bool) -> str:
    if not on_cuda:
        return tracing.NO_GPU
    return tracing.NO_KERNELS if kernel_events else tracing.NONE_READABLE


@dataclass(frozen=True, slots=True)
class _TracedStep:
    """A step of a trace: one batch from texts to logits, each phase a named range."""

    workload: Workload

    def __call__(self, index: int) -> object:
        return self.workload.run(index, record_function, self._encode_in_new_thread)

    def _encode_in_new_thread(self, index: int) -> Inputs:
        """The tracer does not follow: tokenizers make thousands of Python calls a text."""
        with ThreadPoolExecutor(max_workers=1) as executor:
            return executor.submit(self.workload.encode, index).result()
