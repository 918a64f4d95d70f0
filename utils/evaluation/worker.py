"""One loaded model that makes finished chunks out of rows: what a process, or a worker of a
cluster, runs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import psutil
import torch

from utils.core.errors import DataError, ModelError
from utils.data.labels import UNKNOWN_ID
from utils.data.reader import Rows, file_signature, hash_data
from utils.evaluation import budget_search
from utils.evaluation.batching import Batching
from utils.evaluation.chunks import ChunkStore
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.evaluation.gpu_utilization import UtilizationRecorder
from utils.evaluation.predictions import PendingPredictions, Predictions
from utils.evaluation.predictor import Predictor
from utils.evaluation.result_checks import check_finite, differs_from_single_texts
from utils.evaluation.tokens import TokenChunk, tokenize
from utils.model.checks import choose_texts, classify_alone, product_precision
from utils.model.tokenizer import missing_embedding
from utils.model_utils import LoadedModel
from utils.schema.chunk import ChunkStats

T = TypeVar("T")
NUM_CHECKED_TEXTS = 8
CHECK_FILE = "check.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchedChunk:
    """A chunk whose batches are launched, and the time at which its clock began."""

    rows: Rows
    tokens: TokenChunk
    pending: PendingPredictions
    start_s: float


class ChunkWorker:
    """Tokenises, predicts and saves chunks in ``store``, where it also saves the batch limit that
    was chosen.

    Any number of workers may share a store: whichever chunk a worker makes, its bytes follow from
    the store's identity and the chosen limit alone.

    Args:
        limit: the batch limit that was chosen; None looks for it in the store.
        name: which of several workers this is; written with its chunks.
        invocation_id: the call of the evaluation that it belongs to; written with its chunks.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        settings: EvaluationSettings,
        store: ChunkStore,
        *,
        limit: int | None = None,
        name: str | None = None,
        invocation_id: str | None = None,
    ) -> None:
        self.store = store
        self.name = name
        self.invocation_id = invocation_id
        self.data_file = settings.data_file
        self.data_signature = file_signature(settings.data_file)
        self.tokenizer = loaded.tokenizer
        # Padding and truncation are a state of the tokenizer, and two threads use it: one prepares
        # the next chunk while the other checks results of single texts.
        self._tokenizer_lock = threading.Lock()
        self.inputs = loaded.inputs
        self.max_length = settings.max_length
        self.dtype = loaded.info.dtype
        self.has_random_weights = loaded.info.weights == "dummy"
        self.configured_limit = settings.configured_limit
        self.batch_limit = limit or store.limits().lowest
        batching = Batching(kind=settings.evaluation.batching, limit=self.batch_limit or 1)
        self.predictor = _make_predictor(loaded, batching, compiled=settings.evaluation.compile)
        self.compile_s: float | None = None
        self.on_cuda = loaded.device.type == "cuda"
        # On a GPU the next chunk's batches are launched while one chunk is copied back and written.
        self.max_in_flight = 1 if self.on_cuda else 0
        self._gpu = UtilizationRecorder(
            loaded.device,
            settings.gpu_sample_interval_s,
            # One of several workers writes no timeline.
            settings.files.gpu_timeline if name is None else None,
        )
        self._last_end_s = 0.0
        self._is_prepared = False

    def run(
        self, chunks: Iterable[Rows], *, expected_start: int = 0
    ) -> Iterator[tuple[Rows, ChunkStats]]:
        """Make and save chunks one after another, the next one tokenised meanwhile; yields each
        once it is saved.

        ``expected_start`` is the row at which reading begins. Where the first of ``chunks`` starts
        later, finished chunks were skipped before it.

        Raises:
            ModelError: a text too long for the memory; logits that are NaN or infinite; results of
                batches that differ from those of single texts.
            UserError: a chunk cannot be written; the data set was replaced meanwhile.
        """
        saving: deque[Future[tuple[Rows, ChunkStats]]] = deque()
        is_checked = False
        self._reset_peak_memory()
        with ThreadPoolExecutor(1, thread_name_prefix="write") as writer:
            for rows, tokens, start_s in prefetch(self._tokenize_chunks(chunks, expected_start)):
                untimed_s = self.prepare(tokens)
                if not is_checked:
                    untimed_s += self.check_results(rows.texts)
                    # What went before, idle time or probes, belongs to no chunk.
                    self._gpu.start_window()
                    is_checked = True
                launched = LaunchedChunk(
                    rows=rows,
                    tokens=tokens,
                    pending=self.predictor.launch(tokens),
                    start_s=start_s + untimed_s,
                )
                saving.append(writer.submit(self._finish, launched))
                while len(saving) > self.max_in_flight:
                    yield saving.popleft().result()
            while saving:
                yield saving.popleft().result()

    def close(self) -> None:
        """Stop watching the GPU, and save the samples since the last window."""
        self._gpu.close()

    def choose_batch_limit(self, rows: Rows) -> None:
        """Choose the batch limit on these rows, unless it is chosen: before several workers share
        the store.
        """
        self.prepare(self.tokenize(rows.texts))

    def check_data_unchanged(self, *, sha256: str | None = None) -> None:
        """Check that the data set is still the file that this worker began with, and the one of
        that hash.

        Raises:
            DataError: it is another.
        """
        is_same = file_signature(self.data_file) == self.data_signature
        if is_same and sha256 is not None:
            is_same = hash_data(self.data_file) == sha256
        if not is_same:
            raise DataError(
                "The data set was replaced while it was evaluated.",
                where=self.data_file,
                fix="run the same command again: predictions of the two files are not mixed",
            )

    def plain_predictor(self, batching: Batching | None = None) -> Predictor:
        """A predictor like the worker's, but not compiled, to compare with; by default with the
        same batches.
        """
        return Predictor(
            self.predictor.model,
            self.predictor.inputs,
            self.predictor.device,
            batching or self.predictor.batching,
            multi_label=self.predictor.multi_label,
        )

    def tokenize(self, texts: Sequence[str]) -> TokenChunk:
        """Token ids of the texts, as the predictor takes them.

        Raises:
            ModelError: a text holds a token that the model has no embedding for.
        """
        with self._tokenizer_lock:
            chunk = tokenize(self.tokenizer, texts, self.max_length, self.inputs)
        limit = self.inputs.vocab_size
        if limit is not None and chunk.highest_id >= limit:
            raise missing_embedding(self.tokenizer, chunk.highest_id, limit, "data set")
        return chunk

    def _tokenize_chunks(
        self, chunks: Iterable[Rows], expected_start: int
    ) -> Iterator[tuple[Rows, TokenChunk, float]]:
        """Each chunk with its token ids and the time at which its clock begins.

        The clock begins before the chunk is read. Where finished chunks were skipped before it, the
        clock begins after it is read, because skipping them belongs to no chunk.
        """
        requested_s = time.perf_counter()
        for rows in chunks:
            follows_directly = rows.start == expected_start
            start_s = requested_s if follows_directly else time.perf_counter()
            yield rows, self.tokenize(rows.texts), start_s
            expected_start = rows.start + len(rows.texts)
            requested_s = time.perf_counter()

    def prepare(self, tokens: TokenChunk) -> float:
        """Once: compile if asked to, and choose the batch limit. Returns the seconds taken.

        The limit is the configured one, or the fastest on this chunk. Where neither compiling nor
        the search for it ran the model, one batch does: CUDA and its libraries start up with the
        first.
        """
        if self._is_prepared:
            return 0.0
        self._is_prepared = True
        started_s = time.perf_counter()
        is_compiled = self.predictor.compiled is not None
        needs_search = self.batch_limit is None and self.configured_limit == "auto"
        if is_compiled:
            self.compile_s = self.predictor.warm_up(tokens)
        if self.batch_limit is None:
            if self.configured_limit == "auto":
                limit = budget_search.fastest_budget(self.predictor, tokens)
            else:
                limit = self.configured_limit
            self.predictor.batching = replace(self.predictor.batching, limit=limit)
            self._persist_limit()
        if not is_compiled and not needs_search:
            self.predictor.run_first_batch(tokens)
        # The peak of probes and warm-up is not that of the chunks.
        self._reset_peak_memory()
        return time.perf_counter() - started_s

    def check_results(self, texts: Sequence[str]) -> float:
        """Check on a few texts that batches give each the result that it gets alone; once for a
        store.

        Returns:
            The seconds taken, which are not part of the evaluation's time.

        Raises:
            ModelError: they do not.
        """
        started_s = time.perf_counter()
        checked = choose_texts(texts, NUM_CHECKED_TEXTS)
        model = self.predictor.model
        if self.has_random_weights or not checked or not isinstance(model, torch.nn.Module):
            return 0.0
        if self.store.read_state(CHECK_FILE) is not None:
            return 0.0
        predictions = self.predictor.predict(self.tokenize(checked))
        with self._tokenizer_lock:
            logits = classify_alone(
                model, self.tokenizer, checked, self.max_length, self.predictor.device
            )
        differs = differs_from_single_texts(
            predictions,
            logits,
            dtype=product_precision(self.dtype, self.predictor.device),
            multi_label=self.predictor.multi_label,
        )
        if differs.any():
            raise ModelError(
                f"{int(differs.sum())} of {len(checked)} texts get another result in the optimised "
                "evaluation than alone.",
                where="evaluation",
                fix="--set evaluation.batching=dataset_order --set evaluation.batch_size=1, "
                "and report this model",
            )
        self.store.write_state(CHECK_FILE, {"num_texts": len(checked)})
        self._reset_peak_memory()
        return time.perf_counter() - started_s

    def _reset_peak_memory(self) -> None:
        if self.on_cuda:
            torch.cuda.reset_peak_memory_stats(self.predictor.device)

    def _persist_limit(self) -> None:
        """Save the batch limit where it is new, or lower because memory ran out."""
        limit = self.predictor.batching.limit
        if limit != self.batch_limit:
            self.store.save_batch_limit(limit)
            self.batch_limit = limit

    def _finish(self, launched: LaunchedChunk) -> tuple[Rows, ChunkStats]:
        """Wait for the predictions, and write them with what they cost."""
        rows, tokens = launched.rows, launched.tokens
        predictions = launched.pending.result()
        check_finite(predictions, rows.start)
        start_s = max(launched.start_s, self._last_end_s)
        self._last_end_s = time.perf_counter()
        stats = self._make_stats(rows, tokens, predictions, self._last_end_s - start_s)
        self._persist_limit()
        self.check_data_unchanged()
        self.store.save(rows.start, rows.label_ids, predictions, tokens.num_tokens, stats)
        return rows, stats

    def _make_stats(
        self, rows: Rows, tokens: TokenChunk, predictions: Predictions, seconds: float
    ) -> ChunkStats:
        utilization = self._gpu.read()
        gpu_mem_used_bytes = peak_gpu_mem_bytes = None
        if self.on_cuda:
            gpu_mem_used_bytes = torch.cuda.memory_allocated(self.predictor.device)
            peak_gpu_mem_bytes = torch.cuda.max_memory_allocated(self.predictor.device)
        return ChunkStats(
            num_rows=len(rows.texts),
            num_tokens=int(tokens.num_tokens.sum()),
            computed_tokens=predictions.computed_tokens,
            num_truncated=tokens.num_truncated,
            num_unknown_labels=int((rows.label_ids == UNKNOWN_ID).sum()),
            seconds=seconds,
            gpu_mem_used_bytes=gpu_mem_used_bytes,
            peak_gpu_mem_bytes=peak_gpu_mem_bytes,
            cpu_mem_used_bytes=psutil.Process().memory_info().rss,
            gpu_util_pct=utilization.util_pct,
            gpu_util_s=utilization.seconds,
            gpu_util_reason=utilization.reason,
            worker=self.name,
            invocation_id=self.invocation_id,
            done_at_s=None if self.name is None else time.time(),
        )


def _make_predictor(loaded: LoadedModel, batching: Batching, *, compiled: bool) -> Predictor:
    predictor = Predictor(
        loaded.model,
        loaded.inputs,
        loaded.device,
        batching,
        multi_label=loaded.info.problem_type == "multi_label",
    )
    if compiled:
        predictor.compile()
    return predictor


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """The items, each made in a background thread while the one before it is in use."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="tokenise") as pool:
        upcoming = pool.submit(next, items, end)
        while True:
            item = upcoming.result()
            if item is end:
                return
            upcoming = pool.submit(next, items, end)
            yield item  # type: ignore[misc]  # it is not the sentinel
