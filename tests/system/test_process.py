"""The kernel's statistics of this process."""

from __future__ import annotations

import threading
import time

import pytest

from utils.system import process


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ((10, 5), (40, 15), 0.25),
        ((10, 5), (40, 5), 0.0),
        ((10, 5), (10, 5), None),
        (None, (1, 1), None),
        ((9, 9), (5, 9), None),
    ],
)
def test_cpu_wait_fraction_by_hand(
    before: tuple[int, int] | None, after: tuple[int, int] | None, share: float | None
) -> None:
    assert process.cpu_wait_fraction(before, after) == share


@pytest.mark.skipif(
    process.cpu_times_ns() is None, reason="this kernel does not report how long threads wait"
)
def test_all_threads_count() -> None:
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            pass

    thread = threading.Thread(target=burn)
    thread.start()
    before, cpu, begin = process.cpu_times_ns(), time.process_time_ns(), time.perf_counter()
    while time.perf_counter() - begin < 0.3:
        pass
    after, cpu = process.cpu_times_ns(), time.process_time_ns() - cpu
    stop.set()
    thread.join()
    assert before is not None and after is not None
    assert after[0] - before[0] == pytest.approx(cpu, rel=0.2)


def test_on_another_system_everything_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: process.Path
) -> None:
    for name in ("TASKS", "CLEAR_REFS", "STATUS"):
        monkeypatch.setattr(process, name, tmp_path / "nowhere" / name)
    assert (process.cpu_times_ns(), process.reset_peak_memory(), process.peak_memory_bytes()) == (
        None,
        False,
        None,
    )
