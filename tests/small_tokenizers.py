"""Real tokenizers of the kinds that people publish, trained on texts of made-up words."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Any

import torch
import transformers as tr
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)


def _make_words() -> list[str]:
    chosen = random.Random(7)
    words = []
    for _ in range(300):
        syllables = chosen.randint(1, 3)
        words.append(
            "".join(
                chosen.choice("bdfgklmnprst") + chosen.choice("aeiou") for _ in range(syllables)
            )
        )
    return words


WORDS = _make_words()


def make_texts(count: int, seed: int, longest: int = 40) -> list[str]:
    """Texts of one to ``longest`` made-up words."""
    chosen = random.Random(seed)
    return [" ".join(chosen.choices(WORDS, k=chosen.randint(1, longest))) for _ in range(count)]


def wordpiece_tokenizer(
    specials: dict[str, str], template: str, order: Sequence[str], **options: Any
) -> tr.PreTrainedTokenizerFast:
    """A WordPiece tokenizer.

    Args:
        specials: ``cls_token`` and the others by their names in transformers.
        template: how a text is wrapped, for example ``[CLS] $A [SEP]``.
        order: the special tokens in the order of their ids.
    """
    core = Tokenizer(models.WordPiece(unk_token=specials["unk_token"]))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=500, special_tokens=list(order), show_progress=False
    )
    core.train_from_iterator(make_texts(400, seed=1), trainer)
    used = [(token, core.token_to_id(token)) for token in order if token in template]
    core.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    return tr.PreTrainedTokenizerFast(tokenizer_object=core, **specials, **options)


def bert_tokenizer() -> tr.PreTrainedTokenizerFast:
    specials = {
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
    }
    return wordpiece_tokenizer(specials, "[CLS] $A [SEP]", ["[PAD]", "[UNK]", "[CLS]", "[SEP]"])


def roberta_tokenizer() -> tr.PreTrainedTokenizerFast:
    specials = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return wordpiece_tokenizer(
        specials, "<s> $A </s>", ["<s>", "<pad>", "</s>", "<unk>"], eos_token="</s>"
    )


def xlnet_tokenizer() -> tr.PreTrainedTokenizerFast:
    specials = {
        "cls_token": "<cls>",
        "sep_token": "<sep>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    return wordpiece_tokenizer(
        specials,
        "$A:0 <sep>:0 <cls>:2",
        ["<pad>", "<unk>", "<cls>", "<sep>"],
        padding_side="left",
        pad_token_type_id=3,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def end_token_tokenizer(order: Sequence[str]) -> tr.PreTrainedTokenizerFast:
    """As T5 and BART have it: each text ends in the end token."""
    specials = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    return wordpiece_tokenizer(specials, "$A </s>", order)


def train_byte_bpe(texts: Sequence[str], vocab_size: int, specials: list[str]) -> Tokenizer:
    """A byte-level BPE tokenizer; ``specials`` have the first ids."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    core.train_from_iterator(texts, trainer)
    return core


def split_as_qwen2(core: Tokenizer) -> None:
    """Give a byte-level tokenizer the normalisation and the splitting of Qwen2's tokenizer."""
    contractions = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    letters = r"[^\r\n\p{L}\p{N}]?\p{L}+"
    signs = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
    spaces = r"\s*[\r\n]+|\s+(?!\S)|\s+"
    pattern = rf"{contractions}|{letters}|\p{{N}}|{signs}|{spaces}"
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def bpe_tokenizer(
    template: str | None = None, pad_token: str | None = None
) -> tr.PreTrainedTokenizerFast:
    """A byte-level tokenizer of a decoder; ``</s>`` has id 0, ``<s>`` id 1."""
    core = train_byte_bpe(make_texts(400, seed=1), 500, ["</s>", "<s>"])
    if template:
        used = [(token, core.token_to_id(token)) for token in ("</s>", "<s>")]
        core.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    return tr.PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="</s>",
        bos_token="<s>",
        unk_token="</s>",
        pad_token=pad_token,
    )


class Words:
    """A token for each word."""

    pad_token_id = 0

    def __call__(
        self, texts: list[str], max_length: int, **options: Any
    ) -> dict[str, torch.Tensor]:
        lengths = [min(len(text.split()), max_length) for text in texts]
        mask = torch.tensor(
            [[i < n for i in range(max(lengths))] for n in lengths], dtype=torch.long
        )
        return {"input_ids": mask + 1, "attention_mask": mask.reshape(len(texts), -1)}


class RecordingTokenizer:
    """A real tokenizer that records ``TOKENIZERS_PARALLELISM`` at each call."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.recorded: list[str | None] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.recorded.append(os.environ.get("TOKENIZERS_PARALLELISM"))
        return self._tokenizer(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)
