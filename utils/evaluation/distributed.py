"""The same chunks through Ray Data: one loaded model a worker, on this machine or on a cluster."""

from __future__ import annotations

import logging
import os
import pickle
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch

from utils.core.errors import (
    UserError,
    reason_of,
)
from utils.core.files import PROJECT_ROOT
from utils.data.reader import chunk_offsets, iter_rows
from utils.evaluation.chunks import ChunkStore
from utils.evaluation.cluster import Placement, connected_ray, count_slots, place_or_raise
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.evaluation.ray_worker import Job, TaskRunner
from utils.evaluation.worker import ChunkWorker
from utils.model_utils import LoadedModel

logger = logging.getLogger(__name__)

Chunk = tuple[int, int]
"""First row of a chunk and its end."""
Task = dict[str, int]
"""First row (``start``), end (``stop``) and position in the file (``offset``) of a task."""
CHUNKS_PER_TASK = 16
"""Chunks that a worker takes at once. Within a task the next chunk is tokenised while one runs;
between tasks not.
"""
TASKS_PER_WORKER = 4
"""At least so many, as far as there are chunks: a worker that is done early takes from the rest."""
TASKS_PER_WAVE = 10_000
"""Tasks that Ray is given at once: it keeps a record of each in the memory of this process."""
MAX_FAILED_WAVES = 3
"""Waves in a row that may fail without finishing one more chunk."""
STORAGE_LAG_S = 60.0
"""How long a file that another node has written may take to show here. Source: nfs(5), acdirmax."""
STORAGE_POLL_S = 0.5
WORKER_VARIABLES = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_DATASETS_CACHE",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "TOKENIZERS_PARALLELISM",
)
"""Environment variables that hold for the workers as for this process. No secret is among them: Ray
shows them.
"""


class RowReports:
    """Counts each row once, although chunks may be made twice or show late, and tasks be lost
    before they report.
    """

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self._num_reported = 0

    def after_task(self, rows: int) -> int:
        """Rows to report when a task reports that it made so many."""
        # What does not show yet is made, and reported, again.
        new_rows = min(rows, self._num_rows - self._num_reported)
        self._num_reported += new_rows
        return new_rows

    def after_wave(self, missing_rows: int) -> int:
        """Rows to report when so many are still missing: of tasks that were lost before they
        reported.
        """
        new_rows = max(0, self._num_rows - missing_rows - self._num_reported)
        self._num_reported += new_rows
        return new_rows


def predict_chunks(
    worker: ChunkWorker, loaded: LoadedModel, settings: EvaluationSettings, missing: list[Chunk]
) -> Iterator[int]:
    """Make the missing chunks on all workers; yields the rows of each task once they are stored.

    A node that dies takes down the tasks of one wave. What is stored stays; the rest is handed out
    again, to the nodes that are left.

    Raises:
        UserError: what a worker raised, as if it had happened here; too few GPUs or cores; results
            on separate storage.
        RuntimeError: workers die again and again, or one fails in an unexpected way.
    """
    if not missing:
        return
    job = _make_job(worker, loaded, settings, missing[0])
    section = settings.evaluation
    with (
        _offloaded_to_cpu(loaded),
        connected_ray(section.ray_address, section.num_workers) as ray,
    ):
        yield from _run_waves(ray, job, worker.store, missing)


def _run_waves(ray: Any, job: Job, store: ChunkStore, missing: list[Chunk]) -> Iterator[int]:
    """Hand out the missing chunks, wave by wave, until all are stored; yields rows as they are."""
    section = job.settings.evaluation
    offsets = chunk_offsets(job.settings.data_file, section.chunk_rows)
    placement = place_or_raise(ray, section.num_workers, on_cuda=job.on_cuda)
    reports = RowReports(_count_rows(missing))
    num_failed_waves = 0
    while missing:
        tasks = _make_wave(missing, offsets, section.chunk_rows, placement)
        failure = None
        try:
            for rows in _run_wave(ray, job, tasks, placement):
                yield reports.after_task(rows)
        except ray.exceptions.RayError as error:
            failure = reason_of(error)
            logger.warning("a worker was lost; the nodes that are left continue: %s", failure)
        num_before = len(missing)
        missing = _find_missing(store, missing, wait=failure is None)
        unreported = reports.after_wave(_count_rows(missing))
        if unreported:
            yield unreported
        num_failed_waves = 0 if len(missing) < num_before else num_failed_waves + 1
        if num_failed_waves == MAX_FAILED_WAVES:
            raise RuntimeError(
                "the workers die before they finish a chunk, "
                f"{num_failed_waves} times in a row: {failure}"
            )
        if failure and missing:
            num_slots = count_slots(ray, on_cuda=job.on_cuda)
            num_workers = min(section.num_workers, num_slots)
            placement = place_or_raise(ray, num_workers, on_cuda=job.on_cuda)


def _count_rows(chunks: list[Chunk]) -> int:
    return sum(stop - start for start, stop in chunks)


def _make_job(
    worker: ChunkWorker, loaded: LoadedModel, settings: EvaluationSettings, first: Chunk
) -> Job:
    """What all workers must know; chooses the batch limit on the first missing chunk where there is
    none yet.
    """
    if worker.batch_limit is None:
        start, stop = first
        size = settings.evaluation.chunk_rows
        chunks = iter_rows(settings.data_file, size, stop)
        [rows] = islice(chunks, start // size, None)
        worker.choose_batch_limit(rows)
    assert worker.batch_limit is not None
    return Job(
        settings=settings,
        identity=worker.store.identity,
        limit=worker.batch_limit,
        revision=None if loaded.info.adapter else loaded.info.revision,
        on_cuda=loaded.device.type == "cuda",
        data_bytes=settings.data_file.stat().st_size,
        invocation_id=uuid.uuid4().hex[:12],
    )


def _make_wave(
    missing: list[Chunk], offsets: list[int | None], chunk_rows: int, placement: Placement
) -> list[Task]:
    """The tasks that Ray is given next."""
    num_tasks = TASKS_PER_WORKER * placement.workers
    chunks_per_task = min(CHUNKS_PER_TASK, -(-len(missing) // num_tasks))
    tasks = _make_tasks(missing, offsets, chunk_rows, chunks_per_task)
    return list(islice(tasks, TASKS_PER_WAVE))


def _make_tasks(
    missing: Sequence[Chunk], offsets: list[int | None], chunk_rows: int, max_chunks: int
) -> Iterator[Task]:
    """Runs of at most ``max_chunks`` consecutive chunks: first row, end, and where a CSV file has
    the first row.
    """
    begin = 0
    for end in range(1, len(missing) + 1):
        is_last = end == len(missing)
        if is_last or end - begin == max_chunks or missing[end][0] != missing[end - 1][1]:
            start = missing[begin][0]
            offset = offsets[start // chunk_rows] or 0
            yield {"start": start, "stop": missing[end - 1][1], "offset": offset}
            begin = end


def _find_missing(store: ChunkStore, chunks: list[Chunk], *, wait: bool) -> list[Chunk]:
    """The chunks that are not stored.

    Args:
        wait: after a wave without a failure something must show here, on network storage after a
            while.

    Raises:
        UserError: nothing does, so the workers write to another place.
    """
    deadline_s = time.monotonic() + STORAGE_LAG_S
    while True:
        missing = [chunk for chunk in chunks if not store.has(*chunk)]
        if not wait or len(missing) < len(chunks):
            return missing
        if time.monotonic() > deadline_s:
            raise UserError(
                "The workers wrote their chunks, but none shows here.",
                where=store.folder,
                fix="put the results on storage that every node sees under the same path: "
                "--set output.results_dir=PATH",
            )
        time.sleep(STORAGE_POLL_S)


def _run_wave(ray: Any, job: Job, tasks: list[Task], placement: Placement) -> Iterator[int]:
    """Run tasks on workers that live as long as the wave; yields the rows of each.

    Ray itself retries nothing: it would wait for a dead node to come back.
    """
    import ray.data as ray_data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray_data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with warnings.catch_warnings():
        # max_restarts goes as a free argument, which Ray takes until 2.64:
        # setup/requirements-dev.txt ends before it.
        warnings.simplefilter("ignore", DeprecationWarning)
        outcomes_data = ray_data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
            TaskRunner,
            fn_constructor_args=(job, placement.cpus),
            batch_size=None,
            compute=ray_data.ActorPoolStrategy(size=min(placement.workers, len(tasks))),
            num_cpus=placement.cpus,
            num_gpus=1 if job.on_cuda else 0,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": _worker_environment(placement.cpus)},
        )
    # Without read-ahead: an outcome is a few bytes, and its threads would go on after an error.
    batches: Any = iter(
        outcomes_data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    )
    try:
        for batch in batches:
            for outcome in batch.to_pylist():
                if outcome["error"]:
                    raise pickle.loads(outcome["error"]) from RuntimeError(outcome["traceback"])
                yield outcome["rows"]
    finally:
        # The data set's end tells Ray Data's threads to stop; ``connected_ray`` waits for them.
        batches.close()
        del batches, outcomes_data


def _worker_environment(cpus: int) -> dict[str, str]:
    """The workers' environment: the code from shared storage, and no more threads than the worker's
    cores.
    """
    python_path = [str(PROJECT_ROOT)]
    if os.environ.get("PYTHONPATH"):
        python_path.append(os.environ["PYTHONPATH"])
    inherited = {name: os.environ[name] for name in WORKER_VARIABLES if name in os.environ}
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(python_path),
        "OMP_NUM_THREADS": str(cpus),
        "RAYON_NUM_THREADS": str(cpus),
    }


@contextmanager
def _offloaded_to_cpu(loaded: LoadedModel) -> Iterator[None]:
    """Keep this process's model off its GPU while the block runs: a worker has that GPU, and needs
    its memory.
    """
    if loaded.device.type != "cuda":
        yield
        return
    loaded.model.to("cpu")
    torch.cuda.empty_cache()
    try:
        yield
    finally:
        loaded.model.to(loaded.device)
