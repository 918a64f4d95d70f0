"""Small sequence classifiers of every architecture that transformers has.

The weights are random and large, so that outputs differ clearly between texts. The head is
adjusted so that every label occurs.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from benchmarks.small_models.tokenizer_kinds import (
    IN_PYTHON,
    KINDS,
    kind_of,
    make_python_tokenizer,
    make_tokenizer,
    texts,
)

LABELS = ("positive", "neutral", "negative")
MAX_LENGTH = 100
MAX_SEEDS = 5
MIN_ROWS_A_LABEL = 3
BUILD_ERRORS = (
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What transformers raises where a configuration does not fit together or a package is missing."""

UNSUITABLE = {
    "mra": "its attention is a CUDA kernel; on a CPU every text gets the same logits",
    "tapas": "its tokenizer reads a question about a table, not a text",
}
"""Model types that cannot be compared here, with the reason."""

SIZES: dict[float, str] = {
    # Positions: more than MAX_LENGTH, also where a model reserves some.
    160: "max_position_embeddings n_positions",
    64: """intermediate_size d_ff dff d_inner n_inner hidden_dim ffn_dim encoder_ffn_dim
        decoder_ffn_dim ffn_hidden_size feed_forward_size""",
    32: """hidden_size d_model n_embd dim emb_dim embedding_size input_embedding_size image_size
        moe_intermediate_size shared_expert_intermediate_size prediction_head_size""",
    # Windows of attention are shorter than most texts, so that they take effect.
    16: """head_dim d_kv d_head attention_head_size v_head_dim qk_nope_head_dim qk_rope_head_dim
        q_lora_rank kv_lora_rank index_head_dim patch_size sliding_window window_size
        local_attention attention_window""",
    4: "num_experts n_routed_experts num_local_experts",
    2: """num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers
        num_decoder_layers num_attention_heads n_head n_heads num_heads encoder_attention_heads
        decoder_attention_heads num_key_value_heads num_kv_heads num_experts_per_tok n_group
        topk_group n_shared_experts""",
    0.4: "initializer_range init_std embed_init_std",
    3.0: "initializer_factor",
}
"""Values of the settings that decide a model's size; a configuration takes those that it knows."""

MAMBA = {"mamba_d_state": 8, "mamba_dt_rank": 4, "use_mamba_kernels": False, "n_mamba_heads": 2}
DISENTANGLED = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SPECIAL: dict[str, dict[str, Any]] = {
    "axk2": {"index_topk": 16},
    "canine": {"num_hash_buckets": 512, "local_transformer_stride": 16},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"sliding_attention": ROPE, "full_attention": ROPE},
    },
    "deberta": DISENTANGLED,
    "deberta-v2": DISENTANGLED,
    "doge": {"keep_window_size": 16},
    "esm": {"token_dropout": True, "position_embedding_type": "rotary"},
    "funnel": {"block_sizes": [1, 1]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 8},
    "jamba": {**MAMBA, "attn_layer_period": 2, "attn_layer_offset": 1},
    "jetmoe": {"kv_channels": 16, "num_experts_per_tok": 1},
    "layoutlm": {"max_2d_position_embeddings": 64},
    "layoutlmv3": {
        "coordinate_size": 4,
        "shape_size": 8,
        "max_2d_position_embeddings": 64,
        "visual_embed": False,
    },
    # Each of its six layout embeddings gets a sixth of the hidden size.
    "lilt": {"hidden_size": 48, "max_2d_position_embeddings": 64},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 16},
    "markuplm": {"max_depth": 4, "xpath_unit_hidden_size": 8},
    "minimax": {"block_size": 16},
    "mobilebert": {"intra_bottleneck_size": 32, "true_hidden_size": 32},
    "perceiver": {
        "num_latents": 8,
        "d_latents": 32,
        "num_self_attends_per_block": 2,
        "num_self_attention_heads": 2,
        "num_cross_attention_heads": 2,
    },
    "qwen3_5": LINEAR,
    "qwen3_5_text": LINEAR,
    "qwen3_next": LINEAR,
    "reformer": {
        "attn_layers": ["local", "lsh"],
        "axial_pos_shape": [10, 16],
        "axial_pos_embds_dim": [16, 16],
        "local_attn_chunk_length": 16,
        "lsh_attn_chunk_length": 16,
        # Without a seed two runs of the same text differ.
        "hash_seed": 0,
    },
    "roc_bert": {
        "pronunciation_vocab_size": 64,
        "shape_vocab_size": 64,
        "pronunciation_embed_dim": 16,
        "shape_embed_dim": 16,
    },
    "t5": {"decoder_start_token_id": 0},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        **MAMBA,
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_hidden_size": 64,
        "attention_head_dim": 32,
    },
    "zamba2": {
        **MAMBA,
        "layers_block_type": ["linear_attention", "hybrid"],
        "chunk_size": 16,
        "adapter_rank": 8,
    },
}
"""Settings that one architecture needs beyond ``SIZES``, by model type."""


VARIANTS: dict[str, dict[str, Any]] = {
    # Texts of more than 28 tokens get block-sparse attention, shorter ones full attention.
    "big_bird:long": {"block_size": 4, "num_random_blocks": 1},
    "bigbird_pegasus:long": {"block_size": 4, "num_random_blocks": 1},
    # Texts of more than 32 tokens get other rotary frequencies.
    "phi3:longrope": {
        "original_max_position_embeddings": 32,
        "rope_parameters": {
            **ROPE,
            "rope_type": "longrope",
            "short_factor": [1.0] * 8,
            "long_factor": [4.0] * 8,
            "original_max_position_embeddings": 32,
        },
    },
}
"""Settings with which an architecture computes long texts in another way, after its model type."""


class NotBuildableError(Exception):
    """The class cannot be built small, or transformers alone cannot run it on texts."""


def model_types() -> list[str]:
    """Every model type that has a sequence classifier, and the variants, in alphabetical order."""
    types = set(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
    variants = [name for name in VARIANTS if base_type(name) in types]
    return sorted([*types, *variants])


def base_type(model_type: str) -> str:
    """The model type that transformers knows, without the name of a variant."""
    return model_type.split(":")[0]


def class_name(model_type: str) -> str:
    """The sequence classifier of a model type."""
    return str(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES[base_type(model_type)])


def tokenizer_kind(model_type: str) -> str:
    """Which kind of tokenizer a model type gets; where it is not listed, its class decides."""
    kind = kind_of(base_type(model_type))
    if kind is not None:
        return kind
    config_class: Any = CONFIG_MAPPING[base_type(model_type)]
    is_decoder = "use_cache" in inspect.signature(config_class).parameters
    return "bytes, begin" if is_decoder else "BERT without token types"


def build(model_type: str, folder: Path) -> None:
    """Build the classifier of a model type, adjust its head and save it with its tokenizer.

    Raises:
        NotBuildableError: It cannot be built, or it cannot be run on texts.
    """
    if model_type in UNSUITABLE:
        raise NotBuildableError(UNSUITABLE[model_type])
    kind = tokenizer_kind(model_type)
    if kind == IN_PYTHON:
        tokenizer = make_python_tokenizer(model_type, folder)
    else:
        tokenizer = make_tokenizer(KINDS[kind])
    try:
        model = _model_with_every_label(model_type, tokenizer)
    except BUILD_ERRORS as error:
        raise NotBuildableError(f"{type(error).__name__}: {first_sentence(error)}") from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _model_with_every_label(model_type: str, tokenizer: Any) -> Any:
    sample = texts([1 + 90 * i // 80 for i in range(80)], seed=9)
    counts: list[int] = []
    for seed in range(MAX_SEEDS):
        torch.manual_seed(seed)
        model = small_model(model_type, tokenizer)
        counts = spread_head(model, tokenizer, sample)
        if min(counts) >= MIN_ROWS_A_LABEL:
            return model
    raise ValueError(f"none of {MAX_SEEDS} random models has every label: {counts}")


def first_sentence(error: BaseException) -> str:
    """The first sentence of a message, without its line breaks."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words.split(". ")[0]


def small_model(model_type: str, tokenizer: Any) -> Any:
    """A classifier with random weights in evaluation mode."""
    special = SPECIAL.get(base_type(model_type), {}) | VARIANTS.get(model_type, {})
    settings = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **special}
    for role in ("bos", "eos", "cls", "sep", "mask"):
        token_id = getattr(tokenizer, f"{role}_token_id")
        if token_id is not None:
            settings[f"{role}_token_id"] = token_id
    config = small_config(CONFIG_MAPPING[base_type(model_type)], settings)
    for name, value in special.items():
        # A generation setting, such as T5's start token, is no field of the class that reads it.
        if not hasattr(config, name):
            setattr(config, name, value)
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {name: i for i, name in enumerate(LABELS)}
    model_class: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    return model_class(config).eval()


def small_config(config_class: Any, settings: Mapping[str, Any]) -> Any:
    """A configuration with the values of ``SIZES`` and ``settings`` that it and its parts know."""
    wanted: dict[str, Any] = {}
    for value, names in SIZES.items():
        wanted |= dict.fromkeys(names.split(), value)
    wanted |= settings
    known = inspect.signature(config_class).parameters
    values = {name: value for name, value in wanted.items() if name in known}
    for name, part_class in (getattr(config_class, "sub_configs", None) or {}).items():
        if part_class is AutoConfig:
            part_class = type(getattr(config_class(), name))
        values[name] = small_config(part_class, settings).to_dict()
    return config_class(**values)


def find_head(model: Any) -> torch.nn.Linear:
    """The linear layer that gives the logits."""
    layers = [part for part in model.modules() if isinstance(part, torch.nn.Linear)]
    return [layer for layer in layers if layer.out_features == len(LABELS)][-1]


@torch.no_grad()
def spread_head(model: Any, tokenizer: Any, sample: Sequence[str]) -> list[int]:
    """Change the head so that each logit has mean 0 and deviation 1 over the sample.

    Returns how often each label is the most probable one.

    Raises:
        ValueError: Every text gets the same logits.
    """
    head = find_head(model)
    features = _head_inputs(model, tokenizer, head, sample)  # (texts, hidden size)
    mean = features.mean(dim=0)
    # Weights without their part along the mean make outputs of mean 0, also without a bias.
    head.weight.sub_(torch.outer(head.weight @ mean, mean) / mean.dot(mean))
    deviation = (features @ head.weight.T).std(dim=0)
    if not bool((deviation > 0).all()):
        raise ValueError("every text gets the same logits")
    head.weight.div_(deviation[:, None])
    if head.bias is not None:
        head.bias.zero_()
    logits = torch.cat([run_alone(model, tokenizer, text) for text in sample])
    counts: list[int] = torch.bincount(logits.argmax(dim=-1), minlength=len(LABELS)).tolist()
    return counts


def _head_inputs(model: Any, tokenizer: Any, head: Any, sample: Sequence[str]) -> torch.Tensor:
    """What the head makes each text's logits from, shape (texts, hidden size)."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = head.register_forward_hook(
        lambda _module, inputs, output: seen.append((inputs[0], output))
    )
    features = []
    for text in sample:
        logits = run_alone(model, tokenizer, text)
        head_input, head_output = seen[-1]
        # A decoder's head is applied to every token; one of these outputs is the text's.
        distance = (head_output.flatten(0, -2) - logits).abs().sum(dim=-1)
        features.append(head_input.flatten(0, -2)[distance.argmin()])
    hook.remove()
    return torch.stack(features)


def run_alone(model: Any, tokenizer: Any, text: str) -> torch.Tensor:
    """The logits of one text from everything that the tokenizer returns, shape (1, labels)."""
    encoded = tokenizer(text, return_tensors="pt", truncation=True, max_length=MAX_LENGTH)
    with torch.no_grad():
        logits: torch.Tensor = model(**encoded).logits
    return logits.float()
