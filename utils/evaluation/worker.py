"""One loaded model that makes finished chunks out of rows: what a process, or a worker of a cluster, runs."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np
import psutil
import pyarrow as pa
import torch

from utils.config_loader import Config
from utils.core.errors import DataError, ModelError
from utils.data.labels import UNKNOWN_ID
from utils.data.reader import Rows, file_state, hash_data
from utils.evaluation.batching import Batching
from utils.evaluation.chunks import ChunkFigures, ChunkStore
from utils.evaluation.predictor import Predictions, Predictor, Running, TokenChunk, tokenize
from utils.gpu_monitor import GpuMonitor
from utils.gpu_timeline import LOOK_BACK_S, GpuReadings, write_timeline
from utils.model.checks import choose_texts, classify_alone, compare_logits
from utils.model.tokenizer import missing_embedding
from utils.model_utils import LoadedModel

T = TypeVar("T")
SWITCH_INTERVAL_S = 1e-4
CHECKED_TEXTS = 8
CHECK_FILE = "check.json"
LEAST_DIFFERENCE = 1e-4
"""Of a probability: what is always allowed, because kernels sum in another order."""


class ChunkWorker:
    """Tokenises, predicts and saves chunks in ``store``; remembers there which batch limit was settled on.

    Any number of workers may share a store: whichever chunk a worker makes, its bytes follow from the store's
    identity and the settled limit alone.

    Args:
        limit: the batch limit that was settled on; None looks for it in the store.
        name, part: which of several workers this is, and in which call of the evaluation; written with its chunks.
    """

    def __init__(
        self, loaded: LoadedModel, config: Config, store: ChunkStore, *,
        limit: int | None = None, name: str | None = None, part: str | None = None,
    ) -> None:
        # Arrow's own allocator keeps some 50 MB of what chunk after chunk gives back.
        pa.set_memory_pool(pa.system_memory_pool())
        self.store, self.name, self.part = store, name, part
        self.data_file, self.data_state = config.data_file, file_state(config.data_file)
        self.tokenizer, self.max_length = loaded.tokenizer, config.profiling.max_length
        self.inputs = loaded.inputs
        self.dtype, self.is_random = loaded.info.dtype, loaded.info.weights == "dummy"
        self.wanted, self.settled = wanted_limit(config), limit or store.limits()[1]
        batching = Batching(kind=config.evaluation.batching, limit=self.settled or 1)
        self.predictor = Predictor(
            loaded.model, loaded.inputs, loaded.device, batching,
            multi_label=loaded.info.problem_type == "multi_label",
        )
        self.compile_s: float | None = None
        if config.evaluation.compile:
            self.predictor.compile()
        self.on_cuda = loaded.device.type == "cuda"
        if self.on_cuda:
            # The tokenizer's thread shall hold up the launching one for less than a kernel's time.
            sys.setswitchinterval(SWITCH_INTERVAL_S)
        # On a GPU the next chunk's batches are launched while one chunk is copied back and written.
        self.in_flight = 1 if self.on_cuda else 0
        self._monitor = GpuMonitor(loaded.device, config.profiling.gpu_sample_interval_ms / 1000)
        self._monitor.mark(step="evaluation")
        self._timeline = config.files.gpu_timeline if name is None else None  # one of several workers writes none
        self._watched_s = self._finished_s = 0.0  # when the monitor's window began; when the last chunk was done
        self._prepared = False
        self._next_window()

    def __call__(self, rows: Rows) -> ChunkFigures:
        """Make and save one chunk."""
        [(_, figures)] = self.run([rows], first=rows.start)
        return figures

    def run(self, chunks: Iterable[Rows], *, first: int = 0) -> Iterator[tuple[Rows, ChunkFigures]]:
        """Make and save chunks one after another, the next one tokenised meanwhile; yields each once it is saved.

        ``first`` is the row at which ``chunks`` begins to read, also where it leaves out what is there.

        Raises:
            ModelError: a text too long for the memory; logits that are no numbers.
            UserError: a chunk cannot be written; the data set was replaced meanwhile.
        """
        saving: deque[Future[tuple[Rows, ChunkFigures]]] = deque()
        self._forget_peak()
        begun = False
        with ThreadPoolExecutor(1, thread_name_prefix="write") as writer:
            for rows, tokens, began_s in ahead(self._tokenized(chunks, first)):
                began_s += self.prepare(tokens)
                if not begun:
                    began_s += self.check_results(rows.texts)
                    self._next_window()  # what went before, idle or trials, is no chunk's
                    begun = True
                saving.append(writer.submit(self._finish, rows, tokens, self.predictor.launch(tokens), began_s))
                while len(saving) > self.in_flight:
                    yield saving.popleft().result()
            while saving:
                yield saving.popleft().result()

    def close(self) -> None:
        """Stop watching the GPU, and keep the samples since the last window."""
        self._monitor.stop()
        self._keep_samples()

    def settle(self, rows: Rows) -> None:
        """Settle the batch limit on these rows, unless it is: before several workers share the store."""
        self.prepare(self.tokenize(rows.texts))

    def refuse_other_data(self, *, sha256: str | None = None) -> None:
        """Raise DataError where the data set is no longer the file that this worker began with, or the one of that hash."""
        if file_state(self.data_file) != self.data_state or sha256 not in (None, hash_data(self.data_file)):
            fix = "run the same command again: predictions of the two files are not mixed"
            raise DataError("The data set was replaced while it was evaluated.", where=self.data_file, fix=fix)

    def plain_predictor(self, batching: Batching | None = None) -> Predictor:
        """A predictor like the worker's, but not compiled, to compare with; its batches are the worker's by default."""
        mine = self.predictor
        return Predictor(
            mine.model, mine.inputs, mine.device, batching or mine.batching,
            multi_label=mine.multi_label,
        )

    def tokenize(self, texts: Sequence[str]) -> TokenChunk:
        """Token ids of the texts, as the predictor takes them.

        Raises:
            ModelError: a text holds a token that the model has no embedding for.
        """
        chunk = tokenize(self.tokenizer, texts, self.max_length, self.inputs)
        limit = self.inputs.vocab_size
        if limit is not None and chunk.highest_id >= limit:
            raise missing_embedding(self.tokenizer, chunk.highest_id, limit, "data set")
        return chunk

    def _tokenized(self, chunks: Iterable[Rows], first: int) -> Iterator[tuple[Rows, TokenChunk, float]]:
        """Each chunk with its token ids and when its clock begins: before it is read, but not before chunks left out are."""
        asked_s = time.perf_counter()
        for rows in chunks:
            began_s = asked_s if rows.start == first else time.perf_counter()
            yield rows, self.tokenize(rows.texts), began_s
            first, asked_s = rows.start + len(rows.texts), time.perf_counter()

    def prepare(self, tokens: TokenChunk) -> float:
        """Once: compile if asked to, and take the limit that is set or find the best on this chunk. Returns the seconds taken.

        Where nothing of that ran the model, one batch does: CUDA and its libraries start up with the first.
        """
        if self._prepared:
            return 0.0
        self._prepared, started = True, time.perf_counter()
        cold = self.predictor.compiled is None and (self.settled is not None or self.wanted != "auto")
        if self.predictor.compiled is not None:
            self.compile_s = self.predictor.warm_up(tokens)
        if self.settled is None:
            limit = self.predictor.fastest_budget(tokens) if self.wanted == "auto" else self.wanted
            self.predictor.batching = replace(self.predictor.batching, limit=limit)
            self._remember()
        if cold:
            self.predictor.start_up(tokens)
        self._forget_peak()  # of trials and warm-up
        return time.perf_counter() - started

    def check_results(self, texts: Sequence[str]) -> float:
        """Check on a few texts that the optimised batches give each the result that it gets alone; once for a store.

        Returns:
            The seconds taken, which are no part of the evaluation's time.

        Raises:
            ModelError: they do not.
        """
        started = time.perf_counter()
        chosen = choose_texts(texts, CHECKED_TEXTS)
        device, model = self.predictor.device, self.predictor.model
        if self.is_random or not chosen or not isinstance(model, torch.nn.Module):
            return 0.0
        if self.store.recall(CHECK_FILE) is not None:
            return 0.0
        predictions = self.predictor.predict(self.tokenize(chosen))
        logits = classify_alone(model, self.tokenizer, chosen, self.max_length, device)
        probabilities = logits.sigmoid() if self.predictor.multi_label else logits.softmax(dim=-1)
        index = torch.from_numpy(predictions.predicted_ids)[:, None]
        alone = probabilities.gather(1, index)[:, 0].numpy()
        allowed = compare_logits(logits, logits, self.dtype).allowed + LEAST_DIFFERENCE
        differs = np.abs(alone - predictions.probabilities) > allowed
        is_not_best = probabilities.amax(dim=1).numpy() - alone > allowed
        if np.isfinite(alone).all() and (differs | is_not_best).any():
            raise ModelError(
                f"{int((differs | is_not_best).sum())} of {len(chosen)} texts get another result in the optimised "
                "evaluation than alone.",
                where="evaluation",
                fix="--set evaluation.batching=dataset_order --set evaluation.batch_size=1, and report this model",
            )
        self.store.keep(CHECK_FILE, {"num_texts": len(chosen)})
        self._forget_peak()
        return time.perf_counter() - started

    def _forget_peak(self) -> None:
        if self.on_cuda:
            torch.cuda.reset_peak_memory_stats(self.predictor.device)

    def _remember(self) -> None:
        if self.settled != (limit := self.predictor.batching.limit):
            self.store.settle_limit(limit)
            self.settled = limit

    def _finish(self, rows: Rows, tokens: TokenChunk, running: Running, began_s: float) -> tuple[Rows, ChunkFigures]:
        """Wait for the predictions, write them with what they cost."""
        predictions = running.result()
        refuse_no_numbers(predictions, rows.start)
        started_s, self._finished_s = max(began_s, self._finished_s), time.perf_counter()
        util_pct, util_s, warnings = self._watch()
        device = self.predictor.device if self.on_cuda else None
        figures = ChunkFigures(
            num_rows=len(rows.texts), num_tokens=int(tokens.num_tokens.sum()), num_truncated=tokens.num_truncated,
            num_unknown_labels=int((rows.label_ids == UNKNOWN_ID).sum()),
            padded_tokens=predictions.padded_tokens, seconds=self._finished_s - started_s,
            gpu_mem_used_bytes=torch.cuda.memory_allocated(device) if device else None,
            peak_gpu_mem_bytes=torch.cuda.max_memory_allocated(device) if device else None,
            cpu_mem_used_bytes=psutil.Process().memory_info().rss,
            gpu_util_pct=util_pct, gpu_util_s=util_s, gpu_warnings=warnings,
            worker=self.name, part=self.part, done_at_s=None if self.name is None else time.time(),
        )
        self._remember()  # memory may have lowered it
        self.refuse_other_data()
        self.store.save(rows.start, rows.label_ids, predictions, tokens.num_tokens, figures)
        return rows, figures

    def _watch(self) -> tuple[float | None, float, tuple[str, ...]]:
        """Utilisation in percent and the seconds it stands for. A window may span chunks: NVML looks back a second."""
        now = time.perf_counter()
        if self.on_cuda and now - self._watched_s < 2 * LOOK_BACK_S:
            return None, 0.0, ("gpu_util: the run was too short, NVML looks back a second",)
        seconds, readings = now - self._watched_s, self._next_window()
        return readings.util_pct_mean, seconds, readings.warnings

    def _next_window(self) -> GpuReadings:
        """End the monitor's window, keep its samples, begin another. Returns what the one that ended showed."""
        readings, self._watched_s = self._monitor.stop(), time.perf_counter()
        self._keep_samples()
        self._monitor.start()
        return readings

    def _keep_samples(self) -> None:
        if (samples := self._monitor.timeline()) and self._timeline:
            write_timeline(self._timeline, samples, append=True)


def refuse_no_numbers(predictions: Predictions, first_row: int) -> None:
    """Raise ModelError where the model's logits overflowed: whatever is the largest of them says nothing."""
    bad = int((~np.isfinite(predictions.probabilities)).sum())
    if bad:
        raise ModelError(
            f"The model's logits are NaN or infinite for {bad} of {len(predictions.probabilities)} rows.",
            where=f"rows from {first_row} on", fix="--set model.dtype=bfloat16 or --set model.dtype=float32, whose range is wider",
        )


def wanted_limit(config: Config) -> int | Literal["auto"]:
    """What the config says a batch may hold: tokens, or rows where batches keep the data set's order."""
    settings = config.evaluation
    return settings.batch_size if settings.batching == "dataset_order" else settings.max_tokens_per_batch


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, each made in a background thread while the one before it is in use."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="tokenise") as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item  # type: ignore[misc]  # it is not the sentinel
