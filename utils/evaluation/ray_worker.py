"""What runs in each of Ray's workers: the model loaded once, then one task of chunks after another.

Nothing but a ``Job`` and the tasks comes from the process that the run was started in.
"""

from __future__ import annotations

import os
import pickle
import platform
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from utils.core.errors import DataError, ModelError, UserError
from utils.core.files import JsonObject
from utils.data.reader import Rows, iter_rows
from utils.evaluation.chunks import ChunkStore
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.evaluation.identity import make_store, prediction_identity
from utils.evaluation.worker import ChunkWorker
from utils.model.load import load_classifier
from utils.model.resolution import ModelResolver
from utils.model_utils import LoadedModel

TaskColumns = dict[str, np.ndarray[Any, Any]]
"""Tasks as Ray Data hands them over: first row, end and file offset of each, as columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """All that a worker must know. Paths mean the same on every node: data, model, results and code
    are on shared storage.
    """

    settings: EvaluationSettings
    identity: JsonObject
    limit: int
    """The batch limit that was chosen before the workers started, so that all make the same
    batches.
    """
    revision: str | None
    """The commit of a hub's model, so that a branch that moves on meanwhile changes nothing."""
    on_cuda: bool
    data_bytes: int
    invocation_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a task: the rows that were made, or a pickled error with its traceback."""

    rows: int = 0
    error: bytes = b""
    traceback: str = ""


class TaskRunner:
    """One worker, an actor of Ray: loads the model once, then makes the chunks of one task after
    another.
    """

    def __init__(self, job: Job, cpus: int) -> None:
        self.job = job
        self.worker: ChunkWorker | None = None
        self.failure: Outcome | None = None
        try:
            self.worker = _make_worker(job, cpus)
        except Exception as error:  # noqa: BLE001 - reported at the first task, not retried by Ray
            self.failure = _describe_failure(error)

    def __call__(self, tasks: TaskColumns) -> dict[str, list[Any]]:
        """Make what is missing of the tasks' chunks; one outcome for all of them, as columns."""
        outcome = self.failure
        if self.worker is not None:
            try:
                outcome = Outcome(rows=self._make_chunks(self.worker, tasks))
            except Exception as error:  # noqa: BLE001 - raised again where the run began
                outcome = _describe_failure(error)
        assert outcome is not None
        return {name: [value] for name, value in asdict(outcome).items()}

    def _make_chunks(self, worker: ChunkWorker, tasks: TaskColumns) -> int:
        """Make the tasks' missing chunks. Returns their rows."""
        missing = self._read_missing(worker.store, tasks)
        num_rows = 0
        for _, stats in worker.run(missing, expected_start=int(tasks["start"][0])):
            num_rows += stats.num_rows
        return num_rows

    def _read_missing(self, store: ChunkStore, tasks: TaskColumns) -> Iterator[Rows]:
        settings = self.job.settings
        columns = (tasks[name].tolist() for name in ("start", "stop", "offset"))
        for start, stop, offset in zip(*columns, strict=True):
            chunks = iter_rows(
                settings.data_file,
                settings.evaluation.chunk_rows,
                stop - start,
                first=start,
                offset=offset or None,
            )
            for rows in chunks:
                if not store.has(rows.start, rows.start + len(rows.texts)):
                    yield rows


def _make_worker(job: Job, cpus: int) -> ChunkWorker:
    """What this worker runs, once it is certain that its data, model and device are those of the
    run.

    Raises:
        DataError: it does not see the run's data set.
        ModelError: its model, versions or device are others.
    """
    torch.set_num_threads(cpus)
    settings = job.settings
    node = platform.node()
    if not settings.data_file.is_file() or settings.data_file.stat().st_size != job.data_bytes:
        raise DataError(
            f"The node {node} does not see the run's data set.",
            where=settings.data_file,
            fix="put it on storage that every node sees under the same path: "
            "--set dataset.local_path=PATH",
        )
    loaded = _load_model_of(job)
    identity = prediction_identity(loaded, settings, job.identity["data set"])
    _check_identity(identity, job.identity, node)
    process = torch.cuda.get_device_properties(0).uuid if job.on_cuda else os.getpid()
    return ChunkWorker(
        loaded,
        settings,
        make_store(settings, identity),
        limit=job.limit,
        name=f"{node}/{process}",
        invocation_id=job.invocation_id,
    )


def _check_identity(identity: JsonObject, expected: JsonObject, node: str) -> None:
    """Refuse a node whose predictions would differ from those of the run.

    Raises:
        ModelError: its model, versions or device are others.
    """
    differences = []
    for key, value in identity.items():
        if expected.get(key) != value:
            differences.append(f"{key}: {expected.get(key)} -> {value}")
    if differences:
        raise ModelError(
            f"The node {node} would not give the same predictions as the one that the run was "
            f"started on: {'; '.join(differences)}.",
            where=node,
            fix="use nodes of one kind, with the same code and the model on shared storage",
        )


def _load_model_of(job: Job) -> LoadedModel:
    """The run's model at the run's commit, on this worker's device."""
    changes = {"device": "cuda" if job.on_cuda else "cpu"}
    if job.revision:
        changes["revision"] = job.revision
    model = job.settings.model.model_copy(update=changes)
    resolver = ModelResolver(settings=model, embedded_model=job.settings.embedded_model)
    return load_classifier(resolver)


def _describe_failure(error: Exception) -> Outcome:
    """An error on its way to where the run was started; an unexpected one becomes a RuntimeError
    with its text.
    """
    if not isinstance(error, UserError):
        error = RuntimeError(f"worker on {platform.node()}: {type(error).__name__}: {error}")
    return Outcome(error=pickle.dumps(error), traceback=traceback.format_exc())
