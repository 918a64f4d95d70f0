"""Predictions for one chunk of token ids: batched, run, returned in file order."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.fx.experimental._config

from utils.core.errors import ModelError
from utils.evaluation.attention import evaluation_attention
from utils.evaluation.batching import Batching, Indices
from utils.evaluation.compilation import compile_model
from utils.evaluation.masking import can_leave_out_mask, choose_min_fill, no_mask_argument
from utils.evaluation.predictions import BatchOutput, PendingPredictions, Predictions
from utils.evaluation.token_batch import TokenBatch, make_batch
from utils.evaluation.tokens import TokenChunk
from utils.model.encoding import InputFormat
from utils.model.load_errors import full_reason
from utils.system.device import is_out_of_memory, synchronize

logger = logging.getLogger(__name__)

WARM_UP_ROWS = 8


class Predictor:
    """Runs a classifier (as ``load_model`` gives it) over chunks; remembers the batch limit that
    the memory allows.

    Args:
        inputs: how batches are made.
        multi_label: probabilities are a sigmoid of each label instead of a softmax over all.
    """

    def __init__(
        self,
        model: Any,
        inputs: InputFormat,
        device: torch.device,
        batching: Batching,
        *,
        multi_label: bool = False,
    ) -> None:
        self.model = model
        self.inputs = inputs
        self.device = device
        self.batching = batching
        self.multi_label = multi_label
        leaves_out_mask = can_leave_out_mask(model, inputs)
        self.needs_mask = inputs.takes_mask and not leaves_out_mask
        # Eager attention is as fast with a mask, and some of these models infer padding from a
        # missing one.
        attention = getattr(getattr(model, "config", None), "_attn_implementation", None)
        self.masks_all = self.needs_mask and attention == "eager"
        self.min_fill = choose_min_fill(model, inputs, device)
        self.no_mask = None
        if leaves_out_mask:
            with evaluation_attention(model, device):
                self.no_mask = no_mask_argument(model, device)
        self.compiled: Any = None
        """What ``compile`` made, for batches without a mask."""

    def compile(self) -> None:
        """From now on run batches without a mask through ``torch.compile``."""
        self.compiled = compile_model(self.model)

    def predict(self, chunk: TokenChunk) -> Predictions:
        """Predict every row of a chunk and wait for the results, which are in its order.

        Raises:
            ModelError: a single row does not fit into the memory.
        """
        return self.launch(chunk).result()

    def launch(self, chunk: TokenChunk) -> PendingPredictions:
        """Start every batch of a chunk. On a GPU the host waits for no result.

        When a batch does not fit into memory, all that has not run yet is planned again at half its
        size; the smaller limit stays for later chunks.

        Raises:
            ModelError: a single row does not fit into the memory.
        """
        remaining = np.arange(len(chunk.ids))
        batches: list[Indices] = []
        outputs: list[BatchOutput] = []
        while len(remaining):
            plan = self.plan_batches(chunk, remaining)
            failed: list[Indices] = []
            for rows, output in zip(plan, self.run_batches(chunk, plan), strict=True):
                if output is None:
                    failed.append(rows)
                else:
                    batches.append(rows)
                    outputs.append(output)
            if not failed:
                break
            self._reduce_limit(chunk.lengths[failed[0]])
            remaining = np.sort(np.concatenate(failed))
        with torch.inference_mode():
            output = BatchOutput(
                label_ids=torch.cat([output.label_ids for output in outputs]),
                probabilities=torch.cat([output.probabilities for output in outputs]),
            )
            return PendingPredictions(chunk.lengths, batches, output)

    def plan_batches(
        self, chunk: TokenChunk, rows: Indices, batching: Batching | None = None
    ) -> list[Indices]:
        """Batches of these rows, as positions into the chunk; each holds rows of one group.

        Args:
            batching: other batches than the predictor's.
        """
        batching = batching or self.batching
        groups = [rows]
        if chunk.groups is not None:
            names = chunk.groups[rows]
            groups = [rows[names == name] for name in np.unique(names)]
        plan = []
        for members in groups:
            for batch in batching.plan(chunk.lengths[members], min_fill=self.min_fill):
                plan.append(members[batch])
        return plan

    def run_batches(self, chunk: TokenChunk, plan: list[Indices]) -> list[BatchOutput | None]:
        """The outputs of the batches, None from the first on for which memory ran out.

        On the CPU batches run side by side, each on one core: what is too small to be split keeps
        no core waiting, and the bytes of a result do not depend on the number of cores.
        """
        out_of_memory = threading.Event()

        def attempt(rows: Indices) -> BatchOutput | None:
            if out_of_memory.is_set():
                return None
            output = self._predict_batch(chunk, rows)
            if output is None:
                out_of_memory.set()
            return output

        if self.device.type == "cuda":
            with evaluation_attention(self.model, self.device):
                return [attempt(rows) for rows in plan]
        num_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        pool = ThreadPoolExecutor(num_threads, thread_name_prefix="predict")
        try:
            if len(plan) == 1:
                # In this thread: torch 2.11 cannot capture a graph again that it captured in a
                # thread which has ended.
                return [attempt(plan[0])]
            return list(pool.map(attempt, plan))
        finally:
            # An interruption does not wait for the batches that have not begun.
            out_of_memory.set()
            pool.shutdown()
            torch.set_num_threads(num_threads)

    @torch.inference_mode()
    def _predict_batch(self, chunk: TokenChunk, rows: Indices) -> BatchOutput | None:
        """The output of one batch, still on the device; None where memory ran out."""
        try:
            logits = self._compute_logits(self._make_batch(chunk, rows)).float()  # (rows, labels)
            probabilities = logits.sigmoid() if self.multi_label else logits.softmax(dim=-1)
            # By the logits, because the sigmoids of all logits above 17 are 1 in float32.
            label_ids = logits.argmax(dim=-1)
            of_labels = probabilities.gather(1, label_ids[:, None])[:, 0]
            is_invalid = ~logits.isfinite().all(dim=-1)
            return BatchOutput(
                label_ids=label_ids, probabilities=of_labels.masked_fill(is_invalid, torch.nan)
            )
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _compute_logits(self, batch: TokenBatch) -> torch.Tensor:
        is_unmasked = batch.mask is None
        model = self.compiled if is_unmasked and self.compiled is not None else self.model
        arguments: dict[str, Any] = {"input_ids": batch.ids, **batch.others}
        if self.inputs.takes_mask:
            arguments["attention_mask"] = self.no_mask if is_unmasked else batch.mask
        logits: torch.Tensor = model(**arguments).logits
        return logits

    def _reduce_limit(self, lengths: Indices) -> None:
        """Halve the limit after a batch of rows with these lengths did not fit."""
        # Called outside the handler of the error, whose traceback kept the tensors that filled the
        # memory.
        torch.cuda.empty_cache()
        if len(lengths) == 1:
            raise ModelError(
                f"A single text of {int(lengths[0])} tokens does not fit into the memory of "
                f"{self.device}.",
                where="evaluation",
                fix="lower profiling.max_length, or use --set model.dtype=bfloat16",
            )
        self.batching = self.batching.backed_off(lengths)
        logger.warning(
            "memory ran out at %d rows; batches now hold at most %d",
            len(lengths),
            self.batching.limit,
        )

    def _make_batch(self, chunk: TokenChunk, rows: Indices) -> TokenBatch:
        """The rows as one batch, with a mask only where it changes something."""
        has_padding = bool((chunk.lengths[rows] != chunk.lengths[rows[0]]).any())
        with_mask = self.masks_all or (self.needs_mask and has_padding)
        return make_batch(chunk, rows, self.inputs, self.device, with_mask=with_mask)

    def run_first_batch(self, chunk: TokenChunk) -> None:
        """Run the first batch and wait for it; where memory runs out, ``launch`` deals with it."""
        plan = self.plan_batches(chunk, np.arange(len(chunk.ids)))
        self.run_batches(chunk, plan[:1])
        synchronize(self.device)

    def warm_up(self, chunk: TokenChunk) -> float:
        """Let the compiler see one batch of each kind that it makes a program for. Returns the
        seconds taken.

        PyTorch's dynamic shapes distinguish a size of 1 from all others: many rows and one, many
        tokens and one.

        Raises:
            ModelError: it cannot compile this model here.
        """
        started_s = time.perf_counter()
        shapes: Any = torch.fx.experimental._config
        try:
            # Otherwise PyTorch takes the number of rows or tokens for the width of a head where the
            # first batch has as many, and fixes it.
            with shapes.patch(use_duck_shape=False):
                for rows in self._warm_up_batches(chunk):
                    self.run_batches(chunk, [rows])
                    synchronize(self.device)
        except Exception as error:  # noqa: BLE001 - compilers raise errors of any type
            raise ModelError(
                f"torch.compile failed: {full_reason(error)}",
                where="evaluation.compile",
                fix="--set evaluation.compile=false",
            ) from error
        return time.perf_counter() - started_s

    def _warm_up_batches(self, chunk: TokenChunk) -> list[Indices]:
        """Several rows of one length (so without a mask), the longest row, the shortest, and the
        two shortest.
        """
        members = self.largest_group(chunk)
        lengths = chunk.lengths[members]
        counts = np.bincount(lengths)
        if counts[2:].any():
            # Rows of a single token are a kind of their own.
            counts[1] = 0
        equal = members[lengths == counts.argmax()][:WARM_UP_ROWS]
        by_length = members[np.argsort(-lengths, kind="stable")]
        return [equal, by_length[:1], by_length[-1:], by_length[-2:]]

    def largest_group(self, chunk: TokenChunk) -> Indices:
        """Positions of the rows that one batch of a warm-up or of a probe may hold."""
        everything = np.arange(len(chunk.ids))
        # Where groups are lengths, these batches mix them: that changes their results, which are
        # not used, and not their time.
        if chunk.groups is None or not self.inputs.allows_padding:
            return everything
        values, counts = np.unique(chunk.groups, return_counts=True)
        return everything[chunk.groups == values[counts.argmax()]]
