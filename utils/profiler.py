"""InferenceProfiler: a classifier's inference timed batch by batch, with its outputs checked."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

import torch

from utils.core.errors import UserError
from utils.metrics import MetricsCollector
from utils.model.lengths import check_max_length
from utils.pipeline import console
from utils.pipeline.hints import python_arguments
from utils.schema.batch_size import BatchSizeRow
from utils.schema.sweep_checkpoint import GpuReadings, WarmUpPass
from utils.schema.warning_codes import WarningCode
from utils.sweep.batch_runner import BatchRunner
from utils.sweep.bench_stats import BETWEEN_PROCESS_CV
from utils.sweep.latency_target import search_latency_edge
from utils.sweep.run_outputs import count_label_changes, describe_mismatch, logit_tolerance
from utils.sweep.schedule import (
    SweepSettings,
    SweepState,
    Trial,
    new_state,
    run_rounds,
)
from utils.sweep.sweep_output import announce_trials, print_rows
from utils.system.device import catch_out_of_memory
from utils.system.process import frozen_objects, use_tokenizer_threads_of_sweep

RERUN_TOLERANCE = 0.1
"""Share of LOGIT_TOLERANCE for one batch run twice: the same kernels sum in (nearly) the same
order."""


class InferenceProfiler:
    """Measures a sequence classifier.

    Args:
        model: returns ``logits`` of shape ``[batch, labels]``; in eval mode, on ``device``.
        tokenizer: pads to the longest text of a batch.
        device: ``cuda``, ``cuda:N`` or ``cpu``.
        gpu_sample_interval_ms: time between two readings of NVML.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        device: str | torch.device = "cuda",
        gpu_sample_interval_ms: float = 20.0,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.collector = MetricsCollector(device, gpu_sample_interval_ms)
        self.device = self.collector.device
        self._on_cuda = self.device.type == "cuda"
        self._runner = BatchRunner(model, tokenizer, self.device)

    def first_inference_ms(self, texts: Sequence[str], max_length: int) -> float:
        """Milliseconds of one text, end to end. Cold if nothing has run on this model before."""
        self.collector.synchronize()
        with use_tokenizer_threads_of_sweep(self.device.type):
            started_ns = time.perf_counter_ns()
            self._runner.infer(list(texts[:1]), max_length)
            return (time.perf_counter_ns() - started_ns) / 1e6

    def idle_readings(self) -> GpuReadings:
        """The GPU's readings while this process gives it nothing to do.

        They show the idle power, and whether others use the GPU.
        """
        self.collector.monitor.mark(step="idle")
        readings = self.collector.monitor.idle()
        self.collector.monitor.mark()
        return readings

    @python_arguments()
    def profile_multiple_batch_sizes(
        self,
        texts: Sequence[str],
        batch_sizes: Sequence[int],
        num_runs: int = 10,
        max_length: int = 512,
        on_event: Callable[[str], None] = console.print_line,
        **settings: Any,
    ) -> tuple[BatchSizeRow, ...]:
        """Measure each batch size at least ``num_runs`` times over all ``texts``.

        Args:
            on_event: receives each line of progress and results.
            settings: more fields of ``SweepSettings``: ``num_warmup_runs``, ``seed``, ...

        Returns:
            A record for each batch size, in the order given.

        Raises:
            UserError: no texts, or impossible numbers.
        """
        state = new_state(len(texts), batch_sizes)
        sweep_settings = SweepSettings(num_runs=num_runs, max_length=max_length, **settings)
        self.sweep(texts, state, sweep_settings, on_event=on_event)
        return tuple(trial.record() for trial in state.trials)

    def sweep(
        self,
        texts: Sequence[str],
        state: SweepState,
        settings: SweepSettings,
        *,
        on_event: Callable[[str], None] = console.print_line,
        after_warm_up: Callable[[SweepState], None] = lambda state: None,
        after_round: Callable[[SweepState], None] = lambda state: None,
    ) -> None:
        """Measure what ``state`` lacks.

        ``after_round`` may save the state, so that an interrupted sweep can be resumed.
        ``after_warm_up`` is called once, before the first run; it may say how long the rest takes.

        Raises:
            UserError: no run is asked for, or texts longer than the model has positions for.
        """
        if settings.num_runs < 1:
            raise UserError(
                f"num_runs must be at least 1, not {settings.num_runs}.",
                where="num_runs",
                fix="use 10 or more for a usable standard deviation",
            )
        check_max_length(settings.max_length, self.model)
        self._set_process_spread(state, settings)
        with (
            self.collector.monitor.sampling(),
            frozen_objects(),
            use_tokenizer_threads_of_sweep(self.device.type),
        ):
            expected: dict[int, torch.Tensor] = {}
            if state.unfinished(settings):
                expected = self._warm_up(texts, state, settings, on_event)
            after_warm_up(state)
            announce_trials(state.unfinished(settings), on_event)

            def measure(trial: Trial) -> None:
                self._measure(trial, texts, expected[trial.batch_size], settings.max_length)

            run_rounds(state, settings, measure, after_round)
            self._measure_sustained_runs(texts, state, settings)
            after_round(state)
            self._search_latency_edge(texts, state, settings, expected)
            after_round(state)
        print_rows(state.trials, on_event)

    def _search_latency_edge(
        self,
        texts: Sequence[str],
        state: SweepState,
        settings: SweepSettings,
        expected: dict[int, torch.Tensor],
    ) -> None:
        """Measure what the latency target needs, each batch size after a warm-up of its own."""

        def measure(trial: Trial) -> None:
            size = trial.batch_size
            if size not in expected:
                logits = self._warm_up_trial(trial, texts, settings)
                if logits is None:
                    return
                expected[size] = logits
            self._measure(trial, texts, expected[size], settings.max_length)

        search_latency_edge(state, settings, measure)

    def _set_process_spread(self, state: SweepState, settings: SweepSettings) -> None:
        spread = settings.process_spread
        if spread is None:
            spread = BETWEEN_PROCESS_CV.get(self.device.type)
        for trial in state.trials:
            trial.process_spread = spread

    def _warm_up(
        self,
        texts: Sequence[str],
        state: SweepState,
        settings: SweepSettings,
        on_event: Callable[[str], None],
    ) -> dict[int, torch.Tensor]:
        """Run every shape that will be measured, from the smallest batch on, until one fails.

        Returns:
            The untimed logits ``[samples, labels]`` by batch size.
        """
        expected: dict[int, torch.Tensor] = {}
        on_event(f"Warming up model ({settings.num_warmup_runs} iterations)...")
        self.collector.monitor.mark(step="warm-up")
        unfinished = state.unfinished(settings)
        num_passes = len(unfinished) * (settings.num_warmup_runs + 1)
        with console.progress(total=num_passes, what="Warming up", unit="pass") as bar:
            too_large: int | None = None
            for trial in sorted(unfinished, key=lambda item: item.batch_size):
                if too_large is not None and not settings.try_all_batch_sizes:
                    trial.mark_failed(
                        "not_tried", f"not tried: batch size {too_large} ran out of memory"
                    )
                    continue
                logits = self._warm_up_trial(trial, texts, settings, bar.update)
                if logits is None:
                    too_large = trial.batch_size
                    continue
                expected[trial.batch_size] = logits
                self._compare_with_first(trial, expected)
        on_event("Warmup complete!")
        return expected

    def _warm_up_trial(
        self,
        trial: Trial,
        texts: Sequence[str],
        settings: SweepSettings,
        on_pass: Callable[[], object] = lambda: None,
    ) -> torch.Tensor | None:
        """The trial's untimed logits; None if it does not fit into memory."""
        sample = _repeat_to_length(texts, trial.num_samples)
        size = trial.batch_size
        with catch_out_of_memory() as memory:
            for _ in range(settings.num_warmup_runs):
                self._runner.run_untimed(sample, size, settings.max_length)
                on_pass()
            started_s = time.perf_counter()
            logits = self._runner.run_untimed(sample, size, settings.max_length)
            pass_s = time.perf_counter() - started_s
            on_pass()
            flops = self._runner.flops_per_sample(sample, size, settings.max_length)
            trial.flops_per_sample = flops.value
            trial.flops_reason = flops.reason
        if memory.reason is not None:
            trial.mark_failed("oom", f"out of memory: {memory.reason}")
            # Only here: a batch size that fits stays warm, its memory in the allocator's cache.
            self._release_memory()
            return None
        real_tokens, computed_tokens = self._runner.count_tokens(sample, size, settings.max_length)
        trial.warm_up = WarmUpPass(
            seconds=pass_s, real_tokens=real_tokens, computed_tokens=computed_tokens
        )
        trial.num_truncated = self._runner.count_truncated(sample, settings.max_length)
        return logits

    def _compare_with_first(self, trial: Trial, expected: dict[int, torch.Tensor]) -> None:
        """Warn if padding changes results: logits of two batch sizes differ beyond rounding."""
        first_size = next(iter(expected))
        first = expected[first_size]
        logits = expected[trial.batch_size]
        rows = min(len(first), len(logits))
        mismatch = describe_mismatch(logits[:rows], first[:rows], self._logit_tolerance(first))
        if mismatch is not None:
            trial.warnings.append(
                WarningCode.OUTPUTS.warn(
                    f"batch sizes {trial.batch_size} and {first_size}: {mismatch}"
                )
            )

    def _measure(
        self, trial: Trial, texts: Sequence[str], expected: torch.Tensor, max_length: int
    ) -> None:
        """One timed run, added to the trial; fails it if memory runs out or logits are wrong."""
        monitor = self.collector.monitor
        monitor.mark(step="sweep", batch_size=trial.batch_size, run=len(trial.runs) + 1)
        sample = _repeat_to_length(texts, trial.num_samples)
        log = self._runner.allocate_log(len(sample), trial.batch_size)
        with (
            catch_out_of_memory() as memory,
            self.collector.measure(trial.batch_size, len(sample)) as measurement,
        ):
            self._runner.run_timed(sample, trial.batch_size, max_length, log)
            measurement.extra_fields = log.run_fields
        monitor.mark()
        if memory.reason is not None:
            trial.mark_failed("oom", f"out of memory while measuring: {memory.reason}")
            self._release_memory()
            return
        assert measurement.run is not None
        trial.runs.append(measurement.run)
        self._check_logits(trial, torch.cat(log.logits), expected)

    def _check_logits(self, trial: Trial, logits: torch.Tensor, expected: torch.Tensor) -> None:
        """Withhold the metrics of a trial whose timed logits are not the untimed ones."""
        tolerance = RERUN_TOLERANCE * self._logit_tolerance(expected)
        mismatch = describe_mismatch(logits, expected, tolerance)
        if mismatch is not None:
            trial.mark_failed(
                "wrong_outputs", f"timed and untimed outputs: {mismatch}; no metrics are given"
            )
            return
        changed = count_label_changes(logits, expected)
        if changed:
            trial.warnings.append(
                WarningCode.OUTPUTS.warn(
                    f"{changed} labels of timed runs differ from untimed ones, by rounding alone"
                )
            )

    def _measure_sustained_runs(
        self, texts: Sequence[str], state: SweepState, settings: SweepSettings
    ) -> None:
        """Runs back to back for each batch size whose runs are too short for NVML's averages."""
        monitor = self.collector.monitor
        if not self._on_cuda or monitor.reason is not None:
            return
        for trial in console.progress(state.trials, what="Reading the GPU", unit="batch size"):
            if trial.status != "ok" or trial.sustained_run is not None or not trial.runs:
                continue
            shortest_s = min(run.seconds for run in trial.runs)
            if shortest_s >= settings.min_window_seconds:
                continue
            monitor.mark(step="window", batch_size=trial.batch_size)
            repeats = math.ceil(settings.min_window_seconds / shortest_s)
            self._measure_sustained_run(trial, texts, settings.max_length, repeats)
            monitor.mark()

    def _measure_sustained_run(
        self, trial: Trial, texts: Sequence[str], max_length: int, repeats: int
    ) -> None:
        """``repeats`` runs without a pause; their times are in no other metric."""
        sample = _repeat_to_length(texts, trial.num_samples)
        size = trial.batch_size
        logs = [self._runner.allocate_log(len(sample), size) for _ in range(repeats)]
        with catch_out_of_memory() as memory:
            # A resumed sweep may have no warm shape yet.
            self._runner.run_untimed(sample, size, max_length)
            with self.collector.measure(size, repeats * len(sample)) as measurement:
                for log in logs:
                    self._runner.run_timed(sample, size, max_length, log)
            trial.sustained_run = measurement.run
        if memory.reason is not None:
            trial.warnings.append(
                WarningCode.GPU_READINGS.warn(
                    f"the longer runs for the GPU's readings ran out of memory: {memory.reason}"
                )
            )

    def _logit_tolerance(self, logits: torch.Tensor) -> float:
        dtype = getattr(self.model, "dtype", torch.float32)
        return logit_tolerance(logits, dtype, self.device)

    def _release_memory(self) -> None:
        gc.collect()
        if self._on_cuda:
            torch.cuda.empty_cache()


def _repeat_to_length(texts: Sequence[str], length: int) -> list[str]:
    return list(islice(cycle(texts), length))
