"""What a timed run writes down, and the fields of ``Run`` that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch


class BatchTimes(NamedTuple):
    """Nanoseconds of ``time.perf_counter_ns`` in one batch."""

    started: int
    tokenized: int
    on_device: int
    launched: int
    computed: int
    on_host: int

    def phase_seconds(self) -> tuple[float, float, float, float]:
        """Seconds of each phase, in the order of ``PHASES``."""
        return (
            (self.tokenized - self.started) / 1e9,
            (self.on_device - self.tokenized) / 1e9,
            (self.computed - self.on_device) / 1e9,
            (self.on_host - self.computed) / 1e9,
        )


@dataclass(kw_only=True, slots=True)
class RunLog:
    """What a timed run writes down; evaluated after the clock has stopped.

    Args:
        stamps: one row per batch, the fields of ``BatchTimes``.
        events: CUDA events before and after each call of the model.
        logits: per batch, ``[batch, labels]`` in float32 on the host.
        masks: per batch, ``[batch, tokens]``, 1 for real tokens.
    """

    num_full_batches: int
    events: list[tuple[Any, Any]]
    stamps: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    logits: list[torch.Tensor] = field(default_factory=list)
    masks: list[torch.Tensor] = field(default_factory=list)

    def run_fields(self) -> dict[str, Any]:
        """The fields of ``Run`` that only the workload knows."""
        times = [BatchTimes(*stamps) for stamps in self.stamps]
        launch_seconds: tuple[float, ...] = ()
        if self.events:
            launch_seconds = tuple((batch.launched - batch.on_device) / 1e9 for batch in times)
        real_tokens = sum(int(mask.sum()) for mask in self.masks)
        all_tokens = sum(mask.numel() for mask in self.masks)
        return {
            "num_batches": len(times),
            "num_full_batches": self.num_full_batches,
            "phase_seconds": tuple(batch.phase_seconds() for batch in times),
            "launch_seconds": launch_seconds,
            "device_seconds": tuple(begin.elapsed_time(end) / 1e3 for begin, end in self.events),
            "real_tokens": real_tokens,
            "padding_tokens": all_tokens - real_tokens,
        }
