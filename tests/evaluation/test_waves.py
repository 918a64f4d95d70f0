"""What is told of the rows made while storage lags and workers die; stand-ins for Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from utils.config_loader import load_config
from utils.evaluation import distributed
from utils.evaluation.distributed import Placement


class NodeLost(Exception):
    """What Ray says when a node dies."""


@pytest.mark.parametrize("left", [1, 2, 4])
@pytest.mark.parametrize("untold", [0, 1])
def test_each_row_is_told_of_once(monkeypatch: pytest.MonkeyPatch, left: int, untold: int) -> None:
    """The first wave loses a node: so many of its tasks are not told of, and so many chunks do not show yet."""
    chunks = [(0, 10), (10, 20), (20, 30), (30, 35)]
    waves = 0

    def wave(_ray: Any, _job: Any, tasks: list[dict[str, Any]], _placement: Placement) -> Iterator[int]:
        nonlocal waves
        waves += 1
        for task in tasks[untold if waves == 1 else 0 :]:
            yield task["stop"] - task["start"]
        if waves == 1:
            raise NodeLost("a node died")

    def still_absent(_store: Any, absent: list[tuple[int, int]], *, waits: bool) -> list[tuple[int, int]]:
        return absent[-left:] if waves == 1 else []

    ray = SimpleNamespace(exceptions=SimpleNamespace(RayError=NodeLost))
    for name, stand_in in {
        "_prepared": lambda *_: None, "chunk_offsets": lambda *_: [None] * 4, "_idle": nullcontext,
        "_cluster": lambda _: nullcontext(ray), "_placed": lambda *_: Placement(workers=1, cpus=1), "_fitting": lambda *_: 1,
        "_wave": wave, "_still_absent": still_absent,
    }.items():
        monkeypatch.setattr(distributed, name, stand_in)
    config = load_config(overrides=["evaluation.chunk_rows=10"])
    worker: Any = SimpleNamespace(store=None)
    told = list(distributed.compute(worker, worker, config, chunks))
    assert (sum(told), waves) == (35, 2)
    assert min(told) >= 0
