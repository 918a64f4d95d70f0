"""Small texts and a word tokenizer for the pipelines, made without any library."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

NUM_ROWS = 4000
NUM_LABELS = 23
NUM_WORDS = 8000
# Words of a text: a median of 90 and a long tail, as in the embedded corpus.
MEDIAN_LENGTH = 90
LENGTH_SIGMA = 0.9
LONGEST = 1500


def write_texts(file: Path) -> Path:
    """Rows with ``text`` and ``labels``; the same rows at each call."""
    draw = random.Random(0)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["text", "labels"])
        for row in range(NUM_ROWS):
            length = round(draw.lognormvariate(0.0, LENGTH_SIGMA) * MEDIAN_LENGTH)
            length = min(max(length, 1), LONGEST)
            words = [f"w{draw.randrange(NUM_WORDS)}" for _ in range(length)]
            writer.writerow([" ".join(words), f"label {row % NUM_LABELS:02d}"])
    return file


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer that makes one token of each word, in the format of the tokenizers library."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {"<pad>": 0, "<unk>": 1}
    for number in range(NUM_WORDS):
        vocabulary[f"w{number}"] = len(vocabulary)
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": 0, "content": "<pad>", "special": True, **special},
            {"id": 1, "content": "<unk>", "special": True, **special},
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "padding_side": "right",
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
