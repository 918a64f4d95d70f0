"""The workload of the sweep: texts through tokenizer, model and back, timed or untimed."""

from __future__ import annotations

import time
from typing import Any

import torch

from utils.model.encoding import compute_logits, encode_batch, input_format, select_inputs
from utils.model.truncation import count_truncated
from utils.sweep.flops import FlopCounter, FlopsPerSample
from utils.sweep.run_log import RunLog
from utils.system.device import synchronize


class BatchRunner:
    """Runs a sequence classifier over texts, batch by batch.

    Args:
        model: returns ``logits`` of shape ``[batch, labels]``; in eval mode, on ``device``.
        tokenizer: pads to the longest text of a batch.
        device: of the model.
    """

    def __init__(self, model: Any, tokenizer: Any, device: torch.device) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.device = device
        self._on_cuda = device.type == "cuda"
        self._input_names = input_format(model, tokenizer).names
        self._flops = FlopCounter(model, tokenizer, self._input_names, device)

    def infer(self, texts: list[str], max_length: int) -> torch.Tensor:
        """The logits of one batch on the host, ``[texts, labels]`` in float32."""
        with torch.inference_mode():
            encoded = encode_batch(self.tokenizer, texts, max_length)
            return compute_logits(self.model, encoded, self._input_names, self.device)

    def run_untimed(self, texts: list[str], size: int, max_length: int) -> torch.Tensor:
        """The logits of all texts, ``[texts, labels]``, in batches of ``size``."""
        logits = []
        for start in range(0, len(texts), size):
            logits.append(self.infer(texts[start : start + size], max_length))
        return torch.cat(logits)

    def allocate_log(self, num_rows: int, size: int) -> RunLog:
        """What a timed run fills in, allocated before the clock starts."""
        events = []
        if self._on_cuda:
            stream = torch.cuda.current_stream(self.device)
            for _ in range(0, num_rows, size):
                begin = torch.cuda.Event(enable_timing=True)
                end = torch.cuda.Event(enable_timing=True)
                # The driver creates an event at its first record, which is not to be timed.
                begin.record(stream)
                end.record(stream)
                events.append((begin, end))
        return RunLog(num_full_batches=num_rows // size, events=events)

    def run_timed(self, texts: list[str], size: int, max_length: int, log: RunLog) -> None:
        """The workload: tokenize, copy, forward, copy back, for each batch. Nothing else."""
        clock = time.perf_counter_ns
        device = self.device
        events = iter(log.events)
        # The stream of the model's device, which need not be the current device.
        stream = torch.cuda.current_stream(device) if self._on_cuda else None
        with torch.inference_mode():
            for start in range(0, len(texts), size):
                started = clock()
                host = encode_batch(self.tokenizer, texts[start : start + size], max_length)
                tokenized = clock()
                batch = select_inputs(host, self._input_names, device)
                synchronize(device)
                begin, end = next(events, (None, None))
                on_device = clock()
                if begin is not None:
                    begin.record(stream)
                logits = self.model(**batch).logits
                if end is not None:
                    end.record(stream)
                launched = clock()
                synchronize(device)
                computed = clock()
                log.logits.append(logits.float().cpu())
                log.stamps.append((started, tokenized, on_device, launched, computed, clock()))
                log.masks.append(host["attention_mask"])

    def count_tokens(self, texts: list[str], size: int, max_length: int) -> tuple[int, int]:
        """Tokens of all texts, and with the padding that batches of ``size`` add."""
        encoded = self.tokenizer(texts, truncation=True, max_length=max_length)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        computed_tokens = 0
        for start in range(0, len(lengths), size):
            batch = lengths[start : start + size]
            computed_tokens += len(batch) * max(batch)
        return sum(lengths), computed_tokens

    def count_truncated(self, texts: list[str], max_length: int) -> int:
        """How many texts are truncated."""
        encoded = self.tokenizer(texts, truncation=True, max_length=max_length)
        return count_truncated(self.tokenizer, texts, encoded, max_length)

    def flops_per_sample(self, texts: list[str], size: int, max_length: int) -> FlopsPerSample:
        """Executed FLOPs per sample, padding included, of every operator that has a formula."""
        return self._flops.per_sample(texts, size, max_length)
