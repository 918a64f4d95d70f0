"""PEFT adapters: what their files contain, and how they are applied to their base model."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from utils.core.errors import ModelError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
HEAD_NAMES = (
    "score",
    "classifier",
    "classification_head",
    "logits_proj",
    "sequence_summary",
    "pre_classifier",
)
"""How the heads of transformers' sequence classifiers are called."""
MERGE_ERRORS = (AttributeError, NotImplementedError, TypeError, ValueError, RuntimeError)

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterHead:
    """A classification head that the adapter has itself.

    Args:
        weight_names: names of its weights in the base model.
        num_labels: rows of its last projection.
    """

    weight_names: frozenset[str]
    num_labels: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptedModel:
    """A model with its adapter; ``mode`` is ``merged`` or ``unmerged``."""

    model: Any
    mode: str


def find_adapter_weights(folder: Path) -> Path:
    """The file of the adapter's weights; a ModelError where there is none."""
    for name in ADAPTER_WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    fix = "save the adapter again with its save_pretrained"
    raise ModelError("The adapter has no weights.", where=folder / ADAPTER_WEIGHTS[0], fix=fix)


def read_shapes(folder: Path) -> Shapes:
    """The shapes of the adapter's tensors.

    A tensor that replaces a weight of the base model is under that weight's name.
    """
    file = find_adapter_weights(folder)
    shapes: Shapes = {}
    if file.suffix == ".bin":
        tensors = torch.load(file, map_location="cpu", weights_only=True)
        for key, tensor in tensors.items():
            shapes[_base_name(key)] = tuple(tensor.shape)
        return shapes
    with safe_open(file, framework="pt") as weights:
        for key in weights.keys():  # noqa: SIM118 - it is no dictionary
            shapes[_base_name(key)] = tuple(weights.get_slice(key).get_shape())
    return shapes


def _base_name(key: str) -> str:
    """A tensor's name without the parts that PEFT adds.

    ``base_model.model.score.modules_to_save.weight`` becomes ``score.weight``.
    """
    name = key.removeprefix(PREFIX)
    for part in ("modules_to_save.default.", "modules_to_save.", "original_module.", "base_layer."):
        name = name.replace(part, "")
    return name


def read_head(folder: Path | None) -> AdapterHead | None:
    """The adapter's classification head, or None if it leaves the base model's head as it is."""
    if folder is None:
        return None
    heads: Shapes = {}
    for name, shape in read_shapes(folder).items():
        if "lora_" not in name and name.split(".")[0] in HEAD_NAMES:
            heads[name] = shape
    outputs = []
    for name in heads:
        if name.endswith("weight") and not name.startswith("pre_classifier"):
            outputs.append(name)
    if not outputs:
        return None
    # Heads of two layers end in the projection to the labels: classifier.out_proj comes after
    # classifier.dense.
    last = max(outputs, key=lambda name: ("out_proj" in name or "logits_proj" in name, name))
    return AdapterHead(weight_names=frozenset(heads), num_labels=heads[last][0])


def resize_embedding(model: Any, folder: Path) -> None:
    """Give the base model's embedding as many rows as it had when the adapter was trained."""
    embedding = model.get_input_embeddings()
    names = [name for name, module in model.named_modules() if module is embedding]
    for name, shape in read_shapes(folder).items():
        if name.endswith("lora_embedding_A"):
            owner, rows = name.removesuffix(".lora_embedding_A"), shape[1]
        elif name.endswith(".weight"):
            owner, rows = name.removesuffix(".weight"), shape[0]
        else:
            continue
        if owner in names and rows != embedding.weight.shape[0]:
            model.resize_token_embeddings(rows, mean_resizing=False)
            return


def apply_adapter(model: Any, folder: Path) -> AdaptedModel:
    """Load the adapter onto ``model`` and merge it.

    Prompt-learning adapters have nothing to merge and stay unmerged.

    Raises:
        ModelError: peft is not installed, or an adapter of this kind cannot be merged.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        message = "The model is a PEFT adapter, and the package peft is not installed."
        raise ModelError(message, where=folder, fix="pip install peft") from error
    resize_embedding(model, folder)
    with warnings.catch_warnings():
        # peft still uses names that transformers has renamed.
        warnings.simplefilter("ignore", FutureWarning)
        adapted: Any = PeftModel.from_pretrained(model, str(folder))
    if adapted.active_peft_config.is_prompt_learning:
        return AdaptedModel(model=adapted.eval(), mode="unmerged")
    try:
        merged = adapted.merge_and_unload()
    except MERGE_ERRORS as error:
        kind = adapted.active_peft_config.peft_type
        message = f"This {kind} adapter cannot be merged into its base model: {error}"
        fix = "merge it yourself with peft and save the model, then name that folder"
        raise ModelError(message, where=folder, fix=fix) from error
    return AdaptedModel(model=merged, mode="merged")


def base_of(model: Any) -> nn.Module:
    """The transformers model inside an unmerged adapter; any other model itself."""
    base = model
    if hasattr(model, "get_base_model"):
        base = model.get_base_model()
    return base  # type: ignore[no-any-return]


def num_virtual_tokens(model: Any) -> int:
    """Positions that a prompt-learning adapter takes for itself in every text."""
    adapter = getattr(model, "active_peft_config", None)
    if adapter is None or not adapter.is_prompt_learning:
        return 0
    return int(getattr(adapter, "num_virtual_tokens", 0) or 0)
