"""The same chunks through Ray Data: one loaded model a worker, on this machine or on a cluster."""

from __future__ import annotations

import logging
import os
import pickle
import platform
import signal
import socket
import time
import traceback
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from utils.config_loader import Config
from utils.core.artifacts import PROJECT_ROOT
from utils.core.errors import ConfigError, DataError, Interrupted, ModelError, UserError, reason_of
from utils.data.labels import read_mapping_file
from utils.data.reader import Rows, chunk_offsets, iter_rows
from utils.evaluation.chunks import ChunkStore
from utils.evaluation.runner import identity_of
from utils.evaluation.worker import ChunkWorker
from utils.model_utils import LoadedModel, load_model

logger = logging.getLogger(__name__)

Chunk = tuple[int, int]
CHUNKS_PER_TASK = 16
"""Chunks that a worker takes at once. Within a task the next chunk is tokenised while one runs; between tasks not."""
TASKS_PER_WORKER = 4
"""At least so many, as far as there are chunks: whoever is done early takes from the rest."""
TASKS_PER_WAVE = 10_000
"""What Ray is given at once: it keeps a record of each task in the memory of this process."""
FUTILE_WAVES = 3
"""Waves in a row that may fail without one more chunk finished."""
STORAGE_LAG_S = 60.0
"""How long a file that another node has written may take to show here. Source: nfs(5), acdirmax."""
OBJECT_STORE_BYTES = 80 * 10**6
"""Ray's shared memory on this machine; about its smallest. Only row numbers go through it."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
FOR_WORKERS = ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "TOKENIZERS_PARALLELISM")
"""Environment variables that hold for the workers as for this process. No secret is among them: Ray shows them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """All that a worker has to know. Paths mean the same on every node: data, model, results and code lie on shared storage."""

    config: Config
    identity: dict[str, Any]
    limit: int
    """The batch limit that was settled before the workers started, so that all make the same batches."""
    revision: str | None
    """The commit of a hub's model, so that a branch that moves on meanwhile changes nothing."""
    on_cuda: bool
    data_bytes: int
    part: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """How many workers there are, and how many cores each may use."""

    workers: int
    cpus: int


def compute(worker: ChunkWorker, loaded: LoadedModel, config: Config, absent: list[Chunk]) -> Iterator[int]:
    """Make the absent chunks on all workers; yields the rows of each task once they are stored.

    A node that dies takes down the tasks of one wave. What is stored stays; the rest is handed out again, to the
    nodes that are left.

    Raises:
        UserError: what a worker met, as if it had happened here; too few GPUs or cores; results on separate storage.
        RuntimeError: workers die again and again, or one fails in a way that nobody foresaw.
    """
    if not absent:
        return
    job = _prepared(worker, loaded, config, absent[0])
    offsets = chunk_offsets(config.data_file, config.evaluation.chunk_rows)
    with _idle(loaded), _cluster(config) as ray:
        placement = _placed(ray, job, config.evaluation.num_workers)
        futile, asked, told = 0, _rows(absent), 0
        while absent:
            size = -(-len(absent) // (TASKS_PER_WORKER * placement.workers))
            tasks = _tasks(absent, offsets, config.evaluation.chunk_rows, min(CHUNKS_PER_TASK, size))
            lost = None
            try:
                for rows in _wave(ray, job, list(islice(tasks, TASKS_PER_WAVE)), placement):
                    # What does not show yet is made and told of again.
                    told += (new := min(rows, asked - told))
                    yield new
            except ray.exceptions.RayError as error:
                lost = reason_of(error)
                logger.warning("a worker was lost, the rest goes on with the nodes that are left: %s", lost)
            before, absent = absent, _still_absent(worker.store, absent, waits=lost is None)
            futile = 0 if len(absent) < len(before) else futile + 1
            if (more := asked - _rows(absent) - told) > 0:
                told += more
                yield more  # of tasks that were lost before they were told of
            if futile == FUTILE_WAVES:
                raise RuntimeError(f"the workers die before they finish a chunk, {futile} times in a row: {lost}")
            if lost and absent:
                placement = _placed(ray, job, min(config.evaluation.num_workers, _fitting(ray, job)))


def _rows(chunks: list[Chunk]) -> int:
    return sum(stop - start for start, stop in chunks)


def _prepared(worker: ChunkWorker, loaded: LoadedModel, config: Config, first: Chunk) -> Job:
    if worker.settled is None:
        size = config.evaluation.chunk_rows
        [rows] = islice(iter_rows(config.data_file, size, first[1]), first[0] // size, None)
        worker.settle(rows)
    assert worker.settled is not None
    return Job(
        config=config, identity=worker.store.identity, limit=worker.settled,
        revision=None if loaded.info.adapter else loaded.info.revision, on_cuda=loaded.device.type == "cuda",
        data_bytes=config.data_file.stat().st_size, part=uuid.uuid4().hex[:12],
    )


def _tasks(absent: Sequence[Chunk], offsets: list[int | None], chunk_rows: int, most: int) -> Iterator[dict[str, Any]]:
    """Runs of at most ``most`` chunks that follow one another: first row, end, and where a CSV has the first row."""
    begin = 0
    for end in range(1, len(absent) + 1):
        if end == len(absent) or end - begin == most or absent[end][0] != absent[end - 1][1]:
            start = absent[begin][0]
            yield {"start": start, "stop": absent[end - 1][1], "offset": offsets[start // chunk_rows] or 0}
            begin = end


def _still_absent(store: ChunkStore, absent: list[Chunk], *, waits: bool) -> list[Chunk]:
    """What is not stored. After a whole wave everything it made must show, on network storage after a while.

    Raises:
        UserError: it does not, so the workers write to somewhere else.
    """
    until = time.monotonic() + STORAGE_LAG_S
    while True:
        left = [chunk for chunk in absent if not store.has(*chunk)]
        if not waits or len(left) < len(absent):
            return left
        if time.monotonic() > until:
            raise UserError(
                "The workers wrote their chunks, but none shows here.", where=store.folder,
                fix="put the results on storage that every node sees under the same path: --set output.results_dir=PATH",
            )
        time.sleep(0.5)


def _wave(ray: Any, job: Job, tasks: list[dict[str, Any]], placement: Placement) -> Iterator[int]:
    """Run tasks on workers that live as long as the wave; yields the rows of each.

    Nothing is tried again by Ray itself: it would wait for a dead node to come back.
    """
    import ray.data as ray_data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray_data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    with warnings.catch_warnings():
        # max_restarts goes as a free argument, which Ray takes until 2.64: setup/requirements-dev.txt ends before it.
        warnings.simplefilter("ignore", DeprecationWarning)
        done = ray_data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
            TaskRunner, fn_constructor_args=(job, placement.cpus), batch_size=None,
            compute=ray_data.ActorPoolStrategy(size=min(placement.workers, len(tasks))),
            num_cpus=placement.cpus, num_gpus=1 if job.on_cuda else 0, max_restarts=0, max_task_retries=0,
            runtime_env={"env_vars": _variables(placement.cpus)},
        )
    outcomes: Any = iter(done.iter_rows())
    try:
        for outcome in outcomes:
            if outcome["error"]:
                raise pickle.loads(outcome["error"]) from RuntimeError(outcome["traceback"])
            yield outcome["rows"]
    finally:
        # The data set's end stops Ray Data's threads. Where one asks anything of a Ray that was shut down, Ray ends this process.
        outcomes.close()
        del outcomes, done


def _variables(cpus: int) -> dict[str, str]:
    """The workers' environment: the code from shared storage, and no more threads than the worker's cores."""
    path = os.pathsep.join(filter(None, (str(PROJECT_ROOT), os.environ.get("PYTHONPATH"))))
    own = {name: os.environ[name] for name in FOR_WORKERS if name in os.environ}
    return {**own, "PYTHONPATH": path, "OMP_NUM_THREADS": str(cpus), "RAYON_NUM_THREADS": str(cpus)}


class TaskRunner:
    """One worker, an actor of Ray: loads the model once, then makes the chunks of one task after another."""

    def __init__(self, job: Job, cpus: int) -> None:
        self.job = job
        self.worker: ChunkWorker | None = None
        self.failure: dict[str, Any] | None = None
        try:
            self.worker = _chunk_worker(job, cpus)
        except Exception as error:  # noqa: BLE001 - a process's boundary: told at the first task, not retried by Ray
            self.failure = _failure(error)

    def __call__(self, tasks: dict[str, np.ndarray[Any, Any]]) -> dict[str, list[Any]]:
        """Make what is absent of the tasks' chunks; one outcome for all of them."""
        outcome = self.failure
        try:
            if self.worker is not None:
                made = self.worker.run(self._rows(self.worker.store, tasks), first=int(tasks["start"][0]))
                rows = sum(figures.num_rows for _, figures in made)
                outcome = {"rows": rows, "error": b"", "traceback": ""}
        except Exception as error:  # noqa: BLE001 - a process's boundary: raised again where the run was started
            outcome = _failure(error)
        assert outcome is not None
        return {name: [value] for name, value in outcome.items()}

    def _rows(self, store: ChunkStore, tasks: dict[str, np.ndarray[Any, Any]]) -> Iterator[Rows]:
        config = self.job.config
        for start, stop, offset in zip(*(tasks[name].tolist() for name in ("start", "stop", "offset")), strict=True):
            chunks = iter_rows(
                config.data_file, config.evaluation.chunk_rows, stop - start, first=start, offset=offset or None
            )
            yield from (rows for rows in chunks if not store.has(rows.start, rows.start + len(rows.texts)))


def _chunk_worker(job: Job, cpus: int) -> ChunkWorker:
    """What this worker runs, once it is sure that its data, model and device are those of the run.

    Raises:
        DataError, ModelError: they are not.
    """
    torch.set_num_threads(cpus)
    config, here = job.config, platform.node()
    if not config.data_file.is_file() or config.data_file.stat().st_size != job.data_bytes:
        raise DataError(
            f"The node {here} does not see the run's data set.", where=config.data_file,
            fix="put it on storage that every node sees under the same path: --set dataset.local_path=PATH",
        )
    device = {"device": "cuda" if job.on_cuda else "cpu"}
    pinned = config.model.model_copy(update={**device, **({"revision": job.revision} if job.revision else {})})
    loaded = load_model(config.model_copy(update={"model": pinned}))
    identity = identity_of(loaded, config, job.identity["data set"])
    differing = [f"{key}: {job.identity.get(key)} -> {new}" for key, new in identity.items() if job.identity.get(key) != new]
    if differing:
        raise ModelError(
            f"The node {here} would predict otherwise than the one that the run was started on: {'; '.join(differing)}.",
            where=here, fix="use nodes of one kind, with the same code and the model on shared storage",
        )
    names = read_mapping_file(config.label_mappings_file).names
    store = ChunkStore(config.files.predictions_dir, config.files.state_dir / "evaluation", identity, names)
    name = f"{here}/{torch.cuda.get_device_properties(0).uuid if job.on_cuda else os.getpid()}"
    return ChunkWorker(loaded, config, store, limit=job.limit, name=name, part=job.part)


def _failure(error: Exception) -> dict[str, Any]:
    """An error on its way to where the run was started; one that is not ours becomes a RuntimeError that says what it was."""
    told = error if isinstance(error, UserError) else RuntimeError(f"worker on {platform.node()}: {type(error).__name__}: {error}")
    return {"rows": 0, "error": pickle.dumps(told), "traceback": traceback.format_exc()}


def _placed(ray: Any, job: Job, wanted: int) -> Placement:
    """Where the workers fit.

    Raises:
        ConfigError: they do not.
    """
    nodes = _nodes(ray)
    placement = placed(nodes, wanted, on_cuda=job.on_cuda)
    if placement is None:
        unit = "GPUs" if job.on_cuda else "CPUs"
        there = sum(int(gpus if job.on_cuda else cpus) for cpus, gpus in nodes)
        raise ConfigError(
            f"evaluation.num_workers is {wanted}; Ray has {there} {unit} on {len(nodes)} nodes.",
            where="evaluation.num_workers", fix=f"--set evaluation.num_workers={max(1, there)}, or start more nodes first",
        )
    return placement


def _fitting(ray: Any, job: Job) -> int:
    return max(1, sum(_slots(node, 1, job.on_cuda) for node in _nodes(ray)))


def _nodes(ray: Any) -> list[tuple[float, float]]:
    """CPUs and GPUs of every node alive."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(resources.get("CPU", 0.0), resources.get("GPU", 0.0)) for resources in alive]


def placed(nodes: Sequence[tuple[float, float]], wanted: int, *, on_cuda: bool) -> Placement | None:
    """The most cores that each of ``wanted`` workers may have on nodes of (CPUs, GPUs); None where they do not fit at all.

    A worker takes one GPU where ``on_cuda``.
    """
    for cpus in range(int(max((cpus for cpus, _ in nodes), default=0)), 0, -1):
        if sum(_slots(node, cpus, on_cuda) for node in nodes) >= wanted:
            return Placement(workers=wanted, cpus=cpus)
    return None


def _slots(node: tuple[float, float], cpus: int, on_cuda: bool) -> int:
    by_cpu = int(node[0] // cpus)
    return min(by_cpu, int(node[1])) if on_cuda else by_cpu


@contextmanager
def _idle(loaded: LoadedModel) -> Iterator[None]:
    """Keep this process's model off its GPU while the block runs: a worker has that GPU, and needs its memory."""
    if loaded.device.type != "cuda":
        yield
        return
    loaded.model.to("cpu")
    torch.cuda.empty_cache()
    try:
        yield
    finally:
        loaded.model.to(loaded.device)


@contextmanager
def _cluster(config: Config) -> Iterator[Any]:
    """Ray, quiet: the cluster that the config names, or one of this machine's own that ends with the block.

    Raises:
        ConfigError: there is no cluster at that address.
    """
    # Read when Ray is imported or started: it reports to nobody, and draws no bars of its own.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    import ray

    address, workers = config.evaluation.ray_address, config.evaluation.num_workers
    cores = max(torch.get_num_threads(), workers)
    own: dict[str, Any] = {"num_cpus": cores, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        if address and ":" in address:  # Ray itself goes on asking for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address or "local", log_to_driver=False, logging_level=logging.CRITICAL, **({} if address else own))
        with _noted(handlers):
            yield ray
    except (OSError, OverflowError, ValueError) as error:
        if not address or ray.is_initialized():
            raise
        raise ConfigError(
            f"No Ray cluster answers at {address}: {reason_of(error)}", where="evaluation.ray_address",
            fix="start it with: ray start --head, or leave evaluation.ray_address out for this machine alone",
        ) from error
    finally:
        ray.shutdown()
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _noted(handlers: dict[signal.Signals, Any]) -> Iterator[None]:
    """Let the handlers take the signals again, which Ray took over, and see their exception through Ray's own code.

    There every exception of a signal handler becomes a KeyboardInterrupt.
    """
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        seen.append(number)
        if callable(handler := handlers[signal.Signals(number)]):
            handler(number, frame)

    for number, handler in handlers.items():
        signal.signal(number, note if callable(handler) else handler)
    try:
        yield
    except KeyboardInterrupt:
        if seen:
            raise Interrupted(seen[0]) from None
        raise
