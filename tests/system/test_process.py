"""The kernel's statistics of this process."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize(
    ("device_type", "of_user", "in_effect"),
    [
        ("cpu", None, "false"),
        ("cpu", "true", "true"),
        ("cuda", None, None),
        ("cuda", "false", "false"),
    ],
)
def test_the_tokenizers_threads_are_off_on_a_cpu_unless_the_user_has_set_them(
    device_type: str,
    of_user: str | None,
    in_effect: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(process.TOKENIZER_THREADS, raising=False)
    if of_user is not None:
        monkeypatch.setenv(process.TOKENIZER_THREADS, of_user)
    with process.use_tokenizer_threads_of_sweep(device_type):
        assert os.environ.get(process.TOKENIZER_THREADS) == in_effect
        assert process.tokenizer_threads_of_sweep(device_type) == in_effect
    assert os.environ.get(process.TOKENIZER_THREADS) == of_user


def test_the_tokenizers_threads_are_restored_after_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(process.TOKENIZER_THREADS, raising=False)
    with pytest.raises(ValueError, match="planted"), process.use_tokenizer_threads_of_sweep("cpu"):
        raise ValueError("planted")
    assert process.TOKENIZER_THREADS not in os.environ
