"""What to know of the compared runs themselves before relying on their values."""

from __future__ import annotations

from utils.comparison.compatibility import check_repeats
from utils.comparison.loading import Side, copy_warnings
from utils.schema.warning_codes import WarningCode


def side_warnings(baseline: Side, candidate: Side, *, force: bool) -> list[str]:
    """The warnings about the runs of both sides.

    Raises:
        UserError: the runs of a side are no repeats of each other, and ``force`` is false.
    """
    warnings = copy_warnings(baseline, candidate)
    for side in (baseline, candidate):
        warnings += check_repeats(side, force=force)
        warnings += _unstable_rows(side)
        warnings += _shared_gpu(side)
        warnings += _resumed_rows(side)
        for run in side.runs:
            warnings += run.warnings
    return warnings


def _unstable_rows(side: Side) -> list[str]:
    """The batch sizes that a process itself marked as not stable."""
    batch_sizes = set()
    for run in side.runs:
        for row in run.rows().values():
            if row.stable is False:
                batch_sizes.add(row.batch_size)
    if not batch_sizes:
        return []
    named = ", ".join(map(str, sorted(batch_sizes)))
    warning = WarningCode.SPREAD.warn(
        f"the {side.name} was not stable at batch size {named} in at least one process; the "
        "warnings of that run say why"
    )
    return [warning]


def _shared_gpu(side: Side) -> list[str]:
    is_shared = any(run.metrics.measurement.gpu_shared for run in side.runs)
    if not is_shared:
        return []
    return [
        WarningCode.SHARED.warn(f"another process used the GPU while the {side.name} was measured")
    ]


def _resumed_rows(side: Side) -> list[str]:
    """Rows of an evaluation that an earlier process predicted, perhaps at another speed."""
    num_resumed = 0
    for run in side.runs:
        if run.evaluation is not None:
            num_resumed += run.evaluation.resumed_rows
    if not num_resumed:
        return []
    warning = WarningCode.RESUMED.warn(
        f"{num_resumed:,} rows of the {side.name} were predicted by an interrupted process before; "
        "their time counts in the speed of the evaluation"
    )
    return [warning]
