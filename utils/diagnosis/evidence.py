"""What was measured and counted at one batch size, and the time that each cause explains."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from utils.diagnosis.forecast import TimedForward


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Numbers of one batch size, per batch; latencies come from untraced runs.

    Args:
        matmul_limited_ms, copy_limited_ms: time at the ceilings of the operators that each limits.
        op_calls: operators started in one forward; ``dispatch_us`` is what starting one takes.
        device_busy_ms: CUDA kernels' merged time in a forward; None on the CPU and where it is not
            measured.
        doubling_growth: by how much a batch put twice into one takes longer (1 is twice); None
            where it was not tried.
        unknown_operators: operators without a FLOP formula; their bytes count, their FLOPs are not
            in ``flops``.
        timed: each batch's forward, and parts of one batch.
        time_spread: the middle repeat's time over the fastest's, less 1.
        ceiling_spread: the same of the ceilings.
    """

    device: str
    batch_size: int
    tokenize_ms: float
    host_to_device_ms: float
    forward_ms: float
    device_to_host_ms: float
    matmul_limited_ms: float
    copy_limited_ms: float
    op_calls: float
    dispatch_us: float
    flops: float
    bytes_moved: float
    device_busy_ms: float | None = None
    doubling_growth: float | None = None
    padding_fraction: float | None = None
    unknown_operators: tuple[str, ...] = ()
    timed: tuple[TimedForward, ...] = ()
    time_spread: float = 0.0
    ceiling_spread: float = 0.0

    @property
    def input_ms(self) -> float:
        return self.tokenize_ms + self.host_to_device_ms + self.device_to_host_ms

    @property
    def total_ms(self) -> float:
        return self.input_ms + self.forward_ms

    @property
    def roofline_ms(self) -> float:
        """Time of the forward at the ceilings; at most what was measured (caches can beat one)."""
        return min(self.forward_ms, self.matmul_limited_ms + self.copy_limited_ms)

    @property
    def starting_ms(self) -> float:
        """What the host takes to start the operators of a forward."""
        return self.op_calls * self.dispatch_us / 1e3

    @property
    def overhead_ms(self) -> float:
        """Forward time that is neither arithmetic nor copying: the host's work to start operators.

        On CUDA it is the device's idle time. On the CPU it is the time to start the operators or,
        if that is more, the part that does not grow when the batch is doubled (2 t(B) - t(2B) of a
        straight line), less the time at the ceilings.
        """
        if self.device_busy_ms is not None:
            return max(0.0, self.forward_ms - self.device_busy_ms)
        growth = 1.0
        if self.doubling_growth is not None:
            growth = max(0.0, self.doubling_growth)
        fixed_ms = (1 - growth) * self.forward_ms - self.roofline_ms
        return min(self.forward_ms, max(self.starting_ms, fixed_ms))

    @property
    def padding_ms(self) -> float:
        """Forward time spent on padding; starting operators does not shrink with the tokens."""
        return (self.padding_fraction or 0.0) * (self.forward_ms - self.overhead_ms)

    @property
    def shares(self) -> dict[str, float]:
        """Parts of the forward (``input``: of the batch) that causes explain; at most 1 each."""
        return {
            "input": self.input_ms / self.total_ms,
            "compute": min(1.0, self.matmul_limited_ms / self.forward_ms),
            "memory": min(1.0, self.copy_limited_ms / self.forward_ms),
            "overhead": min(1.0, self.overhead_ms / self.forward_ms),
        }

    def to_dict(self) -> dict[str, Any]:
        record = asdict(self)
        for name, share in self.shares.items():
            record[f"{name}_share"] = share
        record["overhead_ms"] = self.overhead_ms
        record["padding_ms"] = self.padding_ms
        return record
