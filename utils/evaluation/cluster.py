"""The Ray cluster that workers run on: connected to, started and left, and what room it has for
workers.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from utils.core.errors import ConfigError, Interrupted, reason_of
from utils.pipeline import startup

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
THREADS_END_S = 60.0
"""How long the threads of Ray Data may take to end. On a quiet machine they need less than 1 s; Ray
itself waits 2 s for one of them and 5 s for another.
"""
THREADS_POLL_S = 0.1
IDLE_THREAD = "Prefetcher"
"""A thread of Ray Data that never ends, because Ray does not stop it where an iteration ends early.
It waits for blocks to fetch, and without read-ahead it is given none, so it uses no Ray.
"""
OBJECT_STORE_BYTES = 80 * 10**6
"""Ray's shared memory on this machine; about its smallest. Only row numbers go through it."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """How many workers there are, and how many cores each may use."""

    workers: int
    cpus: int


@contextmanager
def connected_ray(address: str | None, num_workers: int) -> Iterator[Any]:
    """Ray, quiet: the cluster at this address, or one of this machine's own that ends with the
    block.

    Args:
        address: ``host:port``, or ``auto``; None starts a cluster with room for the workers.

    Raises:
        ConfigError: there is no cluster at that address.
    """
    startup.prepare_ray()
    import ray

    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        _connect(ray, address, num_workers)
        with _preserve_signal_exceptions(handlers):
            yield ray
    except (OSError, OverflowError, ValueError) as error:
        if not address or ray.is_initialized():
            raise
        raise ConfigError(
            f"No Ray cluster answers at {address}: {reason_of(error)}",
            where="evaluation.ray_address",
            fix="start it with: ray start --head, or leave evaluation.ray_address out "
            "for this machine alone",
        ) from error
    finally:
        _shut_down(ray)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _connect(ray: Any, address: str | None, num_workers: int) -> None:
    """Connect to the cluster at this address, or start one on this machine."""
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if not address:
        options["num_cpus"] = max(torch.get_num_threads(), num_workers)
        options["object_store_memory"] = OBJECT_STORE_BYTES
        options["include_dashboard"] = False
    elif ":" in address:
        # Ray itself would go on asking for minutes.
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    ray.init(address or "local", **options)


def _shut_down(ray: Any) -> None:
    """Shut Ray down once no thread of Ray Data uses it.

    Ray ends the process where a thread uses it after the shutdown, and with the process the message
    of the error because of which the work ended is lost. A thread that does not end in time leaves
    Ray connected until the process ends.
    """
    deadline_s = time.monotonic() + THREADS_END_S
    threads = _ray_data_threads()
    while threads and time.monotonic() < deadline_s:
        threads[0].join(THREADS_POLL_S)
        threads = _ray_data_threads()
    if threads:
        names = ", ".join(thread.name for thread in threads)
        logger.warning("Ray stays connected until this process ends: %s still uses it", names)
        return
    ray.shutdown()


def _ray_data_threads() -> list[threading.Thread]:
    """The threads, other than this one, that run code of Ray Data."""
    stacks = sys._current_frames()
    threads = []
    for thread in threading.enumerate():
        if thread is threading.current_thread() or thread.name == IDLE_THREAD:
            continue
        if _is_in_ray_data(stacks.get(thread.ident or 0)):
            threads.append(thread)
    return threads


def _is_in_ray_data(frame: FrameType | None) -> bool:
    """Whether the stack that ends with this frame has a function of Ray Data on it."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("ray.data."):
            return True
        frame = frame.f_back
    return False


@contextmanager
def _preserve_signal_exceptions(handlers: dict[signal.Signals, Any]) -> Iterator[None]:
    """Let the handlers take the signals again, which Ray took over, and see their exception through
    Ray's own code.

    There every exception of a signal handler becomes a KeyboardInterrupt.
    """
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        received.append(number)
        handler = handlers[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number, handler in handlers.items():
        signal.signal(number, handle if callable(handler) else handler)
    try:
        yield
    except KeyboardInterrupt:
        if received:
            raise Interrupted(received[0]) from None
        raise


def place_or_raise(ray: Any, num_workers: int, *, on_cuda: bool) -> Placement:
    """Where the workers fit.

    Raises:
        ConfigError: they do not.
    """
    nodes = _nodes(ray)
    placement = fit_workers(nodes, num_workers, on_cuda=on_cuda)
    if placement is None:
        unit = "GPUs" if on_cuda else "CPUs"
        available = sum(int(gpus if on_cuda else cpus) for cpus, gpus in nodes)
        raise ConfigError(
            f"evaluation.num_workers is {num_workers}; "
            f"Ray has {available} {unit} on {len(nodes)} nodes.",
            where="evaluation.num_workers",
            fix=f"--set evaluation.num_workers={max(1, available)}, or start more nodes first",
        )
    return placement


def count_slots(ray: Any, *, on_cuda: bool) -> int:
    """How many workers of one core fit on the nodes that are alive; at least one, for the message
    if none does.
    """
    return max(1, sum(_slots(node, 1, on_cuda) for node in _nodes(ray)))


def _nodes(ray: Any) -> list[tuple[float, float]]:
    """CPUs and GPUs of every node that is alive."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(resources.get("CPU", 0.0), resources.get("GPU", 0.0)) for resources in alive]


def fit_workers(
    nodes: Sequence[tuple[float, float]], num_workers: int, *, on_cuda: bool
) -> Placement | None:
    """The most cores that each worker may have on nodes of (CPUs, GPUs); None where they do not fit
    at all.

    A worker takes one GPU where ``on_cuda``.
    """
    most_cpus = int(max((cpus for cpus, _ in nodes), default=0))
    for cpus in range(most_cpus, 0, -1):
        if sum(_slots(node, cpus, on_cuda) for node in nodes) >= num_workers:
            return Placement(workers=num_workers, cpus=cpus)
    return None


def _slots(node: tuple[float, float], cpus: int, on_cuda: bool) -> int:
    """Workers of so many cores that fit on a node."""
    by_cpu = int(node[0] // cpus)
    return min(by_cpu, int(node[1])) if on_cuda else by_cpu
