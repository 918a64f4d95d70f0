"""The entire data set through the model: which chunks are missing, and their totals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from typing import Any

from utils.core.errors import ConfigError
from utils.data.labels import read_mapping_file
from utils.data.reader import Rows, count_rows, iter_rows
from utils.evaluation import distributed
from utils.evaluation.accumulator import EvaluationAccumulator
from utils.evaluation.attention import attention_kernels
from utils.evaluation.batching_comparison import compare
from utils.evaluation.chunks import ChunkStore
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.evaluation.identity import open_store
from utils.evaluation.summary import EvaluationContext, summarise_evaluation
from utils.evaluation.worker import ChunkWorker
from utils.model_utils import LoadedModel
from utils.pipeline import console
from utils.pipeline.evaluation_progress import start_progress
from utils.schema.evaluation import EvaluationMetrics
from utils.settings import EvaluationConfig


def check_workers(settings: EvaluationConfig) -> None:
    """Refuse, before anything is loaded, what needs Ray where it is not installed.

    Raises:
        ConfigError: several workers or a cluster are configured and Ray is not installed.
    """
    if not uses_ray(settings) or find_spec("ray") is not None:
        return
    name = "num_workers" if settings.ray_address is None else "ray_address"
    raise ConfigError(
        f"evaluation.{name} is {getattr(settings, name)}: "
        "that needs Ray Data, which is not installed.",
        where=f"evaluation.{name}",
        fix='python -m pip install "ray[data]" (it brings no PyTorch), or one process: '
        "--set evaluation.num_workers=1 --set evaluation.ray_address=null",
    )


def uses_ray(settings: EvaluationConfig) -> bool:
    """Whether the chunks go through Ray Data."""
    return settings.num_workers > 1 or settings.ray_address is not None


def evaluate_dataset(
    loaded: LoadedModel, settings: EvaluationSettings, *, data_sha256: str | None = None
) -> EvaluationMetrics:
    """Predict every row, write ``results/predictions/``, return ``full_dataset_metrics``.

    Continues at the first chunk that is missing or damaged. ``inference_time_s`` is the sum over
    all chunks, those of earlier parts of the run included. The clock of a chunk ends when its
    predictions are in host memory. It begins:

    - when the chunk before it ends, if that chunk was computed just before it;
    - when its rows are requested, if it is the first chunk that is computed and no rows are skipped
      before it;
    - when its rows have been read, if finished chunks were skipped to reach it: reading past them
      is not counted.

    With several workers it is wall time instead, from the start of the first chunk to the end of
    the last one.

    Raises:
        ConfigError: Ray is needed and not installed.
        DataError: data that is unusable or was replaced meanwhile.
        ModelError: a text too long for the memory; results of batches that are not those of single
            texts.
    """
    section = settings.evaluation
    check_workers(section)
    num_rows = count_rows_to_predict(settings)
    store = open_store(loaded, settings, data_sha256)
    with closing(ChunkWorker(loaded, settings, store)) as worker:
        predict = partial(_predict_here, worker, settings)
        if uses_ray(section):
            predict = partial(_predict_with_ray, worker, loaded, settings, num_rows)
        start_progress(settings.files, store.fingerprint, num_rows)
        num_predicted = _predict_missing(worker, num_rows, predict)
    accumulator = _add_up(store, settings, num_rows)
    store.delete_other_chunks(num_rows, section.chunk_rows)
    context = _make_context(loaded, settings, store, num_rows - num_predicted)
    metrics = summarise_evaluation(accumulator, context)
    comparisons = compare(worker, settings, metrics)
    measured = {
        "batching_comparison": comparisons.batching,
        "compile_comparison": comparisons.compiling,
    }
    return metrics.model_copy(update=measured)


def count_rows_to_predict(settings: EvaluationSettings) -> int:
    """Rows of the data set, or ``evaluation.max_samples`` where that is fewer."""
    num_rows = count_rows(settings.data_file)
    max_samples = settings.evaluation.max_samples
    return min(num_rows, max_samples) if max_samples else num_rows


def count_stored_rows(store: ChunkStore, settings: EvaluationSettings) -> int:
    """Rows whose predictions are in place and undamaged."""
    num_stored = 0
    num_rows = count_rows_to_predict(settings)
    for start, stop in chunk_ranges(num_rows, settings.evaluation.chunk_rows):
        if store.has(start, stop):
            num_stored += stop - start
    return num_stored


def _make_context(
    loaded: LoadedModel, settings: EvaluationSettings, store: ChunkStore, resumed_rows: int
) -> EvaluationContext:
    """What the record of the evaluation says beside the sums of its chunks."""
    on_cuda = loaded.device.type == "cuda"
    return EvaluationContext(
        batching=settings.evaluation.batching,
        has_random_weights=loaded.info.weights == "dummy",
        on_cuda=on_cuda,
        predictions_folder=settings.files.predictions_dir.name,
        limits=store.limits(),
        resumed_rows=resumed_rows,
        attention_kernels=attention_kernels(loaded.model) if on_cuda else None,
    )


def _predict_missing(
    worker: ChunkWorker, num_rows: int, predict: Callable[[Any], Iterator[int]]
) -> int:
    """Make all chunks that are missing, with a progress bar over all rows.

    Args:
        predict: makes them, given the bar; yields rows as they are predicted.

    Returns:
        The rows predicted.
    """
    num_predicted = 0
    with console.progress(total=num_rows, what="Evaluating", unit="row") as bar:
        worker.check_data_unchanged(sha256=worker.store.identity["data set"])
        for count in predict(bar):
            num_predicted += count
            bar.update(count)
        worker.check_data_unchanged()
    return num_predicted


def _predict_here(worker: ChunkWorker, settings: EvaluationSettings, bar: Any) -> Iterator[int]:
    """Make the missing chunks in this process; yields the rows of each."""
    for rows, _ in worker.run(iter_missing_chunks(worker.store, settings, bar)):
        yield len(rows.texts)


def _predict_with_ray(
    worker: ChunkWorker, loaded: LoadedModel, settings: EvaluationSettings, num_rows: int, bar: Any
) -> Iterator[int]:
    """Make the missing chunks in Ray's workers; yields rows as they are predicted."""
    missing = []
    num_missing = 0
    for start, stop in chunk_ranges(num_rows, settings.evaluation.chunk_rows):
        if not worker.store.has(start, stop):
            missing.append((start, stop))
            num_missing += stop - start
    bar.update(num_rows - num_missing)
    return distributed.predict_chunks(worker, loaded, settings, missing)


def _add_up(
    store: ChunkStore, settings: EvaluationSettings, num_rows: int
) -> EvaluationAccumulator:
    """The sums over all chunks, read from disk one by one."""
    accumulator = EvaluationAccumulator(read_mapping_file(settings.label_mappings_file).names)
    for start, stop in chunk_ranges(num_rows, settings.evaluation.chunk_rows):
        chunk = store.load(start, stop)
        assert chunk is not None, "every chunk was in place or has been made"
        accumulator.add(chunk)
    return accumulator


def chunk_ranges(num_rows: int, chunk_rows: int) -> Iterator[tuple[int, int]]:
    """First row and end of every chunk, in file order."""
    for start in range(0, num_rows, chunk_rows):
        yield start, min(start + chunk_rows, num_rows)


def iter_missing_chunks(
    store: ChunkStore, settings: EvaluationSettings, bar: Any
) -> Iterator[Rows]:
    """The rows of every unfinished chunk, in file order; finished ones count on the bar."""
    section = settings.evaluation
    for rows in iter_rows(settings.data_file, section.chunk_rows, section.max_samples):
        if store.has(rows.start, rows.start + len(rows.texts)):
            bar.update(len(rows.texts))
        else:
            yield rows
