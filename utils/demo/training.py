"""Trains the embedded tokenizer and the small Qwen2 classifier."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForSequenceClassification, Qwen2Tokenizer

from utils.pipeline import console

VOCABULARY = 8000
MAX_POSITIONS = 2048
TRAINING_TOKENS = 64
"""Texts are truncated here for training, as ``configs/demo.yaml`` truncates them.

The beginning of a docstring shows which library it is from: with 128 tokens the accuracy was no
higher (0.734 at 128 tokens, instead of 0.744), and training took longer.
"""
TOKENS_PER_BATCH = 4096
LEARNING_RATE = 2e-3
EMBEDDING_MULTIPLE = 64
"""The rows of the embedding are a multiple of this, as in published models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRows:
    """Token ids and label ids of the training texts, row by row."""

    token_ids: Sequence[Sequence[int]]
    label_ids: Sequence[int]


def train_classifier(training: pd.DataFrame, folder: Path, epochs: int, seed: int) -> None:
    """Train on ``text`` and ``labels`` and save model and tokenizer into ``folder``.

    The result depends on the data, the seed and the machine alone, not on its number of threads.
    """
    texts = list(training["text"])
    label2id = {name: i for i, name in enumerate(sorted(training["labels"].unique()))}
    config = _make_config(label2id)
    # The tokenizer's class follows from the configuration.
    config.save_pretrained(folder)
    tokenizer = _train_tokenizer(texts, folder)
    num_multiples = -(-len(tokenizer) // EMBEDDING_MULTIPLE)
    config.vocab_size = num_multiples * EMBEDDING_MULTIPLE
    config.pad_token_id = tokenizer.pad_token_id
    config.eos_token_id = tokenizer.pad_token_id
    torch.manual_seed(seed)
    model = Qwen2ForSequenceClassification(config)
    encoded = tokenizer(texts, truncation=True, max_length=TRAINING_TOKENS)
    rows = TrainingRows(
        token_ids=encoded["input_ids"],
        label_ids=[label2id[name] for name in training["labels"]],
    )
    with _one_thread():
        _fit(model, tokenizer, rows, epochs, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _make_config(label2id: dict[str, int]) -> Qwen2Config:
    return Qwen2Config(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        use_cache=False,
        id2label={i: name for name, i in label2id.items()},
        label2id=label2id,
        bos_token_id=None,
        architectures=["Qwen2ForSequenceClassification"],
    )


def _train_tokenizer(texts: list[str], folder: Path) -> Any:
    """A byte-level BPE tokenizer, loaded as every later step will load it."""
    untrained: Any = Qwen2Tokenizer(model_max_length=MAX_POSITIONS)
    trained = untrained.train_new_from_iterator(texts, VOCABULARY, show_progress=False)
    trained.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run PyTorch's operators in one thread while the block runs.

    The operators are so small that a second thread gains little. On a busy machine threads that
    wait for each other made the training eight times slower.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit(model: Any, tokenizer: Any, rows: TrainingRows, epochs: int, seed: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    batches = list(make_batches([len(ids) for ids in rows.token_ids]))
    num_steps = epochs * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=num_steps)
    order = random.Random(seed)
    model.train()
    with console.progress(total=num_steps, what="Training the embedded model", unit="batch") as bar:
        for _ in range(epochs):
            order.shuffle(batches)
            for batch in batches:
                ids = [rows.token_ids[row] for row in batch]
                labels = torch.tensor([rows.label_ids[row] for row in batch])
                inputs = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
                loss = model(**inputs, labels=labels).loss
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                bar.update()
    model.eval()


def make_batches(lengths: list[int]) -> Iterator[list[int]]:
    """Batches of row numbers, grouped by length, so that there is little padding."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[row] > TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(row)
    yield batch
