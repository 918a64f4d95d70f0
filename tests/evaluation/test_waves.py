"""Rows are reported once each, while storage lags and workers die; stand-ins for Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from utils.config_loader import load_config
from utils.evaluation import distributed
from utils.evaluation.cluster import Placement
from utils.evaluation.distributed import RowReports
from utils.evaluation.evaluation_settings import EvaluationSettings


class NodeLost(Exception):
    """What Ray raises when a node dies."""


@pytest.mark.parametrize("num_missing", [1, 2, 4])
@pytest.mark.parametrize("num_unreported", [0, 1])
def test_each_row_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, num_missing: int, num_unreported: int
) -> None:
    """The first wave loses a node: so many of its tasks do not report, and so many chunks do not
    show yet.
    """
    all_chunks = [(0, 10), (10, 20), (20, 30), (30, 35)]
    num_waves = 0

    def run_wave(
        _ray: Any, _job: Any, tasks: list[dict[str, Any]], _placement: Placement
    ) -> Iterator[int]:
        nonlocal num_waves
        num_waves += 1
        is_first = num_waves == 1
        for task in tasks[num_unreported if is_first else 0 :]:
            yield task["stop"] - task["start"]
        if is_first:
            raise NodeLost("a node died")

    def find_missing(
        _store: Any, chunks: list[tuple[int, int]], *, wait: bool
    ) -> list[tuple[int, int]]:
        return chunks[-num_missing:] if num_waves == 1 else []

    settings = EvaluationSettings.of(load_config(overrides=["evaluation.chunk_rows=10"]))
    ray = SimpleNamespace(exceptions=SimpleNamespace(RayError=NodeLost))
    stand_ins: dict[str, Any] = {
        "_make_job": lambda *_: SimpleNamespace(on_cuda=False, settings=settings),
        "chunk_offsets": lambda *_: [None] * 4,
        "_offloaded_to_cpu": nullcontext,
        "connected_ray": lambda *_: nullcontext(ray),
        "place_or_raise": lambda *_, **__: Placement(workers=1, cpus=1),
        "count_slots": lambda *_, **__: 1,
        "_run_wave": run_wave,
        "_find_missing": find_missing,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(distributed, name, stand_in)
    worker: Any = SimpleNamespace(store=None)
    reported = list(distributed.predict_chunks(worker, worker, settings, all_chunks))
    assert (sum(reported), num_waves) == (35, 2)
    assert min(reported) >= 0


def test_rows_that_were_made_twice_are_reported_once() -> None:
    reports = RowReports(30)
    assert reports.after_task(20) == 20
    assert reports.after_wave(missing_rows=20) == 0, "ten of the reported rows do not show yet"
    assert reports.after_task(20) == 10
    assert reports.after_wave(missing_rows=0) == 0


def test_rows_of_tasks_that_were_lost_are_reported_after_the_wave() -> None:
    reports = RowReports(30)
    assert reports.after_task(10) == 10
    assert reports.after_wave(missing_rows=5) == 15
    assert reports.after_task(5) == 5
