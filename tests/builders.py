"""Small real models of published kinds, each with a real tokenizer, and their reference results.

The reference is transformers alone: one text at a time, with all that the tokenizer returns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as tr

from tests.small_tokenizers import (
    bert_tokenizer,
    bpe_tokenizer,
    end_token_tokenizer,
    make_texts,
    roberta_tokenizer,
    xlnet_tokenizer,
)

LABELS = ("positive", "neutral", "negative")  # the order of the ids is not the alphabetical one
MAX_LENGTH = 64
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.4,
}
NAMED: dict[str, Any] = {
    "id2label": dict(enumerate(LABELS)),
    "label2id": {name: number for number, name in enumerate(LABELS)},
}
TEXTS = make_texts(32, seed=2)


@torch.no_grad()
def spread_head(model: Any, tokenizer: Any, head: torch.nn.Linear) -> None:
    """Scale the head so that every label occurs and results differ clearly between texts."""
    rows = []
    for text in make_texts(60, seed=9):
        encoded = tokenizer(text, return_tensors="pt", truncation=True, max_length=MAX_LENGTH)
        rows.append(model(**_accepted(model, encoded)).logits)
    outputs = torch.cat(rows)
    head.weight.div_(outputs.std(0)[:, None])
    if head.bias is not None:
        head.bias.sub_(outputs.mean(0)).div_(outputs.std(0))


def save(folder: Path, model: Any, tokenizer: Any, head: torch.nn.Linear) -> Path:
    """Spread the head's outputs, and save model and tokenizer."""
    spread_head(model.eval(), tokenizer, head)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def edit_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the ``config.json`` of a saved model."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
    return folder


def build_bert(folder: Path, **changes: Any) -> Path:
    torch.manual_seed(0)
    tokenizer = bert_tokenizer()
    settings = {
        **SMALL,
        **NAMED,
        "vocab_size": len(tokenizer),
        "pad_token_id": 0,
        "max_position_embeddings": 128,
    }
    model = tr.BertForSequenceClassification(tr.BertConfig(**{**settings, **changes}))
    return save(folder, model, tokenizer, model.classifier)


def build_roberta(folder: Path) -> Path:
    """66 rows of positions, 64 of which a text can use."""
    torch.manual_seed(0)
    tokenizer = roberta_tokenizer()
    config = tr.RobertaConfig(
        vocab_size=len(tokenizer),
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        max_position_embeddings=66,
        **SMALL,
        **NAMED,
    )
    model = tr.RobertaForSequenceClassification(config)
    return save(folder, model, tokenizer, model.classifier.out_proj)


def build_xlnet(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = xlnet_tokenizer()
    config = tr.XLNetConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        n_layer=2,
        n_head=2,
        d_inner=64,
        initializer_range=0.4,
        pad_token_id=0,
        **NAMED,
    )
    model = tr.XLNetForSequenceClassification(config)
    return save(folder, model, tokenizer, model.logits_proj)


def build_t5(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = end_token_tokenizer(["<pad>", "</s>", "<unk>"])
    config = tr.T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=1,
        num_decoder_layers=1,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        initializer_factor=3.0,
        **NAMED,
    )
    model = tr.T5ForSequenceClassification(config)
    return save(folder, model, tokenizer, model.classification_head.out_proj)


def build_bart(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = end_token_tokenizer(["<s>", "<pad>", "</s>", "<unk>"])
    config = tr.BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=128,
        init_std=0.4,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
        **NAMED,
    )
    model = tr.BartForSequenceClassification(config)
    return save(folder, model, tokenizer, model.classification_head.out_proj)


def build_llama(
    folder: Path, template: str | None, pad_token: str | None = None, **changes: Any
) -> Path:
    """A decoder without a padding token of its own, unless ``changes`` have ``pad_token_id``."""
    torch.manual_seed(0)
    tokenizer = bpe_tokenizer(template, pad_token)
    settings = {
        **SMALL,
        **NAMED,
        "vocab_size": len(tokenizer),
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": 1,
        "eos_token_id": 0,
        "pad_token_id": None,
        **changes,
    }
    model = tr.LlamaForSequenceClassification(tr.LlamaConfig(**settings))
    return save(folder, model, tokenizer, model.score)


def build_gpt2(folder: Path) -> Path:
    """A decoder with learned positions, so that padding on the left would move its texts."""
    torch.manual_seed(5)
    tokenizer = bpe_tokenizer()
    config = tr.GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=128,
        initializer_range=0.4,
        bos_token_id=0,
        eos_token_id=0,
        **NAMED,
    )
    model = tr.GPT2ForSequenceClassification(config)
    return save(folder, model, tokenizer, model.score)


def build_gemma3(folder: Path) -> Path:
    """Its padding token's id stands in ``text_config`` alone."""
    torch.manual_seed(0)
    tokenizer = bpe_tokenizer("<s> $A")
    text_config = {
        **SMALL,
        "vocab_size": len(tokenizer),
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 0,
        "sliding_window": 64,
    }
    vision_config = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = tr.Gemma3Config(
        text_config=text_config,
        vision_config=vision_config,
        mm_tokens_per_image=4,
        pad_token_id=None,
        initializer_range=0.4,
        **NAMED,
    )
    config.pad_token_id = None
    model = tr.Gemma3ForSequenceClassification(config)
    return save(folder, model, tokenizer, model.score)


def build_fnet(folder: Path) -> Path:
    """It mixes all tokens of a row, takes no mask, and so sees padding."""
    torch.manual_seed(0)
    tokenizer = bert_tokenizer()
    config = tr.FNetConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        intermediate_size=64,
        initializer_range=0.4,
        max_position_embeddings=128,
        pad_token_id=0,
        **NAMED,
    )
    model = tr.FNetForSequenceClassification(config)
    return save(folder, model, tokenizer, model.classifier)


def _accepted(model: Any, encoded: Any) -> dict[str, torch.Tensor]:
    """The inputs of the tokenizer that the model takes: transformers' models name them all."""
    names = model.forward.__code__.co_varnames
    inner = getattr(model.forward, "__wrapped__", None)
    while inner is not None:
        names = inner.__code__.co_varnames
        inner = getattr(inner, "__wrapped__", None)
    return {name: tensor for name, tensor in encoded.items() if name in names}


@torch.no_grad()
def judge(folder: Path, texts: Sequence[str], max_length: int = MAX_LENGTH) -> torch.Tensor:
    """Logits by transformers alone, one text at a time, float32 of shape ``[texts, labels]``."""
    model = tr.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = tr.AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        encoded = tokenizer(text, return_tensors="pt", truncation=True, max_length=max_length)
        rows.append(model(**_accepted(model, encoded)).logits)
    return torch.cat(rows)
