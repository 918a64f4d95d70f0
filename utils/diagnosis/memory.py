"""What PyTorch's allocator hands out in a traced batch: what holds the peak, what modules add."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import pandas as pd
from torch import nn

from utils.diagnosis.kernels import STEP, Event, Interval
from utils.schema.profile import Allocation, PeakMemory

LARGEST_SHOWN = 5
MODULE_COLUMNS = ("memory_kept_mb", "memory_peak_mb")
NOT_SEEN_ON_CPU = "memory that was allocated before the trace is not seen on the CPU"
ALWAYS: Interval = (float("-inf"), float("inf"))


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMemory:
    """What the allocator gave out and took back within one step.

    Args:
        before: bytes allocated before it: nothing on the CPU, where earlier memory is not seen.
        changes: ``at_us``, ``change`` (bytes, negative where taken back), ``allocated`` (all bytes
            then, without ``before``) and ``address``, in order.
    """

    span: Interval
    before: int
    changes: pd.DataFrame

    @property
    def peak_bytes(self) -> int:
        """The most that was allocated on top of what was there before."""
        return max(0, int(self.changes["allocated"].max()))

    def allocated_at(self, at_us: float) -> int:
        """Bytes allocated on top of what was there before."""
        position = int(self.changes["at_us"].searchsorted(at_us, side="right"))
        if position == 0:
            return 0
        return int(self.changes["allocated"].iloc[position - 1])


@dataclass(frozen=True, kw_only=True, slots=True)
class _NamedRange:
    """Something that has a name in the trace, and when it began and ended."""

    name: str
    begin_us: float
    end_us: float

    @property
    def length_us(self) -> float:
        return self.end_us - self.begin_us


def weights_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, shared ones once."""
    return sum(tensor.nbytes for tensor in {*model.parameters(), *model.buffers()})


def find_steps(events: Iterable[Event], *, on_cuda: bool) -> tuple[StepMemory, ...]:
    """The steps in which memory was allocated; without named steps the complete trace is one."""
    events = tuple(events)
    changes = _allocator_changes(events, on_cuda=on_cuda)
    annotations = _ranges(events, "user_annotation")
    spans = [(one.begin_us, one.end_us) for one in annotations if one.name.startswith(STEP)]
    steps = []
    for span in spans or [ALWAYS]:
        inside = changes[changes["at_us"].between(*span)].reset_index(drop=True)
        if inside.empty:
            continue
        before = int(inside["allocated"][0] - inside["change"][0])
        inside["allocated"] -= before
        steps.append(StepMemory(span=span, before=before, changes=inside))
    return tuple(steps)


def find_peak_step(events: Iterable[Event], *, on_cuda: bool) -> StepMemory | None:
    """The traced step with the highest peak; None where the trace holds no allocations."""
    steps = find_steps(events, on_cuda=on_cuda)
    return max(steps, key=attrgetter("peak_bytes"), default=None)


def timeline(step: StepMemory) -> pd.DataFrame:
    """``memory.csv``: allocated beyond what was there before, after each change of one step."""
    at_us = step.changes["at_us"]
    allocated_mb = step.changes["allocated"] / 1e6
    return pd.DataFrame({"time_ms": (at_us - at_us[0]) / 1e3, "allocated_mb": allocated_mb})


def attribute_peak(
    step: StepMemory, events: Sequence[Event], weights_bytes: int, *, on_cuda: bool
) -> PeakMemory:
    """Split the peak into weights, activations, workspace and what was there before the step."""
    allocations = sorted(_at_peak(step, events), key=attrgetter("size_mb"), reverse=True)
    workspace_mb = sum(allocation.size_mb for allocation in allocations if allocation.is_workspace)
    peak_mb = step.peak_bytes / 1e6
    weights_mb = weights_bytes / 1e6
    other_mb = None
    unavailable = {}
    if on_cuda:
        other_mb = max(0.0, step.before / 1e6 - weights_mb)
    else:
        unavailable["other_mb"] = NOT_SEEN_ON_CPU
    return PeakMemory(
        total_mb=weights_mb + peak_mb + (other_mb or 0.0),
        weights_mb=weights_mb,
        activations_mb=peak_mb - workspace_mb,
        workspace_mb=workspace_mb,
        other_mb=other_mb,
        largest=tuple(allocations[:LARGEST_SHOWN]),
        unavailable=unavailable,
    )


def by_module(step: StepMemory, events: Iterable[Event]) -> pd.DataFrame:
    """MB that each named range adds, the last call of each: kept when it ends, and at its peak.

    Returns:
        Columns ``memory_kept_mb`` and ``memory_peak_mb``; the index holds the names.
    """
    rows = {}
    for named in _phases_and_modules(events, step):
        before = step.allocated_at(named.begin_us)
        during = step.changes["at_us"].between(named.begin_us, named.end_us)
        highest = max([before, *step.changes.loc[during, "allocated"]])
        kept = step.allocated_at(named.end_us)
        rows[named.name] = ((kept - before) / 1e6, (highest - before) / 1e6)
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(MODULE_COLUMNS), dtype=float)


def no_module_memory() -> pd.DataFrame:
    """What :func:`by_module` returns for a trace without allocations."""
    return pd.DataFrame(columns=list(MODULE_COLUMNS), dtype=float)


def _allocator_changes(events: Iterable[Event], *, on_cuda: bool) -> pd.DataFrame:
    """All changes on one kind of device, in order of time."""
    rows = []
    for event in events:
        if event.get("name") != "[memory]":
            continue
        args = event["args"]
        if args["Device Type"] == int(on_cuda):
            rows.append((event["ts"], args["Bytes"], args["Total Allocated"], args["Addr"]))
    changes = pd.DataFrame(rows, columns=["at_us", "change", "allocated", "address"])
    return changes.sort_values("at_us", kind="stable")


def _at_peak(step: StepMemory, events: Sequence[Event]) -> list[Allocation]:
    """The step's allocations that are there when most is allocated."""
    operators = _ranges(events, "cpu_op", step.span)
    modules = _phases_and_modules(events, step)
    peak = int(step.changes["allocated"].to_numpy().argmax())
    until, after = step.changes[: peak + 1], step.changes[peak + 1 :]
    alive = until.drop_duplicates("address", keep="last").query("change > 0")
    returned = after.query("change < 0").drop_duplicates("address")
    returned_us = returned.set_index("address")["at_us"].to_dict()
    allocations = []
    for at_us, size, _, address in alive.itertuples(index=False):
        operator = _outermost(operators, at_us)
        module = _innermost(modules, at_us)
        allocations.append(
            Allocation(
                operator=operator.name,
                module=module.name,
                size_mb=size / 1e6,
                is_workspace=returned_us.get(address, float("inf")) <= operator.end_us,
            )
        )
    return allocations


def _outermost(ranges: Iterable[_NamedRange], at_us: float) -> _NamedRange:
    """The longest range that covers a moment; one without a name and a length where none does."""
    covering = [one for one in ranges if one.begin_us <= at_us <= one.end_us]
    nothing = _NamedRange(name="", begin_us=at_us, end_us=at_us)
    return max(covering, key=attrgetter("length_us"), default=nothing)


def _innermost(ranges: Iterable[_NamedRange], at_us: float) -> _NamedRange:
    """The shortest range that covers a moment; one without a name and a length where none does."""
    covering = [one for one in ranges if one.begin_us <= at_us <= one.end_us]
    nothing = _NamedRange(name="", begin_us=at_us, end_us=at_us)
    return min(covering, key=attrgetter("length_us"), default=nothing)


def _ranges(events: Iterable[Event], kind: str, within: Interval = ALWAYS) -> list[_NamedRange]:
    """The events of a kind that begin and end within an interval."""
    ranges = []
    for event in events:
        if event.get("ph") != "X" or event.get("cat") != kind:
            continue
        begin_us = event["ts"]
        end_us = event["ts"] + event["dur"]
        if within[0] <= begin_us and end_us <= within[1]:
            ranges.append(_NamedRange(name=event["name"], begin_us=begin_us, end_us=end_us))
    return ranges


def _phases_and_modules(events: Iterable[Event], step: StepMemory) -> list[_NamedRange]:
    """What has a name of its own within a step: phases of the batch, and modules of the model."""
    ranges = _ranges(events, "user_annotation", step.span)
    return [one for one in ranges if not one.name.startswith(STEP)]
