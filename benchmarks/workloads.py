"""Workloads whose answer is known: models and tokenizers that take a planted time, real ones of known size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForSequenceClassification

CALIBRATION_CYCLES = 200_000_000
"""About a tenth of a second on a data-centre GPU: long against the resolution of CUDA events (0.5 us)."""
WORD = "word"


def cycles_per_s(device: torch.device) -> float:
    """Cycles a second that ``torch.cuda._sleep`` counts, by CUDA events: the SM clock of a card under load."""
    torch.cuda._sleep(3 * CALIBRATION_CYCLES)  # brings the clock up
    rates = []
    for _ in range(5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        torch.cuda._sleep(CALIBRATION_CYCLES)
        end.record()
        torch.cuda.synchronize(device)
        rates.append(CALIBRATION_CYCLES / (start.elapsed_time(end) / 1e3))
    return sorted(rates)[len(rates) // 2]


class Planted:
    """A classifier whose forward takes a planted time: a busy loop on the CPU, a spinning kernel on CUDA.

    Its answer is made ready inside that time, so that nothing else takes any.

    Args:
        rate: cycles a second, from ``cycles_per_s``; CUDA only.
        first_seconds: what the very first call takes, where that differs.
        hold_bytes: memory that a forward takes and gives back.
    """

    dtype = torch.float32

    def __init__(
        self, seconds: float, device: torch.device, *, rate: float = 0.0, first_seconds: float | None = None,
        hold_bytes: int = 0, max_rows: int = 1024,
    ) -> None:
        self.device, self.seconds, self.rate, self.hold_bytes = device, seconds, rate, hold_bytes
        self.next_seconds = seconds if first_seconds is None else first_seconds
        self.logits = torch.linspace(0, 1, 3, device=device).repeat(max_rows, 1)
        self._spans: list[tuple[Any, Any]] = []

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> Any:
        return self._on_cuda(input_ids) if self.device.type == "cuda" else self._on_cpu(input_ids)

    def taken_ms(self, calls: int) -> list[float]:
        """Milliseconds that each of the last calls took by a clock of the workload's own: CUDA events, or the loop's
        start and end. On a core or card that others use, too, that can be more than was planted."""
        spans = self._spans[-calls:]
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return [start.elapsed_time(end) for start, end in spans]
        return [(end - start) / 1e6 for start, end in spans]

    def _on_cpu(self, input_ids: torch.Tensor) -> Any:
        clock = time.perf_counter_ns
        start = clock()
        end = start + round(self.next_seconds * 1e9)
        self.next_seconds = self.seconds
        answer = SimpleNamespace(logits=self.logits[: len(input_ids)])
        while (now := clock()) < end:
            pass
        self._spans.append((start, now))
        return answer

    def _on_cuda(self, input_ids: torch.Tensor) -> Any:
        if self.hold_bytes:
            torch.empty(self.hold_bytes, dtype=torch.uint8, device=self.device)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        torch.cuda._sleep(round(self.next_seconds * self.rate))
        end.record()
        self._spans.append((start, end))
        self.next_seconds = self.seconds
        return SimpleNamespace(logits=self.logits[: len(input_ids)])


class ReadyTokens:
    """A tokenizer whose answer lies ready, after a planted time."""

    pad_token_id = 0

    def __init__(self, seconds: float = 0.0, tokens: int = 8) -> None:
        self.seconds, self.tokens = seconds, tokens
        self._ready: dict[int, dict[str, torch.Tensor]] = {}

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, torch.Tensor]:
        end = time.perf_counter_ns() + round(self.seconds * 1e9)
        rows = len(texts)
        if rows not in self._ready:
            ones = torch.ones((rows, self.tokens), dtype=torch.long)
            self._ready[rows] = {"input_ids": ones, "attention_mask": ones}
        while time.perf_counter_ns() < end:
            pass
        return self._ready[rows]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A real tokenizer that makes one token of each word."""
    raw = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, WORD: 2}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", padding_side="right")


def text_of(tokens: int) -> str:
    """A text that ``word_tokenizer`` makes so many tokens of."""
    return " ".join([WORD] * tokens)


def small_qwen2(device: torch.device, *, layers: int = 2, width: int = 128, seed: int = 0) -> Any:
    """A real Qwen2 classifier with random weights, of about the embedded model's size."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=8000, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=0, eos_token_id=0, bos_token_id=None,
        id2label=dict(enumerate(map(str, range(23)))), use_cache=False,
    )
    return Qwen2ForSequenceClassification(config).eval().to(device)
