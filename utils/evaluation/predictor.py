"""Predictions for one chunk of texts: tokenised, batched, run, brought back to file order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.fx.experimental._config
from numpy.typing import NDArray

from utils.core.device import is_out_of_memory
from utils.core.errors import ModelError
from utils.data.reader import encodable
from utils.evaluation.batching import Batching, Indices, padded_tokens
from utils.evaluation.compilation import compile_model
from utils.model.adapter import num_virtual_tokens
from utils.model.encoding import InputFormat
from utils.model.load_errors import full_reason

logger = logging.getLogger(__name__)

Output = tuple[torch.Tensor, torch.Tensor] | None
CPU_BUDGETS = (1024, 2048, 4096, 8192, 16384)
CUDA_BUDGETS = (4096, 8192, 16384, 32768, 65536, 131072)
TEXTS_A_CALL = 512
TRIAL_SECONDS = 6.0
TRIAL_SPOTS = (0.15, 0.5, 0.85)  # of all tokens, sorted by length
WORTH_CHANGING = 1.02  # a larger budget must be this much faster: it takes more memory


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenChunk:
    """Token ids of some texts, in file order. One without any gets a padding token; ``num_tokens`` still says 0.

    Args:
        ids: int64 of shape ``[tokens]`` for each text.
        num_tokens: tokens of each text.
        num_truncated: texts that were truncated; None where the tokenizer does not tell.
        others: by name, what the model takes for each token beside its id (``token_type_ids``), shaped as ``ids``.
        groups: texts of different groups cannot stand in one batch; None where all can.
        highest_id: the largest token id.
    """

    ids: tuple[NDArray[np.int64], ...]
    num_tokens: Indices
    num_truncated: int | None
    others: Mapping[str, tuple[NDArray[np.int64], ...]] = field(default_factory=dict)
    groups: Indices | None = None
    highest_id: int = 0

    @property
    def lengths(self) -> Indices:
        return np.maximum(self.num_tokens, 1)

    def head(self, count: int) -> TokenChunk:
        """The first texts."""
        return TokenChunk(
            ids=self.ids[:count],
            num_tokens=self.num_tokens[:count],
            num_truncated=self.num_truncated,
            others={name: rows[:count] for name, rows in self.others.items()},
            groups=None if self.groups is None else self.groups[:count],
            highest_id=self.highest_id,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """For each row its most probable label and that label's probability, NaN where a logit is not finite.

    The probability is a softmax over the labels, or for a multi-label model the label's own sigmoid.
    """

    predicted_ids: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    padded_tokens: int


def tokenize(
    tokenizer: Any, texts: Sequence[str], max_length: int, inputs: InputFormat
) -> TokenChunk:
    """Token ids of the texts, truncated at ``max_length``, not padded.

    A few hundred texts a call: while a call's results become Python objects, no other thread can launch work on a GPU.
    """
    ids: list[NDArray[np.int64]] = []
    others: dict[str, list[NDArray[np.int64]]] = {name: [] for name in inputs.other_names}
    truncated: int | None = 0
    for start in range(0, len(texts), TEXTS_A_CALL):
        encoded = tokenizer(
            [encodable(text) for text in texts[start : start + TEXTS_A_CALL]],
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            **({} if others else {"return_token_type_ids": False}),
        )
        ids += _to_arrays(encoded["input_ids"])
        for name, rows in others.items():
            rows += _to_arrays(encoded[name])
        encodings = encoded.encodings
        if encodings is None or truncated is None:
            truncated = None
        else:
            truncated += sum(bool(item.overflowing) for item in encodings)
    return TokenChunk(
        ids=_filled(ids, inputs.pad_token_id),
        num_tokens=np.array([row.size for row in ids], dtype=np.int64),
        num_truncated=truncated,
        others={name: _filled(rows, inputs.pad_values[name]) for name, rows in others.items()},
        groups=_groups(ids, inputs),
        highest_id=max((int(row.max()) for row in ids if row.size), default=0),
    )


def _to_arrays(rows: Sequence[Sequence[int]]) -> list[NDArray[np.int64]]:
    return [np.asarray(row, dtype=np.int64) for row in rows]


def _filled(rows: Sequence[NDArray[np.int64]], pad_value: int) -> tuple[NDArray[np.int64], ...]:
    """The rows; one without a token gets a single padding value, because no model runs on no token at all."""
    nothing = np.array([pad_value], dtype=np.int64)
    return tuple(row if row.size else nothing for row in rows)


def _groups(ids: Sequence[NDArray[np.int64]], inputs: InputFormat) -> Indices | None:
    """Which texts can stand in one batch: of one length where the model takes no padding, with as many end tokens where
    it wants the same number in each; all of them otherwise."""
    if not inputs.allows_padding:
        return np.array([max(row.size, 1) for row in ids], dtype=np.int64)
    if inputs.end_token_id is None:
        return None
    counts = [int((row == inputs.end_token_id).sum()) for row in ids]
    return np.array(counts, dtype=np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenBatch:
    """A batch on the device, each tensor int64 of shape ``[rows, tokens]``.

    ``mask`` is None where it would change nothing.
    """

    ids: torch.Tensor
    mask: torch.Tensor | None
    others: Mapping[str, torch.Tensor]


class Running:
    """A chunk whose batches are launched: on a GPU they may still be running, and their results on the way here."""

    def __init__(self, lengths: Indices, batches: list[Indices], ids: torch.Tensor, values: torch.Tensor) -> None:
        self._lengths, self._batches = lengths, batches
        self._ids, self._values = _to_host(ids), _to_host(values)
        self._copied = torch.cuda.Event() if ids.is_cuda else None
        if self._copied:
            self._copied.record(torch.cuda.current_stream(ids.device))

    def result(self) -> Predictions:
        """The predictions in the chunk's order; waits for the device, without stopping what was launched since."""
        if self._copied:
            self._copied.synchronize()
        rows = np.concatenate(self._batches)
        assert len(rows) == len(self._lengths), "every row was predicted once"
        predicted, probabilities = np.empty(len(rows), dtype=np.int64), np.empty(len(rows), dtype=np.float32)
        predicted[rows], probabilities[rows] = self._ids.numpy(), self._values.numpy()
        padded = sum(padded_tokens(self._lengths[batch]) for batch in self._batches)
        return Predictions(predicted_ids=predicted, probabilities=probabilities, padded_tokens=padded)


class Predictor:
    """Runs a classifier (as ``load_model`` gives it) over chunks; remembers the batch limit that the memory allows.

    Args:
        inputs: how batches are made.
        multi_label: probabilities are a sigmoid of each label instead of a softmax over all.
    """

    def __init__(
        self, model: Any, inputs: InputFormat, device: torch.device, batching: Batching, *,
        multi_label: bool = False,
    ) -> None:
        self.model = model
        self.inputs = inputs
        self.device = device
        self.batching = batching
        self.multi_label = multi_label
        # A causal model's tokens do not see padding on their right. Prompt-learning adapters put tokens of their own in front.
        can_leave_out_mask = (
            inputs.takes_mask and inputs.padding_side == "right" and num_virtual_tokens(model) == 0 and is_causal(model)
        )
        self.needs_mask = inputs.takes_mask and not can_leave_out_mask
        # Eager attention is as fast with a mask, and some models of this kind take a missing one for padding looked up.
        attention = getattr(getattr(model, "config", None), "_attn_implementation", None)
        self.masks_all = self.needs_mask and attention == "eager"
        self.no_mask = said_unmasked(model, device) if can_leave_out_mask else None
        self.compiled: Any = None
        """What ``compile`` made, for batches without a mask."""

    def compile(self) -> None:
        """From now on run batches without a mask through ``torch.compile``."""
        self.compiled = compile_model(self.model)

    def predict(self, chunk: TokenChunk) -> Predictions:
        """Predict every row; results come back in the chunk's order."""
        return self._start(chunk).result()

    def launch(self, chunk: TokenChunk) -> Running:
        """Start every batch of a chunk of the run. On a GPU the host waits for no result.

        Raises:
            ModelError: a single row does not fit into the memory.
        """
        return self._start(chunk)

    def _start(self, chunk: TokenChunk) -> Running:
        """Start every batch of the chunk.

        When a batch does not fit into memory, all that has not run yet is planned again at half its size;
        the smaller limit stays for later chunks.

        Raises:
            ModelError: a single row does not fit.
        """
        lengths, left = chunk.lengths, np.arange(len(chunk.ids))
        done: list[tuple[Indices, torch.Tensor, torch.Tensor]] = []
        while len(left):
            plan = self._plan(chunk, left)
            outputs = self._run_all(chunk, plan)
            done += [(rows, *output) for rows, output in zip(plan, outputs, strict=True) if output is not None]
            unfinished = [rows for rows, output in zip(plan, outputs, strict=True) if output is None]
            if unfinished:
                self._back_off(lengths[unfinished[0]])
            left = np.sort(np.concatenate(unfinished)) if unfinished else left[:0]
        batches, ids, values = (list(column) for column in zip(*done, strict=True))
        with torch.inference_mode():
            return Running(lengths, batches, torch.cat(ids), torch.cat(values))

    def _plan(self, chunk: TokenChunk, left: Indices) -> list[Indices]:
        """Batches of the rows ``left``, as positions into the chunk; each batch holds rows of one group."""
        lengths = chunk.lengths
        if chunk.groups is None:
            return [left[rows] for rows in self.batching.plan(lengths[left])]
        plan = []
        for group in np.unique(chunk.groups[left]):
            members = left[chunk.groups[left] == group]
            plan += [members[rows] for rows in self.batching.plan(lengths[members])]
        return plan

    def _run_all(self, chunk: TokenChunk, plan: list[Indices]) -> list[Output]:
        """The outputs of the batches, None from the first on for which memory ran out.

        On the CPU batches run side by side, each on one core: what is too small to be split keeps no core waiting, and
        the bytes of a result do not depend on the number of cores.
        """
        full = threading.Event()

        def attempt(rows: Indices) -> Output:
            output = None if full.is_set() else self._run_or_none(chunk, rows)
            if output is None:
                full.set()
            return output

        if self.device.type == "cuda":
            return [attempt(rows) for rows in plan]
        lanes = torch.get_num_threads()
        torch.set_num_threads(1)
        pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane")
        try:
            # A single one in this thread: a graph captured in a thread that has ended, torch 2.11 cannot capture anew in another.
            return [attempt(plan[0])] if len(plan) == 1 else list(pool.map(attempt, plan))
        finally:
            full.set()  # an interruption does not wait for the batches that have not begun
            pool.shutdown()
            torch.set_num_threads(lanes)

    @torch.inference_mode()
    def _run_or_none(self, chunk: TokenChunk, rows: Indices) -> Output:
        """Label ids and probabilities, still on the device; None where memory ran out."""
        try:
            logits = self._logits(self._batch(chunk, rows)).float()  # (rows, labels)
            probabilities = logits.sigmoid() if self.multi_label else logits.softmax(dim=-1)
            best = probabilities.max(dim=-1)
            return best.indices, best.values.masked_fill(~logits.isfinite().all(dim=-1), torch.nan)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _logits(self, batch: TokenBatch) -> torch.Tensor:
        is_unmasked = batch.mask is None
        run = self.compiled if self.compiled is not None and is_unmasked else self.model
        arguments: dict[str, Any] = {"input_ids": batch.ids, **batch.others}
        if self.inputs.takes_mask:
            arguments["attention_mask"] = self.no_mask if is_unmasked else batch.mask
        return run(**arguments).logits  # type: ignore[no-any-return]

    def _back_off(self, lengths: Indices) -> None:
        # Outside the handler: the traceback no longer holds the tensors that filled the memory.
        torch.cuda.empty_cache()
        if len(lengths) == 1:
            raise ModelError(
                f"A single text of {int(lengths[0])} tokens does not fit into the memory of {self.device}.",
                where="evaluation", fix="lower profiling.max_length, or use --set model.dtype=bfloat16",
            )
        self.batching = self.batching.backed_off(lengths)
        logger.warning("memory ran out at %d rows; batches now hold at most %d", len(lengths), self.batching.limit)

    def _batch(self, chunk: TokenChunk, rows: Indices) -> TokenBatch:
        """The rows as one batch, padded to the longest on the side that the model takes.

        There is no mask where it would change nothing, which opens the faster attention kernels: for rows of one length,
        and for a causal model, whose tokens see no padding to their right. Where such a model reads its result,
        the last token that is not the padding token, depends on a row's own tokens, never on how far it is padded, so a
        padding token within a text is harmless too.
        """
        lengths = chunk.lengths[rows]
        columns = np.arange(int(lengths.max()))
        if self.inputs.padding_side == "right":
            is_real = columns < lengths[:, None]
        else:
            is_real = columns >= (columns.size - lengths)[:, None]
        ids = self._padded(chunk.ids, rows, is_real, "input_ids")
        others = {
            name: self._on_device(self._padded(values, rows, is_real, name))
            for name, values in chunk.others.items()
        }
        mask = None
        if self.masks_all or (self.needs_mask and not is_real.all()):
            mask = self._on_device(is_real.astype(np.int64))
        return TokenBatch(ids=self._on_device(ids), mask=mask, others=others)

    def _padded(
        self, values: Sequence[NDArray[np.int64]], rows: Indices, is_real: NDArray[np.bool_], name: str
    ) -> NDArray[np.int64]:
        batch = np.full(is_real.shape, self.inputs.pad_values[name], dtype=np.int64)
        batch[is_real] = np.concatenate([values[row] for row in rows])
        return batch

    def _on_device(self, values: NDArray[np.int64]) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def start_up(self, chunk: TokenChunk) -> None:
        """Run the first batch, and wait for it; where memory runs out, ``launch`` will tell."""
        self._run_all(chunk, self._plan(chunk, np.arange(len(chunk.ids)))[:1])
        self._synchronize()

    def warm_up(self, chunk: TokenChunk) -> float:
        """Let the compiler see one batch of each kind that it makes a program for. Returns the seconds taken.

        It tells a size of 1 from all others (PyTorch's dynamic shapes), so: many rows and one, many tokens and one.

        Raises:
            ModelError: it cannot compile this model here.
        """
        started, lengths = time.perf_counter(), chunk.lengths
        members = self._largest_group(chunk)
        order = members[np.argsort(-lengths[members], kind="stable")]
        # Rows of one length, so without a mask; of several tokens, as far as there are any.
        counts = np.bincount(lengths[members])
        if counts[2:].any():
            counts[1] = 0
        same = members[lengths[members] == counts.argmax()][:8]
        try:
            # Else PyTorch takes rows or tokens for the heads' width where the first batch has as many, and fixes them.
            shapes: Any = torch.fx.experimental._config
            with shapes.patch(use_duck_shape=False):
                for rows in (same, order[:1], order[-1:], order[-2:]):
                    self._run_all(chunk, [rows])
                    self._synchronize()
        except Exception as error:  # noqa: BLE001 - compilers raise what they like; there is one thing to do
            fix = "--set evaluation.compile=false"
            raise ModelError(f"torch.compile failed: {full_reason(error)}", where="evaluation.compile", fix=fix) from error
        return time.perf_counter() - started

    def fastest_budget(self, chunk: TokenChunk) -> int:
        """The token budget that runs this chunk's texts fastest here, by real tokens a second.

        Each budget runs batches of short, middling and long texts twice; the faster time counts. Going up
        stops at the memory's end, at the chunk's end or when ``TRIAL_SECONDS`` are spent.
        """
        budgets = CUDA_BUDGETS if self.device.type == "cuda" else CPU_BUDGETS
        best, best_speed = budgets[0], 0.0
        self._trial_speed(chunk, budgets[0])  # warm-up, not counted
        started = time.perf_counter()
        for budget in budgets:
            speed = max(self._trial_speed(chunk, budget) for _ in range(2))
            logger.info("budget of %d tokens: %.0f tokens/s", budget, speed)
            if speed > best_speed * WORTH_CHANGING:
                best, best_speed = budget, speed
            # The next budget is twice as large: it would cost about as much as all before it.
            spent = 2 * (time.perf_counter() - started)
            if not speed or budget >= chunk.lengths.sum() or spent > TRIAL_SECONDS:
                break
        return best

    def _trial_speed(self, chunk: TokenChunk, budget: int) -> float:
        """Real tokens a second over batches from each of ``TRIAL_SPOTS``, as many as run at once; 0 where memory ran out."""
        lengths = chunk.lengths
        members = self._largest_group(chunk)
        order = members[np.argsort(lengths[members], kind="stable")]
        reached = np.cumsum(lengths[order])
        stops = [int(np.searchsorted(reached, spot * reached[-1])) + 1 for spot in TRIAL_SPOTS]
        batches = [order[max(0, stop - max(1, budget // int(lengths[order[stop - 1]]))) : stop] for stop in stops]
        batches *= torch.get_num_threads() if self.device.type == "cpu" else 1
        self._synchronize()
        started = time.perf_counter()
        outputs = self._run_all(chunk, batches)
        self._synchronize()
        if any(output is None for output in outputs):
            return 0.0
        return sum(int(lengths[rows].sum()) for rows in batches) / (time.perf_counter() - started)

    def _largest_group(self, chunk: TokenChunk) -> Indices:
        """Positions of the rows that a trial may put into one batch."""
        everything = np.arange(len(chunk.ids))
        # Where groups are lengths, a trial's batches mix them: that changes their results, which no one reads, not their time.
        if chunk.groups is None or not self.inputs.allows_padding:
            return everything
        values, counts = np.unique(chunk.groups, return_counts=True)
        return everything[chunk.groups == values[counts.argmax()]]

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def is_causal(model: Any) -> bool:
    """Whether no token of the model sees one to its right: all its attention modules say so, and its config not otherwise.

    A decoder that its config makes bidirectional keeps modules that say they are causal.
    """
    said = [module.is_causal for module in getattr(model, "modules", list)() if hasattr(module, "is_causal")]
    if not said or not all(said):
        return False
    settings = model.config.get_text_config()
    both_ways = getattr(settings, "use_bidirectional_attention", False) or getattr(settings, "is_causal", True) is False
    return not both_ways


@torch.inference_mode()
def said_unmasked(model: Any, device: torch.device) -> dict[str, None] | None:
    """What tells a causal model that there is no mask, so that it need not look; None where it takes no more than that.

    Without a mask transformers looks whether several texts are packed into one row: a wait for the device at every batch,
    and under ``torch.compile`` a mask after all. Decoders of several kinds of layer take a mask for each kind instead.
    Only for kernels that are causal without a mask, and only where a trial answers the same both ways.
    """
    settings = model.config.get_text_config()
    causal_kernel = settings._attn_implementation in ("sdpa", "flash_attention_2")
    if not causal_kernel or set(getattr(settings, "layer_types", None) or ()) != {"full_attention"}:
        return None
    ids, said = torch.arange(1, 9, device=device)[None], {"full_attention": None}
    try:
        answers = [model(input_ids=ids, attention_mask=mask).logits for mask in (None, said)]
    except Exception:  # noqa: BLE001 - a model that takes no such thing says so in its own way
        return None
    return said if torch.equal(*answers) else None


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in pinned memory that the device fills when it gets there; itself on the CPU."""
    if not tensor.is_cuda:
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
