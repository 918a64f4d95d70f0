"""Models and tokenizers that take a planted time, and real ones of known size."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForSequenceClassification

from utils.config_loader import Config, load_config
from utils.diagnosis import operators, tracing
from utils.diagnosis.evidence import Evidence
from utils.model import costs
from utils.model_utils import LoadedModel, load_model
from utils.profiler import InferenceProfiler
from utils.schema.batch_size import BatchSizeRow
from utils.schema.ceilings import Ceilings
from utils.system.timing import time_callable

# A tenth of a second on a data-centre GPU: long beside the resolution of CUDA events (0.5 us).
CALIBRATION_CYCLES = 200_000_000
WORD = "word"
TINY_OPERATORS = 3000


def cycles_per_s(device: torch.device) -> float:
    """Cycles a second of ``torch.cuda._sleep``: the SM clock of a card under load."""
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
    """A classifier whose forward takes a planted time.

    That is a busy loop on the CPU, a spinning kernel on CUDA. Its result is made inside that time,
    so that nothing else takes any.

    Args:
        rate: cycles a second, from ``cycles_per_s``; CUDA only.
        first_seconds: what the very first call takes, where that differs.
        hold_bytes: memory that a forward takes and gives back.
    """

    dtype = torch.float32

    def __init__(
        self,
        seconds: float,
        device: torch.device,
        *,
        rate: float = 0.0,
        first_seconds: float | None = None,
        hold_bytes: int = 0,
        max_rows: int = 1024,
    ) -> None:
        self.device, self.seconds, self.rate, self.hold_bytes = device, seconds, rate, hold_bytes
        self.next_seconds = seconds if first_seconds is None else first_seconds
        self.logits = torch.linspace(0, 1, 3, device=device).repeat(max_rows, 1)
        self._spans: list[tuple[Any, Any]] = []

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> Any:
        return self._on_cuda(input_ids) if self.device.type == "cuda" else self._on_cpu(input_ids)

    def taken_ms(self, calls: int) -> list[float]:
        """Milliseconds of each of the last calls by a clock of the workload's own.

        The clock is CUDA events, or the loop's start and end. On a core or card that others use,
        too, that can be more than was planted.
        """
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
        output = SimpleNamespace(logits=self.logits[: len(input_ids)])
        now = clock()
        while now < end:
            now = clock()
        self._spans.append((start, now))
        return output

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
    """A tokenizer that returns a ready result after a planted time."""

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


def word_tokenizer(size: int = 3) -> PreTrainedTokenizerFast:
    """A real tokenizer that makes one token of each word, with as many entries as asked for."""
    vocabulary = {"<pad>": 0, "<unk>": 1, WORD: 2}
    for number in range(len(vocabulary), size):
        vocabulary[f"unused{number}"] = number
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", padding_side="right"
    )


def text_of(tokens: int) -> str:
    """A text that ``word_tokenizer`` makes so many tokens of."""
    return " ".join([WORD] * tokens)


def small_qwen2(device: torch.device, *, layers: int = 2, width: int = 128, seed: int = 0) -> Any:
    """A real Qwen2 classifier with random weights, of about the embedded model's size."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=8000,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        pad_token_id=0,
        eos_token_id=0,
        bos_token_id=None,
        id2label=dict(enumerate(map(str, range(23)))),
        use_cache=False,
    )
    return Qwen2ForSequenceClassification(config).eval().to(device)


def large_product(device: torch.device) -> Callable[[], object]:
    """A square matrix product."""
    # On the CPU so short that it has a core for itself while it runs.
    size = 8192 if device.type == "cuda" else 512
    left, right, out = (torch.ones(size, size, device=device) for _ in range(3))
    return partial(torch.mm, left, right, out=out)


def element_wise_chain(device: torch.device) -> Callable[[], object]:
    """Four additions to a tensor that no cache holds."""
    tensor = torch.ones(1 << (28 if device.type == "cuda" else 24), device=device)
    return lambda: [tensor.add_(1.0) for _ in range(4)]


def tiny_operators(device: torch.device) -> Callable[[], object]:
    """Thousands of additions of one element."""
    one = torch.ones(1, device=device)
    return lambda: [torch.add(one, one) for _ in range(TINY_OPERATORS)]


@torch.inference_mode()
def operator_evidence(
    run: Callable[[], object], ceilings: Ceilings, device: torch.device
) -> Evidence:
    """Evidence of a workload that is no model: its operators are the forward."""
    counted = costs.count_op_costs(run)
    limited: dict[str, float] = defaultdict(float)
    for cost in counted:
        seconds, limit = operators.attainable_all_calls(cost, ceilings)
        limited[limit] += seconds * 1e3
    return Evidence(
        device=device.type,
        batch_size=1,
        tokenize_ms=0.0,
        host_to_device_ms=0.0,
        device_to_host_ms=0.0,
        forward_ms=1e3 * time_callable(run, device, repeats=10, warmups=0).fastest_s,
        matmul_limited_ms=limited["matmul"],
        copy_limited_ms=limited["copy"],
        op_calls=sum(cost.calls for cost in counted),
        dispatch_us=ceilings.dispatch_s * 1e6,
        flops=sum(cost.flops or 0 for cost in counted),
        bytes_moved=sum(cost.bytes_moved for cost in counted),
        device_busy_ms=tracing.measure_device_busy(lambda _: run(), steps=3, device=device).ms,
    )


class SleepingTokenizer:
    """A real tokenizer that sleeps before each call."""

    def __init__(self, inner: Any, seconds: float) -> None:
        self._inner, self._seconds = inner, seconds

    def __call__(self, *args: Any, **settings: Any) -> Any:
        time.sleep(self._seconds)
        return self._inner(*args, **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class SlowModule(torch.nn.Module):
    """Any module, made slower by ``seconds``; 0 makes it as fast as before.

    The time goes to a busy loop on the CPU, to a spinning kernel on CUDA.
    """

    def __init__(self, inner: torch.nn.Module, seconds: float, rate: float) -> None:
        super().__init__()
        self.inner, self.seconds, self.rate = inner, seconds, rate

    def forward(self, *args: Any, **settings: Any) -> Any:
        if self.rate:
            torch.cuda._sleep(round(self.seconds * self.rate))
        else:
            end = time.perf_counter() + self.seconds
            while time.perf_counter() < end:
                for _ in range(500):  # a tracer sees every call, so few of them
                    pass
        return self.inner(*args, **settings)


def sweep_one_size(
    profiler: InferenceProfiler, texts: Sequence[str], size: int, num_runs: int, **settings: Any
) -> BatchSizeRow:
    """The sweep's record of one batch size.

    Unless ``settings`` say otherwise there is one warm-up run, and no runs are added for readings
    of the GPU.
    """
    settings = {
        "max_length": 512,
        "num_warmup_runs": 1,
        "seed": 0,
        "min_window_seconds": 0.0,
        **settings,
    }
    (record,) = profiler.profile_multiple_batch_sizes(
        texts, [size], num_runs=num_runs, on_event=lambda line: None, **settings
    )
    return record


def padded_lengths(batch_size: int) -> list[int]:
    """Tokens of the texts of one batch of 16 or 64, of which exactly 90% is padding."""
    long, short = {16: (250, 10), 64: (490, 42)}[batch_size]
    return [long] + [short] * (batch_size - 1)


def ready(
    folder: Path, model: Any, lengths: Sequence[int], *settings: str
) -> tuple[LoadedModel, Config]:
    """The model saved and loaded as any other, with the word tokenizer.

    Its data set has texts of these lengths.
    """
    model.save_pretrained(folder / "model")
    # In a folder of its own: beside a Qwen2's configuration transformers makes a byte-level
    # tokenizer of any file.
    word_tokenizer(model.config.vocab_size).save_pretrained(folder / "tokenizer")
    labels = list(model.config.id2label.values())
    texts = pd.DataFrame({"text": map(text_of, lengths), "labels": labels[0], "label_id": 0})
    texts.to_csv(folder / "val_df.csv", index=False)
    mapping = {
        "label2id": model.config.label2id,
        "id2label": model.config.id2label,
        "num_labels": len(labels),
    }
    (folder / "label_mappings.json").write_text(json.dumps(mapping), encoding="utf-8")
    config = load_config(
        "configs/config.yaml",
        [
            f"model.name={folder / 'model'}",
            f"model.tokenizer={folder / 'tokenizer'}",
            f"model.device={model.device}",
            f"dataset.local_path={folder / 'val_df.csv'}",
            f"dataset.sample_sizes=[{len(lengths)}]",
            f"output.results_dir={folder / 'results'}",
            *settings,
        ],
    )
    return load_model(config), config
