"""Trains the embedded tokenizer and the small Qwen2 classifier."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForSequenceClassification, Qwen2Tokenizer

from utils.pipeline import console

VOCABULARY = 8000
MAX_POSITIONS = 2048
TRAINING_TOKENS = 128
"""Texts are cut here for training: the beginning of a docstring tells its library, and the time is the demo's."""
TOKENS_PER_BATCH = 4096
LEARNING_RATE = 2e-3


def train_classifier(training: pd.DataFrame, folder: Path, epochs: int, seed: int) -> None:
    """Train on ``text`` and ``labels`` and save model and tokenizer into ``folder``. Deterministic for one machine."""
    label2id = {name: i for i, name in enumerate(sorted(training["labels"].unique()))}
    config = Qwen2Config(
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
    config.save_pretrained(folder)
    untrained: Any = Qwen2Tokenizer(model_max_length=MAX_POSITIONS)
    untrained.train_new_from_iterator(
        list(training["text"]), VOCABULARY, show_progress=False
    ).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)  # as every later step will load it
    config.vocab_size = -(-len(tokenizer) // 64) * 64
    config.pad_token_id = config.eos_token_id = tokenizer.pad_token_id
    torch.manual_seed(seed)
    model = Qwen2ForSequenceClassification(config)
    ids = tokenizer(list(training["text"]), truncation=True, max_length=TRAINING_TOKENS)[
        "input_ids"
    ]
    _fit(model, tokenizer, ids, [label2id[name] for name in training["labels"]], epochs, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _fit(
    model: Any, tokenizer: Any, ids: list[list[int]], labels: list[int], epochs: int, seed: int
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    batches = list(_batches([len(row) for row in ids]))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=epochs * len(batches)
    )
    order = random.Random(seed)
    model.train()
    with console.progress(
        total=epochs * len(batches), what="Training the embedded model", unit="batch"
    ) as bar:
        for _ in range(epochs):
            order.shuffle(batches)
            for rows in batches:
                padded = tokenizer.pad({"input_ids": [ids[i] for i in rows]}, return_tensors="pt")
                loss = model(**padded, labels=torch.tensor([labels[i] for i in rows])).loss
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                bar.update()
    model.eval()


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    """Rows grouped by length, so that hardly any token is padding."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[row] > TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(row)
    yield batch
