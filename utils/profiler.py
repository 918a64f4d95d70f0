"""InferenceProfiler: a classifier's inference timed batch by batch, its phases apart, its answers checked."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice, pairwise
from typing import Any

import torch

from utils.core import console
from utils.core.device import is_out_of_memory
from utils.core.errors import UserError, reason_of
from utils.core.hints import python_arguments
from utils.costs import count_op_costs
from utils.gpu_timeline import GpuReadings
from utils.metrics import MetricsCollector
from utils.model.checks import LOGIT_TOLERANCE, check_max_length
from utils.model.encoding import encode_batch, input_format, select_inputs
from utils.records import BatchSizeRecord
from utils.statistics import PROCESS_SPREAD
from utils.sweep import SweepSettings, SweepState, Trial, new_state, result_lines, run_rounds

SAME_BATCH = 0.1  # share of LOGIT_TOLERANCE for one batch run twice: the same kernels sum in the same order, or nearly so


@dataclass(kw_only=True, slots=True)
class _Work:
    """What a timed run leaves behind; made sense of once the clock has stopped.

    ``stamps`` are nanoseconds, by batch: before tokenising, tokenised, on the device, model's call returned, computed,
    on the host. ``events`` stand before and after the model's call on the CUDA stream.
    """

    full_batches: int
    events: list[tuple[Any, Any]]
    stamps: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    logits: list[torch.Tensor] = field(default_factory=list)
    masks: list[torch.Tensor] = field(default_factory=list)

    def details(self) -> dict[str, Any]:
        """The fields of ``Run`` that only the workload knows."""
        real = sum(int(mask.sum()) for mask in self.masks)
        return {
            "num_batches": len(self.stamps), "num_full_batches": self.full_batches,
            "phase_seconds": tuple(tuple((b - a) / 1e9 for a, b in pairwise((*s[:3], *s[4:]))) for s in self.stamps),
            "launch_seconds": tuple((s[3] - s[2]) / 1e9 for s in self.stamps) if self.events else (),
            "device_seconds": tuple(begin.elapsed_time(end) / 1e3 for begin, end in self.events),
            "real_tokens": real, "padded_tokens": sum(mask.numel() for mask in self.masks) - real,
        }


class InferenceProfiler:
    """Measures a sequence classifier.

    ``model`` answers with ``logits`` of shape ``[batch, labels]``, in eval mode, on ``device`` (``cuda``, ``cuda:N`` or
    ``cpu``); ``tokenizer`` pads to the longest text of a batch; NVML is read every ``gpu_sample_interval_ms``.
    """

    def __init__(
        self, model: Any, tokenizer: Any, device: str | torch.device = "cuda", gpu_sample_interval_ms: float = 20.0
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.collector = MetricsCollector(device, gpu_sample_interval_ms)
        self.device = self.collector.device
        self._cuda = self.device.type == "cuda"
        self._input_names = input_format(model, tokenizer).names
        self._flops_by_shape: dict[tuple[int, ...], int] = {}

    def first_inference_ms(self, texts: Sequence[str], max_length: int) -> float:
        """Milliseconds of one text, end to end. Cold when nothing has run on this model before."""
        self.collector.synchronize()
        started = time.perf_counter_ns()
        self._infer(list(texts[:1]), max_length)
        return (time.perf_counter_ns() - started) / 1e6

    def idle_readings(self) -> GpuReadings:
        """The GPU's readings while this process gives it nothing to do: idle power, and whether others use it."""
        self.collector.monitor.mark(step="idle")
        readings = self.collector.monitor.idle()
        self.collector.monitor.mark()
        return readings

    @python_arguments()
    def profile_multiple_batch_sizes(
        self, texts: Sequence[str], batch_sizes: Sequence[int], num_runs: int = 10, max_length: int = 512,
        on_event: Callable[[str], None] = console.say, **settings: Any,
    ) -> tuple[BatchSizeRecord, ...]:
        """Measure each batch size at least ``num_runs`` times over all ``texts``; a record each, in the order given.

        ``settings`` are further fields of ``SweepSettings``: ``num_warmup_runs``, ``seed``, ``target_relative_ci``, ...
        Raises UserError: no texts, or impossible numbers.
        """
        state = new_state(len(texts), batch_sizes)
        how = SweepSettings(num_runs=num_runs, max_length=max_length, **settings)
        self.sweep(texts, state, how, on_event=on_event)
        return tuple(trial.record() for trial in state.trials)

    def sweep(
        self, texts: Sequence[str], state: SweepState, settings: SweepSettings, *,
        on_event: Callable[[str], None] = console.say, after_round: Callable[[SweepState], None] = lambda state: None,
    ) -> None:
        """Measure what ``state`` lacks; ``after_round`` may keep it, so that a sweep that is cut can go on.
        Raises UserError: no run is asked for, or texts longer than the model has positions for."""
        if settings.num_runs < 1:
            fix = "at least 1; 10 for a spread worth the name"
            raise UserError(f"num_runs cannot be {settings.num_runs}.", where="num_runs", fix=fix)
        check_max_length(settings.max_length, self.model)
        monitor, expected = self.collector.monitor, dict[int, torch.Tensor]()

        def measure(trial: Trial) -> None:
            monitor.mark(step="sweep", batch_size=trial.batch_size, run=len(trial.runs) + 1)
            self._measure(trial, _enough(texts, trial), expected[trial.batch_size], settings.max_length)
            monitor.mark()

        known = PROCESS_SPREAD.get(self.device.type) if settings.process_spread is None else settings.process_spread
        for trial in state.trials:
            trial.process_spread = known
        with monitor.sampling(), ExitStack() as afterwards:
            gc.collect()
            gc.freeze()  # with all libraries loaded, the collection before each run would take 0.2 s
            afterwards.callback(gc.unfreeze)
            if unfinished := [trial for trial in state.trials if not trial.finished(settings)]:
                on_event(f"Warming up model ({settings.num_warmup_runs} iterations)...")
                monitor.mark(step="warm-up")
                self._warm_up(texts, unfinished, settings, expected)
                on_event("Warmup complete!")
            for trial in (trial for trial in state.trials if not trial.finished(settings)):
                if trial.runs:
                    trial.warnings.append(f"resumed: runs 1 to {len(trial.runs)} were measured by an earlier process")
                on_event(f"Profiling batch size: {trial.batch_size}")
            run_rounds(state, settings, measure, after_round)
            for trial in state.trials if self._cuda and monitor.reason is None else ():
                shortest_s = min((run.seconds for run in trial.runs), default=math.inf)
                if trial.status == "ok" and trial.window is None and shortest_s < settings.min_window_seconds:
                    monitor.mark(step="window", batch_size=trial.batch_size)
                    repeats = math.ceil(settings.min_window_seconds / shortest_s)
                    self._measure_window(trial, _enough(texts, trial), settings.max_length, repeats)
                    monitor.mark()
            after_round(state)
        for trial in state.trials:
            for line in ("", *result_lines(trial.record())):
                on_event(line)

    def _warm_up(
        self, texts: Sequence[str], trials: Sequence[Trial], settings: SweepSettings, expected: dict[int, torch.Tensor]
    ) -> None:
        """Run every shape that will be measured, from the smallest batch on, until one does not fit; keeps its answers."""
        too_large: int | None = None
        for trial in sorted(trials, key=lambda item: item.batch_size):
            if too_large is not None and not settings.try_all_batch_sizes:
                trial.give_up("not_tried", f"not tried: batch size {too_large} ran out of memory")
                continue
            work = _enough(texts, trial)
            with _memory_may_end(lambda why: trial.give_up("oom", f"out of memory: {why}")):  # noqa: B023 - called in this turn
                for _ in range(settings.num_warmup_runs):
                    self._run_once(work, trial.batch_size, settings.max_length)
                answers = self._run_once(work, trial.batch_size, settings.max_length)
                trial.flops_per_sample = self._count_flops(work, trial.batch_size, settings.max_length)
            if trial.status != "ok":  # what fits stays warm: its memory is in the allocator's cache
                too_large = trial.batch_size
                self._give_memory_back()
                continue
            expected[trial.batch_size] = answers
            trial.num_truncated = self._count_truncated(work, settings.max_length)
            # Padding must change no answer: a label that differs between batch sizes, beyond rounding, is worth a warning.
            size, first = next(iter(expected.items()))
            rows = min(len(first), len(answers))
            if wrong := _difference(answers[:rows], first[:rows], self._tolerance(first)):
                trial.warnings.append(f"outputs: batch sizes {trial.batch_size} and {size}: {wrong}")

    def _measure(self, trial: Trial, texts: list[str], expected: torch.Tensor, max_length: int) -> None:
        work = self._prepare(len(texts), trial.batch_size)
        with (
            _memory_may_end(lambda why: trial.give_up("oom", f"out of memory while measuring: {why}")),
            self.collector.measure(trial.batch_size, len(texts)) as measurement,
        ):
            self._timed_run(texts, trial.batch_size, max_length, work)
            measurement.details = work.details
        if trial.status != "ok":
            self._give_memory_back()
            return
        assert measurement.run is not None
        trial.runs.append(measurement.run)
        answers = torch.cat(work.logits)
        if wrong := _difference(answers, expected, SAME_BATCH * self._tolerance(expected)):
            trial.give_up("wrong_outputs", f"outputs: timed and untimed {wrong}; the figures are withheld")
        elif flipped := _flipped(answers, expected):
            trial.warnings.append(f"outputs: {flipped} labels of timed runs differ from untimed ones, by rounding alone")

    def _measure_window(self, trial: Trial, texts: list[str], max_length: int, repeats: int) -> None:
        """Runs back to back, long enough for what NVML averages; their times are in no other figure."""
        works = [self._prepare(len(texts), trial.batch_size) for _ in range(repeats)]
        what = "gpu_util, gpu_power, energy: out of memory in their window"
        with _memory_may_end(lambda why: trial.warnings.append(f"{what}: {why}")):
            self._run_once(texts, trial.batch_size, max_length)  # a resumed sweep may have no warm shape yet
            with self.collector.measure(trial.batch_size, repeats * len(texts)) as measurement:
                for work in works:
                    self._timed_run(texts, trial.batch_size, max_length, work)
            trial.window = measurement.run

    def _prepare(self, rows: int, batch_size: int) -> _Work:
        """What a timed run fills in, made before the clock starts."""
        batches = -(-rows // batch_size) if self._cuda else 0
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(batches)]
        return _Work(full_batches=rows // batch_size, events=events)

    def _timed_run(self, texts: list[str], size: int, max_length: int, work: _Work) -> None:
        """The workload: tokenise, copy, forward, copy back, for each batch. Nothing else."""
        clock, synchronize = time.perf_counter_ns, self.collector.synchronize
        events = iter(work.events)
        stream = torch.cuda.current_stream(self.device) if self._cuda else None  # the model's, not the current device's
        with torch.inference_mode():
            for start in range(0, len(texts), size):
                t0 = clock()
                host = encode_batch(self.tokenizer, texts[start : start + size], max_length)
                t1 = clock()
                batch = select_inputs(host, self._input_names, self.device)
                synchronize()
                begin, end = next(events, (None, None))
                t2 = clock()
                if begin is not None:
                    begin.record(stream)
                logits = self.model(**batch).logits
                if end is not None:
                    end.record(stream)
                launched = clock()
                synchronize()
                t3 = clock()
                work.logits.append(logits.float().cpu())
                work.stamps.append((t0, t1, t2, launched, t3, clock()))
                work.masks.append(host["attention_mask"])

    def _run_once(self, texts: list[str], size: int, max_length: int) -> torch.Tensor:
        return torch.cat([self._infer(texts[i : i + size], max_length) for i in range(0, len(texts), size)])

    def _infer(self, texts: list[str], max_length: int) -> torch.Tensor:
        with torch.inference_mode():
            encoded = encode_batch(self.tokenizer, texts, max_length)
            batch = select_inputs(encoded, self._input_names, self.device)
            return self.model(**batch).logits.float().cpu()  # type: ignore[no-any-return]

    def _count_truncated(self, texts: list[str], max_length: int) -> int | None:
        """How many texts are cut; None where the tokenizer does not tell."""
        encodings = getattr(self.tokenizer(texts, truncation=True, max_length=max_length), "encodings", None)
        return sum(bool(encoding.overflowing) for encoding in encodings) if encodings else None

    def _count_flops(self, texts: list[str], size: int, max_length: int) -> float | None:
        """FLOPs a sample as executed, padding included: of matrix products, convolutions and attention.

        They depend on the shape and on whether there is padding: causal attention without a mask computes half.
        """
        total = 0
        for start in range(0, len(texts), size):
            batch = encode_batch(self.tokenizer, texts[start : start + size], max_length)
            shape = (*batch["input_ids"].shape, bool(batch["attention_mask"].all()))
            if shape not in self._flops_by_shape:
                costs = count_op_costs(partial(self.model, **select_inputs(batch, self._input_names, self.device)))
                self._flops_by_shape[shape] = sum(cost.flops for cost in costs if cost.flops)
            total += self._flops_by_shape[shape]
        return total / len(texts) if total else None

    def _tolerance(self, logits: torch.Tensor) -> float:
        precision = str(getattr(self.model, "dtype", torch.float32)).removeprefix("torch.")
        return LOGIT_TOLERANCE.get(precision, LOGIT_TOLERANCE["float32"]) * max(1.0, float(logits.abs().max()))

    def _give_memory_back(self) -> None:
        gc.collect()
        if self._cuda:
            torch.cuda.empty_cache()


@contextmanager
def _memory_may_end(tell: Callable[[str], None]) -> Iterator[None]:
    """Out of memory is a result. Its memory can be given back after the block: inside, the error holds on to its tensors."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        tell(reason_of(error))


def _enough(texts: Sequence[str], trial: Trial) -> list[str]:
    return list(islice(cycle(texts), trial.num_samples))


def _difference(logits: torch.Tensor, expected: torch.Tensor, tolerance: float) -> str | None:
    """What is wrong with logits; None where they are the expected ones but for rounding."""
    largest = float((logits - expected).abs().max())
    if largest <= tolerance:
        return None
    flipped = _flipped(logits, expected)
    return f"logits differ by up to {largest:.2g} (limit {tolerance:.2g}), {flipped} of {len(logits)} labels differ"


def _flipped(logits: torch.Tensor, expected: torch.Tensor) -> int:
    return int((logits.argmax(-1) != expected.argmax(-1)).sum())
