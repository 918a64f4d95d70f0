"""What one process of the check for a GPU machine is: its command, its time and its rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import Row

# A step of the pipeline took 10 to 16 s to start on the virtual machine of one H100, for importing
# PyTorch and transformers.
SLOW_START_S = 16.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One process of the check.

    Args:
        work_s: what it takes on an H100 beside its starts.
        starts: how many starts of a process that imports PyTorch and transformers it contains, its
            own included; what imports less counts less.
        rows: reads the rows from what the process left, given its exit code, or None while it runs.
        needs: a file without which the part does not run.
        results_folder: where a pipeline leaves its results.
    """

    name: str
    command: list[str]
    work_s: float
    rows: Callable[[int | None], list[Row]]
    starts: float = 0.0
    needs: Path | None = None
    results_folder: Path | None = None

    @property
    def seconds(self) -> float:
        """What it may take even where every other part takes its own.

        When it has used these and those that earlier parts have left, it is ended with all
        processes that it has started.
        """
        return self.starts * SLOW_START_S + self.work_s

    @property
    def log_name(self) -> str:
        """The file of its output in the work folder."""
        return log_name(self.name)


def log_name(name: str) -> str:
    """The part's name as a file's, with an underscore for all that it should not have."""
    return f"{file_stem(name)}.log"


def file_stem(name: str) -> str:
    """A name as a file's without its ending."""
    return re.sub(r"\W+", "_", name)
