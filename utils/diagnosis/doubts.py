"""Why a verdict may be wrong although its numbers are clear: the machine, or two times that differ.

Step 02 and step 03 measure the same batches. What shows that one of them was disturbed lowers the
confidence of the verdict.
"""

from __future__ import annotations

from utils.core.rounding import three_digits
from utils.diagnosis.evidence import Evidence
from utils.schema.batch_size import BatchSizeRow
from utils.schema.diagnosis import Bottleneck
from utils.sweep.noise import CPU_WAIT_LIMIT

MAX_SPREAD = 0.10
"""Distance of the middle repeat from the fastest one, over the fastest. As pyperf's limit of the
standard deviation over the mean."""
MIN_DIFFERENCE = 0.10
"""Forward times of two steps that are nearer to each other are the same, whatever they spread."""
SAME_WORK = 0.10
"""Batches whose FLOPs differ by more are other batches: a large model's diagnosis takes fewer."""


def find_doubts(evidence: Evidence, row: BatchSizeRow | None) -> tuple[str, ...]:
    """Why the verdict of a batch size is of low confidence; empty where nothing is known.

    Args:
        row: the same batch size in the batch-size sweep; None where it was not measured.
    """
    doubts = []
    if evidence.time_spread > MAX_SPREAD:
        doubts.append(
            f"the fastest and the middle repeat of its batches are {evidence.time_spread:.0%} apart"
        )
    if row is None:
        return tuple(doubts)
    if row.stable is False:
        doubts.append("its runs in the batch-size sweep are not stable")
    if row.cpu_wait_fraction is not None and row.cpu_wait_fraction > CPU_WAIT_LIMIT:
        doubts.append(f"threads waited for a CPU in {row.cpu_wait_fraction:.0%} of their time")
    if forward_times_differ(evidence, row):
        assert row.forward_ms_mean is not None
        doubts.append(
            f"its forward pass takes {three_digits(row.forward_ms_mean)} ms in the batch-size "
            f"sweep (mean) and {three_digits(evidence.forward_ms)} ms in the diagnosis (fastest "
            "repeat)"
        )
    return tuple(doubts)


def forward_times_differ(evidence: Evidence, row: BatchSizeRow) -> bool:
    """Whether the forward times of step 02 and step 03 differ by more than both spread.

    The sweep's is the mean of all runs, the diagnosis's the fastest repeat: its middle repeat is
    what is compared. False where one is not known, or where the batches are not the same.
    """
    if row.forward_ms_mean is None or not _is_same_work(evidence, row):
        return False
    middle_ms = evidence.forward_ms * (1 + evidence.time_spread)
    difference = abs(row.forward_ms_mean / middle_ms - 1)
    return difference > max(MIN_DIFFERENCE, evidence.time_spread + (row.cv or 0.0))


def _is_same_work(evidence: Evidence, row: BatchSizeRow) -> bool:
    """Whether an average batch has the same FLOPs; without FLOPs it is taken for granted."""
    if not row.flops_per_sample or not evidence.flops:
        return True
    flops = row.flops_per_sample * evidence.batch_size
    return abs(flops / evidence.flops - 1) <= SAME_WORK


def with_doubts(bottleneck: Bottleneck, doubts: tuple[str, ...]) -> Bottleneck:
    """The verdict, of low confidence where there are doubts."""
    if not doubts:
        return bottleneck
    return bottleneck.model_copy(update={"confidence": "low", "doubts": doubts})
