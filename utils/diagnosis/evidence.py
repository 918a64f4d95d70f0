"""What was measured and counted at one batch size, and the time that each cause explains."""

from __future__ import annotations

from utils.schema.diagnosis import EvidenceRecord, Shares


class Evidence(EvidenceRecord):
    """The record of one batch size, with what follows from its numbers."""

    @property
    def input_ms(self) -> float:
        """Time before and after the forward: tokenising and copying."""
        return self.tokenize_ms + self.host_to_device_ms + self.device_to_host_ms

    @property
    def total_ms(self) -> float:
        """Time of the batch, from texts to logits on the host."""
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

        Where the device's busy time is known, it is the device's idle time. Otherwise it is the
        time to start the operators or, if that is more, the part that does not grow with the batch,
        less the time at the ceilings. With a time t(B) = a + b B for a batch of B texts, that part
        is a = 2 t(B) - t(2B) = (1 - growth) t(B), where growth = t(2B) / t(B) - 1.
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
    def shares(self) -> Shares:
        """What each cause explains."""
        return Shares(
            input=self.input_ms / self.total_ms,
            compute=min(1.0, self.matmul_limited_ms / self.forward_ms),
            memory=min(1.0, self.copy_limited_ms / self.forward_ms),
            overhead=min(1.0, self.overhead_ms / self.forward_ms),
        )
