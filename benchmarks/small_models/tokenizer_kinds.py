"""Tokenizers of the kinds that the architectures are used with, trained on made-up words."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CanineTokenizer,
    PerceiverTokenizer,
    PreTrainedTokenizerFast,
    RoCBertTokenizer,
)

VOCABULARY = 600
IN_PYTHON = "Python alone"
"""The kind of the tokenizers that are not written in Rust; they are classes of their own."""


@dataclass(frozen=True, kw_only=True)
class TokenizerKind:
    """How one family of models turns a text into tokens.

    ``specials`` are the special tokens in the order of their ids; ``roles`` says which of them is
    the padding token and so on; ``template`` is what stands around a text, None for nothing;
    ``byte_pairs``: byte-level BPE rather than WordPiece; ``inputs`` is what the tokenizer returns.
    """

    specials: tuple[str, ...]
    roles: Mapping[str, str]
    template: str | None = None
    byte_pairs: bool = False
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    options: Mapping[str, Any] = field(default_factory=dict)


WITH_TYPES = ("input_ids", "token_type_ids", "attention_mask")
LEFT = {"padding_side": "left"}

BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BERT_ROLES = {
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "mask_token": "[MASK]",
}
ROBERTA_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
ROBERTA_ROLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
XLNET_ROLES = {
    "cls_token": "<cls>",
    "sep_token": "<sep>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}
T5_ROLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}
BYTE_SPECIALS = ("</s>", "<s>")
BYTE_ROLES = {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "</s>"}
PADDED_SPECIALS = ("<pad>", *BYTE_SPECIALS)
PADDED_ROLES = {**BYTE_ROLES, "pad_token": "<pad>"}

KINDS = {
    "BERT": TokenizerKind(
        specials=BERT_SPECIALS, roles=BERT_ROLES, template="[CLS] $A [SEP]", inputs=WITH_TYPES
    ),
    "BERT without token types": TokenizerKind(
        specials=BERT_SPECIALS, roles=BERT_ROLES, template="[CLS] $A [SEP]"
    ),
    "BERT without mask": TokenizerKind(
        specials=("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"),
        roles=BERT_ROLES,
        template="[CLS] $A [SEP]",
        inputs=("input_ids", "token_type_ids"),
    ),
    "Funnel": TokenizerKind(
        specials=BERT_SPECIALS,
        roles=BERT_ROLES,
        template="[CLS]:2 $A:0 [SEP]:0",
        inputs=WITH_TYPES,
    ),
    "RoBERTa": TokenizerKind(
        specials=ROBERTA_SPECIALS, roles=ROBERTA_ROLES, template="<s> $A </s>"
    ),
    "XLM": TokenizerKind(
        specials=("<s>", "</s>", "<pad>", "<unk>", "<mask>"),
        roles=ROBERTA_ROLES,
        template="<s> $A </s>",
    ),
    "XLNet": TokenizerKind(
        specials=("<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>"),
        roles=XLNET_ROLES,
        template="$A:0 <sep>:0 <cls>:2",
        inputs=WITH_TYPES,
        options={**LEFT, "pad_token_type_id": 3},
    ),
    "T5": TokenizerKind(
        specials=("<pad>", "</s>", "<unk>", "<s>"), roles=T5_ROLES, template="$A </s>"
    ),
    "end and language": TokenizerKind(
        specials=(*ROBERTA_SPECIALS, "en_XX"), roles=ROBERTA_ROLES, template="$A </s> en_XX"
    ),
    "bytes": TokenizerKind(specials=BYTE_SPECIALS, roles=BYTE_ROLES, byte_pairs=True),
    "bytes, begin": TokenizerKind(
        specials=BYTE_SPECIALS, roles=BYTE_ROLES, byte_pairs=True, template="<s> $A"
    ),
    "bytes, begin and end": TokenizerKind(
        specials=BYTE_SPECIALS, roles=BYTE_ROLES, byte_pairs=True, template="<s> $A </s>"
    ),
    "bytes, padding": TokenizerKind(specials=PADDED_SPECIALS, roles=PADDED_ROLES, byte_pairs=True),
    "bytes, begin, padding left": TokenizerKind(
        specials=PADDED_SPECIALS,
        roles=PADDED_ROLES,
        byte_pairs=True,
        template="<s> $A",
        options=LEFT,
    ),
    "bytes, padding is the end token": TokenizerKind(
        specials=BYTE_SPECIALS, roles={**BYTE_ROLES, "pad_token": "</s>"}, byte_pairs=True
    ),
    "OPT": TokenizerKind(
        specials=("<s>", "<pad>", "</s>", "<unk>"),
        roles=PADDED_ROLES,
        byte_pairs=True,
        template="</s> $A",
    ),
}
"""``begin`` and ``end`` are special tokens around a text.

Byte-level kinds without ``padding`` in their name have no padding token.
"""

TYPES_BY_KIND = {
    "BERT": """albert bert big_bird convbert deberta deberta-v2 electra ernie layoutlm
        megatron-bert mobilebert nomic_bert nystromformer rembert roformer squeezebert""",
    "BERT without token types": """cohere_compass_text distilbert modernbert modernbert-decoder
        modernvbert ultrabert ultravbert""",
    "BERT without mask": "fnet",
    "Funnel": "funnel",
    "RoBERTa": """bart camembert data2vec-text esm esmc eurobert gte ibert jina_embeddings_v3
        layoutlmv2 layoutlmv3 lilt longformer luke markuplm mpnet mra mvp roberta
        roberta-prelayernorm xlm-roberta xlm-roberta-xl xmod yoso""",
    "XLM": "flaubert xlm",
    "XLNet": "xlnet",
    "T5": "bigbird_pegasus mt5 reformer t5 umt5",
    "end and language": "mbart plbart",
    "bytes": """ctrl falcon gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox gptj mpt olmo openai-gpt phi
        starcoder2""",
    "bytes, begin": """axk1 axk2 deepseek_v2 deepseek_v3 diffllama doge llama minicpm3 ministral
        ministral3 mistral mistral4 mixtral phi3 phimoe""",
    "bytes, begin and end": "arcee helium jetmoe minimax nemotron persimmon",
    "bytes, padding": """exaone4 glm glm4 gpt_oss hunyuan_v1_dense hunyuan_v1_moe olmo2 qwen2
        qwen2_moe qwen3 qwen3_5 qwen3_5_text qwen3_moe qwen3_next seed_oss smollm3""",
    "bytes, begin, padding left": """bloom gemma gemma2 gemma3 gemma3_text jamba t5gemma t5gemma2
        zamba zamba2""",
    "bytes, padding is the end token": "olmo3 stablelm",
    "OPT": "biogpt opt",
    IN_PYTHON: "canine perceiver roc_bert",
}


def kind_of(model_type: str) -> str | None:
    """Which kind of tokenizer a model type is used with; None for one that is not listed."""
    for kind, types in TYPES_BY_KIND.items():
        if model_type in types.split():
            return kind
    return None


def words(count: int, seed: int) -> list[str]:
    """Words of one to three syllables, the same ones for the same seed."""
    chosen = random.Random(seed)
    syllables = [consonant + vowel for consonant in "bdfglmnprstvk" for vowel in "aeiou"]
    return ["".join(chosen.choices(syllables, k=chosen.randint(1, 3))) for _ in range(count)]


def texts(lengths: Sequence[int], seed: int) -> list[str]:
    """One text for each length in words."""
    known = words(400, seed=0)
    chosen = random.Random(seed)
    return [" ".join(chosen.choices(known, k=length)) for length in lengths]


def make_tokenizer(kind: TokenizerKind) -> PreTrainedTokenizerFast:
    """Train a fast tokenizer of this kind."""
    core = _byte_pair_core(kind) if kind.byte_pairs else _word_piece_core(kind)
    if kind.template is not None:
        known = [(token, core.token_to_id(token)) for token in kind.specials]
        core.post_processor = processors.TemplateProcessing(
            single=kind.template, special_tokens=known
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_input_names=list(kind.inputs),
        **dict(kind.roles),
        **dict(kind.options),
    )


def _corpus() -> list[str]:
    return texts([4 + i % 37 for i in range(500)], seed=1)


def _word_piece_core(kind: TokenizerKind) -> Any:
    core: Any = Tokenizer(models.WordPiece(unk_token=kind.roles["unk_token"]))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=list(kind.specials), show_progress=False
    )
    core.train_from_iterator(_corpus(), trainer)
    return core


def _byte_pair_core(kind: TokenizerKind) -> Any:
    core: Any = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(kind.specials),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    core.train_from_iterator(_corpus(), trainer)
    return core


def make_python_tokenizer(model_type: str, folder: Path) -> Any:
    """The tokenizer of a model type that has none in Rust. Its files are written to ``folder``."""
    if model_type == "canine":
        return CanineTokenizer()
    if model_type == "perceiver":
        return PerceiverTokenizer()
    tokens = [*BERT_SPECIALS, *sorted(set(words(400, seed=0)))]
    numbers = {token: i % 64 for i, token in enumerate(tokens)}
    files = [folder / name for name in ("vocab.txt", "word_shape.json", "word_pronunciation.json")]
    files[0].write_text("\n".join(tokens), encoding="utf-8")
    for file in files[1:]:
        file.write_text(json.dumps(numbers), encoding="utf-8")
    return RoCBertTokenizer(*map(str, files))
