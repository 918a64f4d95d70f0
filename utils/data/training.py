"""Trains the embedded tokenizer and the small Qwen2 classifier."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForSequenceClassification

from utils.core import console

VOCABULARY = 8000
PAD = "<|endoftext|>"
MAX_POSITIONS = 2048
TRAINING_TOKENS = 128
"""Texts are cut here for training: the beginning of a docstring tells its library, and the time is the demo's."""
TOKENS_PER_BATCH = 4096
LEARNING_RATE = 2e-3
# How Qwen2's tokenizer splits words; transformers puts this in place when it loads one beside a Qwen2 config.
WORDS = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""


def train_classifier(training: pd.DataFrame, folder: Path, epochs: int, seed: int) -> None:
    """Train on ``text`` and ``labels`` and save model and tokenizer into ``folder``. Deterministic for one machine."""
    names = sorted(training["labels"].unique())
    label2id = {name: i for i, name in enumerate(names)}
    config = Qwen2Config(
        hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=MAX_POSITIONS, tie_word_embeddings=True, use_cache=False,
        id2label=dict(enumerate(names)), label2id=label2id,
        architectures=["Qwen2ForSequenceClassification"], bos_token_id=None,
    )
    config.save_pretrained(folder)
    _train_tokenizer(list(training["text"])).save_pretrained(folder)
    # As every later step will load it: transformers may add to a tokenizer that stands beside a Qwen2 config.
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config.vocab_size = -(-len(tokenizer) // 64) * 64
    config.pad_token_id = config.eos_token_id = tokenizer.pad_token_id
    torch.manual_seed(seed)
    model = Qwen2ForSequenceClassification(config)
    ids = tokenizer(list(training["text"]), truncation=True, max_length=TRAINING_TOKENS)["input_ids"]
    _fit(model, ids, [label2id[name] for name in training["labels"]], tokenizer.pad_token_id, epochs, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _train_tokenizer(texts: Sequence[str]) -> Any:
    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.NFC()
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[PAD], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token=PAD, eos_token=PAD, model_max_length=MAX_POSITIONS, padding_side="right"
    )


def _fit(model: Any, ids: list[list[int]], labels: list[int], pad_id: int, epochs: int, seed: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    batches = list(_batches([len(row) for row in ids]))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * len(batches))
    order = random.Random(seed)
    model.train()
    with console.progress(total=epochs * len(batches), what="Training the embedded model", unit="batch") as bar:
        for _ in range(epochs):
            order.shuffle(batches)
            for rows in batches:
                padded = torch.nn.utils.rnn.pad_sequence(
                    [torch.tensor(ids[i]) for i in rows], batch_first=True, padding_value=pad_id
                )
                mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(ids[i]), dtype=torch.long) for i in rows], True)
                loss = model(input_ids=padded, attention_mask=mask, labels=torch.tensor([labels[i] for i in rows])).loss
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
