"""Builds the classifier: real weights with their adapter, or random ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
)
from transformers.utils.import_utils import is_flash_attn_2_available

from utils.core.errors import ModelError
from utils.data.labels import ModelLabels
from utils.model.adapter import apply_adapter, read_head
from utils.model.load_errors import translate_load_errors
from utils.model.location import (
    PICKLED,
    SAFETENSORS,
    ModelLocation,
    ModelSource,
    matches_any,
)
from utils.settings import ModelConfig

SUFFIX = "ForSequenceClassification"
HARMLESS_UNEXPECTED = (
    "position_ids",
    "lm_head",
    "cls.predictions",
    "cls.seq_relationship",
    "pooler",
)
"""Weights that a checkpoint may have beyond a classifier's.

They belong to pre-training heads, or are buffers that are computed.
"""
OTHER_WEIGHTS = (".safetensors", ".bin", ".h5", ".msgpack", ".gguf")
"""Endings of weights under names that transformers does not load."""
MAX_SHOWN = 5
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedWeights:
    """A model, still on the CPU unless its weights are random.

    Args:
        weights_format: ``safetensors`` or ``pytorch_model.bin``; None for random weights.
        adapter_mode: ``merged`` or ``unmerged``; None without an adapter.
    """

    model: Any
    weights_format: str | None = None
    adapter_mode: str | None = None


def read_architecture(settings: ModelConfig, base: ModelLocation) -> Any:
    """The model's configuration as transformers reads it."""
    with translate_load_errors("model", base):
        return AutoConfig.from_pretrained(
            base.name, **base.hub_arguments, trust_remote_code=settings.trust_remote_code
        )


def embedding_rows(architecture: Any) -> int | None:
    """How many tokens the model has embeddings for, by its configuration; None if unknown."""
    rows = getattr(architecture.get_text_config(), "vocab_size", None)
    if isinstance(rows, int) and rows > 0:
        return rows
    return None


def check_attention(settings: ModelConfig, architecture: Any) -> None:
    """Refuse a configured attention implementation that the architecture or the machine lacks.

    Raises:
        ModelError: it is lacking.
    """
    configured = settings.attn_implementation
    where = "model.attn_implementation"
    fix = "--set model.attn_implementation=auto"
    if configured == "flash_attention_2":
        if not is_flash_attn_2_available():
            message = "flash_attention_2 needs the package flash-attn and a CUDA GPU."
            raise ModelError(message, where=where, fix=f"pip install flash-attn, or {fix}")
        if settings.dtype == "float32":
            message = "flash_attention_2 has no float32."
            raise ModelError(message, where=where, fix=f"--set model.dtype=bfloat16, or {fix}")
    model_class: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(architecture), None)
    supports = {"sdpa": "_supports_sdpa", "flash_attention_2": "_supports_flash_attn"}
    flag = supports.get(configured)
    if flag and model_class is not None and not getattr(model_class, flag, True):
        message = f"{model_class.__name__} has no {configured} attention."
        raise ModelError(message, where=where, fix=f"{fix} takes what it has (eager)")


def check_task(architecture: Any, labels: ModelLabels, base: ModelLocation) -> str:
    """``single_label`` or ``multi_label``.

    Raises:
        ModelError: a regression head, which has no labels whose accuracy could be measured.
    """
    problem = getattr(architecture, "problem_type", None)
    if problem == "regression" or labels.num_labels == 1:
        message = (
            f"The model is a regression head (problem_type {problem}, {labels.num_labels} output): "
            "it has no labels."
        )
        fix = "name a classifier with two labels or more"
        raise ModelError(message, where=base, fix=fix)
    if problem == "multi_label_classification":
        return "multi_label"
    return "single_label"


def load_weights(settings: ModelConfig, source: ModelSource, labels: ModelLabels) -> LoadedWeights:
    """Real weights on the CPU in the configured precision, with the adapter where there is one.

    Raises:
        ModelError: not a sequence classifier, a checkpoint that lacks weights, or one that cannot
            be read.
    """
    architecture = read_architecture(settings, source.base)
    head = read_head(source.adapter)
    is_standard = _check_architecture(architecture, source, has_head=head is not None)
    weights_format = _weights_format(source.base)
    options = _options(settings)
    if labels.num_labels != architecture.num_labels:
        options["num_labels"] = labels.num_labels
    with translate_load_errors("model", source.base):
        model, report = AutoModelForSequenceClassification.from_pretrained(
            source.base.name,
            **source.base.hub_arguments,
            **options,
            use_safetensors=weights_format != "pytorch_model.bin",
            weights_only=True,
            # The adapter's own head replaces a base model's head of another size; other weights of
            # another size are refused below, by name.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    adapter_weights: frozenset[str] = frozenset()
    if head is not None:
        adapter_weights = head.weight_names
    _check_keys(report, adapter_weights, source.base, is_standard=is_standard)
    if source.adapter is None:
        return LoadedWeights(model=model, weights_format=weights_format)
    with translate_load_errors("adapter", ModelLocation(name=str(source.adapter))):
        adapted = apply_adapter(model, source.adapter)
    return LoadedWeights(
        model=adapted.model, weights_format=weights_format, adapter_mode=adapted.mode
    )


def build_random(settings: ModelConfig, base: ModelLocation, device: torch.device) -> LoadedWeights:
    """The architecture with seeded random weights, made on the device in its final precision."""
    architecture = read_architecture(settings, base)
    # The class makes its base model from the configuration alone, which decides the precision of
    # that part in transformers 5.0.
    architecture.dtype = getattr(torch, settings.dtype)
    auto: Any = AutoModelForSequenceClassification  # from_config has no types
    devices = []
    if device.type == "cuda":
        devices.append(device)
    with translate_load_errors("model", base), torch.random.fork_rng(devices), device:
        torch.manual_seed(settings.seed)
        return LoadedWeights(model=auto.from_config(architecture, **_options(settings)))


def _options(settings: ModelConfig) -> dict[str, Any]:
    options = {
        "dtype": getattr(torch, settings.dtype),
        "trust_remote_code": settings.trust_remote_code,
    }
    # Without the argument transformers takes sdpa where the architecture has it, else eager.
    if settings.attn_implementation != "auto":
        options["attn_implementation"] = settings.attn_implementation
    return options


def _weights_format(base: ModelLocation) -> str:
    """``safetensors`` or ``pytorch_model.bin``.

    Raises:
        ModelError: the folder has neither, or only a pointer to it.
    """
    if base.has_any(*SAFETENSORS):
        _refuse_pointers(base)
        return "safetensors"
    if base.has_any(*PICKLED):
        _refuse_pointers(base)
        return "pytorch_model.bin"
    message = "The model has no model.safetensors and no pytorch_model.bin"
    others = [name for name in base.files if name.endswith(OTHER_WEIGHTS)]
    if others:
        message += f"; it has {', '.join(others[:MAX_SHOWN])}"
    raise ModelError(
        f"{message}.",
        where=base,
        fix="save the model again with its save_pretrained, or rename its weights to "
        "model.safetensors",
    )


def _refuse_pointers(base: ModelLocation) -> None:
    """Refuse a checkout of Git LFS whose weights have not been fetched (ModelError)."""
    folder = Path(base.name)
    if not folder.is_dir():
        return
    for name in base.files:
        if not matches_any(name, (*SAFETENSORS, *PICKLED)):
            continue
        with (folder / name).open("rb") as file:
            start = file.read(len(LFS_POINTER))
        if start == LFS_POINTER:
            message = (
                f"{name} is a pointer of Git LFS; the weights themselves have not been fetched."
            )
            raise ModelError(message, where=folder / name, fix="run git lfs pull in that folder")


def _check_architecture(architecture: Any, source: ModelSource, *, has_head: bool) -> bool:
    """Whether the configuration names a sequence classifier.

    Without a name, or with one that transformers does not know, the checkpoint's weights decide. A
    model of transformers for another task is refused: its head may have the same names and another
    meaning.
    """
    names = architecture.architectures or []
    if any(name.endswith(SUFFIX) for name in names):
        return True
    known = [name for name in names if hasattr(transformers, name)]
    if known and not has_head:
        raise not_a_classifier(source.base, f"its architecture is {', '.join(known)}")
    return has_head


def _check_keys(
    report: dict[str, Any],
    adapter_weights: frozenset[str],
    base: ModelLocation,
    *,
    is_standard: bool,
) -> None:
    """Refuse a checkpoint that lacks weights of the model, or has weights that the model lacks.

    Args:
        report: ``loading_info`` of transformers' ``from_pretrained``.
        adapter_weights: names of the weights that the adapter replaces.
        is_standard: the configuration names a sequence classifier; weights beyond it are harmless.
    """
    missing = sorted(set(report["missing_keys"]) - adapter_weights)
    if missing:
        raise not_a_classifier(base, f"its checkpoint lacks {', '.join(missing[:MAX_SHOWN])}")
    _refuse_other_shapes(report, adapter_weights, base)
    if is_standard:
        return
    unexpected = []
    for name in report["unexpected_keys"]:
        if not any(part in name for part in HARMLESS_UNEXPECTED):
            unexpected.append(name)
    if unexpected:
        shown = ", ".join(sorted(unexpected)[:MAX_SHOWN])
        raise not_a_classifier(
            base, f"its checkpoint has weights that transformers' class has no place for: {shown}"
        )


def _refuse_other_shapes(
    report: dict[str, Any], adapter_weights: frozenset[str], base: ModelLocation
) -> None:
    """Refuse weights whose shapes in the checkpoint do not follow from config.json (ModelError)."""
    differences = []
    for name, in_checkpoint, by_config in sorted(report.get("mismatched_keys", ())):
        if name not in adapter_weights:
            differences.append(
                f"{name} is {list(in_checkpoint)} in the checkpoint and {list(by_config)} by "
                "config.json"
            )
    if differences:
        raise ModelError(
            f"The model's weights do not fit its config.json: {'; '.join(differences[:MAX_SHOWN])}",
            where=base,
            fix="correct config.json (id2label has a name for each row of the head), or name "
            "another model",
        )


def not_a_classifier(base: ModelLocation, reason: str) -> ModelError:
    """The error for a model that transformers' sequence classifier does not fit."""
    fix = (
        "name a model fine-tuned for classification, or measure speed alone with "
        "--set model.load_format=dummy"
    )
    return ModelError(f"The model is no sequence classifier: {reason}.", where=base, fix=fix)
