"""InferenceProfiler: warm-up, repeated measurement, batch sizes held against each other over the same texts."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import torch

from utils.core import console
from utils.core.errors import UserError
from utils.metrics import BatchSizeRecord, Measurement, MetricsCollector, Run, summarise_runs

LOGIT_TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference, relative to the largest logit, that rounding may make between two runs of one batch."""


@dataclass(kw_only=True, slots=True)
class _Trial:
    """One batch size of a sweep: its texts, what an untimed run answered, and the runs so far."""

    batch_size: int
    texts: list[str]
    expected: torch.Tensor | None = None
    flops_per_sample: float | None = None
    runs: list[Run] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failed: str | None = None


class InferenceProfiler:
    """Measures a sequence classifier.

    Args:
        model: answers with ``logits`` of shape ``[batch, labels]``; in eval mode, on ``device``.
        tokenizer: pads to the longest text of a batch.
        device: ``cuda``, ``cuda:N`` or ``cpu``.
        gpu_sample_interval_ms: milliseconds between two NVML readings.
    """

    def __init__(
        self, model: Any, tokenizer: Any, device: str | torch.device = "cuda", gpu_sample_interval_ms: float = 20.0
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.device = torch.device(device)
        self.collector = MetricsCollector(self.device, gpu_sample_interval_ms)

    def first_inference_ms(self, texts: Sequence[str], max_length: int) -> float:
        """Milliseconds of one text, end to end. Cold when nothing has run on this model before."""
        self.collector.synchronize()
        started = time.perf_counter_ns()
        self._infer(list(texts[:1]), max_length)
        return (time.perf_counter_ns() - started) / 1e6

    def profile_multiple_batch_sizes(
        self, texts: Sequence[str], batch_sizes: Sequence[int], num_runs: int = 10, max_length: int = 512,
        num_warmup_runs: int = 3, seed: int = 0, on_event: Callable[[str], None] = console.say,
    ) -> tuple[BatchSizeRecord, ...]:
        """Measure each batch size ``num_runs`` times over all ``texts``.

        Batch sizes take turns, in a seeded order of their own in each round, so that a drifting machine does not look like an
        effect of batch size.

        Returns:
            A record for each batch size, in the order given.

        Raises:
            UserError: no texts, or impossible numbers.
        """
        _check(texts, batch_sizes, num_runs)
        trials = [_Trial(batch_size=size, texts=_enough(texts, size)) for size in batch_sizes]
        for trial in trials:
            if len(trial.texts) > len(texts):
                trial.warnings.append(f"batch size {trial.batch_size} is larger than the sample of {len(texts)}: texts repeat")
        self._warm_up(trials, max_length, num_warmup_runs, on_event)
        ready = [trial for trial in trials if trial.failed is None]
        for trial in ready:
            on_event(f"Profiling batch size: {trial.batch_size}")
        order = random.Random(seed)
        with console.progress(total=num_runs * len(ready), what="Measuring", unit="run") as bar:
            for _ in range(num_runs):
                for trial in order.sample(ready, len(ready)):
                    if trial.failed is None:
                        self._measure(trial, max_length)
                    bar.update()
        records = tuple(_record(trial) for trial in trials)
        for record in records:
            for line in ("", *result_lines(record)):
                on_event(line)
        return records

    def _warm_up(self, trials: list[_Trial], max_length: int, rounds: int, on_event: Callable[[str], None]) -> None:
        """Run every shape that will be measured; from the smallest batch on, until one does not fit."""
        on_event(f"Warming up model ({rounds} iterations)...")
        too_large: int | None = None
        for trial in sorted(trials, key=lambda item: item.batch_size):
            if too_large is not None:
                trial.failed = f"not tried: batch size {too_large} ran out of memory"
                continue
            try:
                for _ in range(rounds):
                    self._run_once(trial, max_length)
                trial.expected = self._run_once(trial, max_length)
                trial.flops_per_sample = self._count_flops(trial, max_length)
            except torch.OutOfMemoryError as error:
                trial.failed = f"out of memory: {str(error).splitlines()[0]}"
                too_large = trial.batch_size
            self._give_memory_back()
        on_event("Warmup complete!")

    def _measure(self, trial: _Trial, max_length: int) -> None:
        logits: list[torch.Tensor] = []
        try:
            with self.collector.measure(trial.batch_size, len(trial.texts)) as measurement:
                logits = self._timed_run(trial, max_length, measurement)
        except torch.OutOfMemoryError as error:
            trial.failed = f"out of memory while measuring: {str(error).splitlines()[0]}"
        if trial.failed is not None:
            self._give_memory_back()
            return
        assert measurement.run is not None
        trial.runs.append(measurement.run)
        _check_outputs(trial, torch.cat(logits), self.model)

    def _timed_run(self, trial: _Trial, max_length: int, measurement: Measurement) -> list[torch.Tensor]:
        """The workload: tokenise, copy, forward, copy back, for each batch. Nothing else."""
        clock, size, texts = time.perf_counter_ns, trial.batch_size, trial.texts
        synchronize = self.collector.synchronize
        answers, masks, batch_seconds, phases = [], [], [], [0, 0, 0, 0]
        with torch.inference_mode():
            for start in range(0, len(texts), size):
                t0 = clock()
                host = self._tokenize(texts[start : start + size], max_length)
                t1 = clock()
                batch = {name: tensor.to(self.device) for name, tensor in host.items()}
                synchronize()
                t2 = clock()
                logits = self.model(**batch).logits
                synchronize()
                t3 = clock()
                answers.append(logits.float().cpu())
                t4 = clock()
                for i, spent in enumerate((t1 - t0, t2 - t1, t3 - t2, t4 - t3)):
                    phases[i] += spent
                if start + size <= len(texts):
                    batch_seconds.append((t4 - t0) / 1e9)
                masks.append(host["attention_mask"])
        measurement.batch_seconds, measurement.phase_seconds = batch_seconds, [spent / 1e9 for spent in phases]
        measurement.num_batches = len(masks)
        measurement.real_tokens = sum(int(mask.sum()) for mask in masks)
        measurement.padded_tokens = sum(mask.numel() for mask in masks) - measurement.real_tokens
        return answers

    def _run_once(self, trial: _Trial, max_length: int) -> torch.Tensor:
        size = trial.batch_size
        return torch.cat([self._infer(trial.texts[i : i + size], max_length) for i in range(0, len(trial.texts), size)])

    def _infer(self, texts: list[str], max_length: int) -> torch.Tensor:
        with torch.inference_mode():
            batch = {name: tensor.to(self.device) for name, tensor in self._tokenize(texts, max_length).items()}
            return self.model(**batch).logits.float().cpu()  # type: ignore[no-any-return]

    def _tokenize(self, texts: list[str], max_length: int) -> dict[str, torch.Tensor]:
        encoded = self.tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        batch = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        if batch["input_ids"].shape[1] == 0:
            # Nothing but empty texts: a model cannot run on no token at all, so each gets one of padding.
            rows = len(texts)
            batch["input_ids"] = torch.full((rows, 1), self.tokenizer.pad_token_id or 0, dtype=torch.long)
            batch["attention_mask"] = torch.zeros((rows, 1), dtype=torch.long)
        return {name: tensor.long() for name, tensor in batch.items()}

    def _count_flops(self, trial: _Trial, max_length: int) -> float | None:
        """FLOPs a sample as executed, padding included, of every operator that has a formula."""
        from utils.analysis.costs import count

        costs = count(lambda: self._run_once(trial, max_length))
        total = sum(cost.flops for cost in costs if cost.flops)
        return total / len(trial.texts) if total else None

    def _give_memory_back(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def optimal_batch_size(records: Sequence[BatchSizeRecord]) -> dict[str, Any] | None:
    """The batch size with the highest mean throughput, and those whose 95% interval overlaps its own; None where all failed."""
    measured = [record for record in records if record.throughput_samples_per_sec.mean is not None]
    if not measured:
        return None
    best = max(measured, key=lambda record: record.throughput_samples_per_sec.mean or 0.0)
    low = best.throughput_samples_per_sec_ci95_low
    tied = [
        record.batch_size for record in measured
        if record is not best and low is not None and (record.throughput_samples_per_sec_ci95_high or 0.0) >= low
    ]
    return {
        "batch_size": best.batch_size,
        "throughput_samples_per_sec_mean": best.throughput_samples_per_sec.mean,
        "latency_per_sample_ms_mean": best.latency_per_sample_ms.mean,
        "criterion": "highest mean throughput within memory",
        "tied_with": tied,
    }


def result_lines(record: BatchSizeRecord) -> list[str]:
    """The block of one batch size for the terminal."""
    head = f"Batch Size {record.batch_size}:"
    if record.status != "ok":
        return [head, f"  {record.warnings[0]}"]
    latency, rate = record.latency_per_sample_ms, record.throughput_samples_per_sec
    spread = "" if latency.std is None else f" (std {latency.std:,.2f})"
    memory = ("GPU Memory (peak)", record.peak_gpu_mem) if record.peak_gpu_mem is not None else ("CPU Memory", record.cpu_mem_used)
    return [
        head, f"  Latency/sample: {latency.mean:,.2f} ms{spread}", f"  Throughput: {rate.mean:,.2f} samples/sec",
        f"  {memory[0]}: {memory[1]:,.2f} MB",
    ]


def _check(texts: Sequence[str], batch_sizes: Sequence[int], num_runs: int) -> None:
    if not texts:
        raise UserError("There are no texts to measure with.", where="dataset.sample_sizes", fix="give at least one text")
    if not batch_sizes or min(batch_sizes) < 1 or len(set(batch_sizes)) < len(batch_sizes):
        raise UserError(f"Batch sizes cannot be {list(batch_sizes)}.", where="batch_sizes", fix="each once, each at least 1")
    if num_runs < 1:
        raise UserError(f"num_runs cannot be {num_runs}.", where="num_runs", fix="at least 1; 10 for a spread worth the name")


def _enough(texts: Sequence[str], size: int) -> list[str]:
    return list(islice(cycle(texts), max(len(texts), size)))


def _record(trial: _Trial) -> BatchSizeRecord:
    if trial.failed is not None:
        return BatchSizeRecord(
            batch_size=trial.batch_size, status="oom", num_runs=0, num_samples=len(trial.texts),
            warnings=(trial.failed, *trial.warnings),
        )
    return summarise_runs(
        trial.batch_size, trial.runs, flops_per_sample=trial.flops_per_sample, warnings=list(dict.fromkeys(trial.warnings))
    )


def _check_outputs(trial: _Trial, logits: torch.Tensor, model: Any) -> None:
    """A fast wrong answer is no measurement: timed outputs are those of the untimed run."""
    expected = trial.expected
    assert expected is not None
    tolerance = LOGIT_TOLERANCE.get(getattr(model, "dtype", torch.float32), 1e-4) * max(1.0, float(expected.abs().max()))
    difference = float((logits - expected).abs().max())
    flipped = int((logits.argmax(-1) != expected.argmax(-1)).sum())
    if not difference <= tolerance:
        trial.warnings.append(
            f"outputs: timed and untimed logits differ by up to {difference:.2g} (limit {tolerance:.2g}), {flipped} labels differ"
        )
