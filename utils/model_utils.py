"""A model and tokenizer ready to classify, and what they are and weigh: the face of ``utils.model``."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from transformers import PretrainedConfig

from utils.config_loader import EMBEDDED, Config, ModelConfig, find_in_working_directory
from utils.core.errors import ConfigError, ModelError
from utils.core.files import read_json
from utils.data.labels import ModelLabels
from utils.model.adapter import read_head
from utils.model.checks import (
    Agreement,
    check_max_length,
    choose_texts,
    classify_alone,
    classify_batch,
    compare_logits,
    max_positions,
)
from utils.model.encoding import InputFormat, count_end_tokens, encode_batch
from utils.model.label_names import parse_label_names
from utils.model.load_errors import full_reason, translate_load_errors
from utils.model.location import ModelLocation, ModelSource, resolve_model
from utils.model.padding import FORWARD_ERRORS, configure_padding
from utils.model.tokenizer import check_texts, load_tokenizer
from utils.model.weights import (
    LoadedWeights,
    build_random,
    check_attention,
    check_task,
    embedding_rows,
    load_weights,
    read_architecture,
)
from utils.pipeline.hints import python_arguments
from utils.system.device import resolve_device

__all__ = [
    "LoadedModel",
    "ModelInfo",
    "check_batching",
    "check_max_length",
    "check_on_texts",
    "classify",
    "encode_batch",
    "load_model",
    "load_model_and_tokenizer",
    "load_tokenizer_only",
    "model_labels",
    "model_summary_lines",
    "texts_of_one_end_token",
]

logger = logging.getLogger(__name__)

CHECKED_TEXTS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """What a loaded model is. ``total_size_mb`` is the parameters alone, tied ones once; MB is 10^6 bytes.

    Args:
        load_times: seconds by part (``tokenizer_s``, ``weights_s``, ``to_device_s``); ``total_s`` holds what lies between too.
        adapter_mode: ``merged`` or ``unmerged``; None without an adapter.
        weights_format: ``safetensors`` or ``pytorch_model.bin``; None for random weights.
        problem_type: ``single_label`` (softmax) or ``multi_label`` (a sigmoid for each label).
        padding_side: where shorter texts of a batch are filled up; None where the model's batches may hold no padding.
    """

    model_type: str
    name: str
    revision: str | None
    adapter: str | None
    total_params: int
    trainable_params: int
    non_trainable_params: int
    total_size_mb: float
    weights: str
    dtype: str
    device: str
    attn_implementation: str
    num_labels: int
    max_position_embeddings: int | None
    load_times: dict[str, float]
    adapter_mode: str | None = None
    weights_format: str | None = None
    problem_type: str = "single_label"
    padding_side: str | None = "right"

    def to_dict(self) -> dict[str, Any]:
        """JSON values under the names of the contract."""
        return {**asdict(self), "load_time_s": self.load_times["total_s"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A classifier in evaluation mode on its device, with its tokenizer and the way in which batches are made."""

    model: Any
    tokenizer: Any
    info: ModelInfo
    device: torch.device
    inputs: InputFormat


def load_model(config: Config) -> LoadedModel:
    """Load what the configuration names, ready to classify.

    Raises:
        ModelError: not there, no sequence classifier, not loadable, a tokenizer that is not the model's, results that batches
            change, or a device that is absent.
        UserError: the hub's failures.
    """
    settings = config.model
    started = time.perf_counter()
    torch.set_float32_matmul_precision(settings.matmul_precision)
    device = resolve_device(settings.device)
    source = resolve_model(config)
    labels = _labels_of(source, settings.trust_remote_code)
    architecture = read_architecture(settings, source.base)
    check_attention(settings, architecture)
    problem_type = check_task(architecture, labels, source.base)
    times: dict[str, float] = {}

    begin = time.perf_counter()
    tokenizer = load_tokenizer(config, source, embedding_rows(architecture))
    times["tokenizer_s"] = time.perf_counter() - begin

    begin = time.perf_counter()
    is_dummy = settings.load_format == "dummy"
    if is_dummy:
        weights = build_random(settings, source.base, device)
    else:
        weights = load_weights(settings, source, labels)
    times["weights_s"] = time.perf_counter() - begin

    begin = time.perf_counter()
    with translate_load_errors("model", source.base):
        model = weights.model.to(device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    times["to_device_s"] = time.perf_counter() - begin

    model.eval()
    if labels.names is not None:
        model.config.id2label = dict(enumerate(labels.names))
    place = source.adapter_name or source.base
    choice = configure_padding(model, tokenizer, settings.dtype, place)
    _check_batch_sizes(choice.inputs, config, place)
    times["total_s"] = time.perf_counter() - started
    logger.info("loaded %s: %s", source.base, times)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        info=_describe(source, settings, weights, problem_type, choice.inputs, times),
        device=device,
        inputs=choice.inputs,
    )


def _check_batch_sizes(inputs: InputFormat, config: Config, place: object) -> None:
    """Refuse batches of texts of different lengths for a model whose results padding changes (ModelError)."""
    if inputs.allows_padding or config.model.load_format == "dummy":
        return
    if max(config.profiling.batch_sizes) > 1:
        raise ModelError(
            "Padding changes this model's results: a text gets another result in a batch with longer texts than alone.",
            where=place,
            fix="measure single texts with --set profiling.batch_sizes=[1]; the evaluation then makes batches of equal lengths",
        )


def _describe(
    source: ModelSource,
    settings: ModelConfig,
    weights: LoadedWeights,
    problem_type: str,
    inputs: InputFormat,
    times: dict[str, float],
) -> ModelInfo:
    model = weights.model
    parameters = list(model.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    has_adapter = source.adapter is not None
    return ModelInfo(
        model_type=model.config.model_type,
        name=source.base.name if has_adapter else settings.name,
        revision=source.base.revision,
        adapter=source.adapter_name,
        total_params=total,
        trainable_params=trainable,
        non_trainable_params=total - trainable,
        total_size_mb=sum(p.numel() * p.element_size() for p in parameters) / 1e6,
        weights="dummy" if settings.load_format == "dummy" else "pretrained",
        dtype=settings.dtype,
        device=str(resolve_device(settings.device)),
        attn_implementation=model.config._attn_implementation or "eager",
        num_labels=model.config.num_labels,
        max_position_embeddings=max_positions(model),
        load_times=times,
        adapter_mode=weights.adapter_mode,
        weights_format=weights.weights_format,
        problem_type=problem_type,
        padding_side=inputs.padding_side if inputs.allows_padding else None,
    )


def load_model_and_tokenizer(
    model_name: str,
    device: str = "cuda",
    dtype: str | torch.dtype = "float32",
    **model_settings: Any,
) -> tuple[Any, Any]:
    """The model and tokenizer alone; ``model_settings`` are further settings of the config's ``model`` section."""
    settings = {
        "name": model_name,
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        **model_settings,
    }
    for key in ("name", "tokenizer", "adapter_base"):
        value = settings.get(key)
        if not isinstance(value, str) or value == EMBEDDED:
            continue
        local = find_in_working_directory(value)
        if local is not None:
            settings[key] = str(local)
    with python_arguments():
        loaded = load_model(Config(model=_validated(settings)))
    return loaded.model, loaded.tokenizer


def _validated(settings: dict[str, Any]) -> ModelConfig:
    try:
        return ModelConfig.model_validate(settings)
    except ValidationError as error:
        wrong = "; ".join(
            f"{detail['loc'][0]} cannot be {detail['input']!r}: {detail['msg']}"
            for detail in error.errors()
        )
        known = ", ".join(ModelConfig.model_fields)
        raise ConfigError(
            wrong, where="load_model_and_tokenizer", fix=f"settings are: {known}"
        ) from error


def load_tokenizer_only(config: Config) -> Any:
    """The tokenizer without the model's weights, checked against the size of the model's embedding."""
    source = resolve_model(config)
    architecture = read_architecture(config.model, source.base)
    return load_tokenizer(config, source, embedding_rows(architecture))


def model_labels(config: Config) -> ModelLabels:
    """The label names of the configured model from its configuration alone, without its weights.

    Raises:
        ModelError: the configuration cannot be read, or its label names contradict each other.
    """
    source = resolve_model(config)
    labels = _labels_of(source, config.model.trust_remote_code)
    check_task(read_architecture(config.model, source.base), labels, source.base)
    return labels


def _labels_of(source: ModelSource, trust_remote_code: bool) -> ModelLabels:
    labels = parse_label_names(_read_raw_config(source.base, trust_remote_code), source.base)
    head = read_head(source.adapter)
    if head is not None and head.num_labels != labels.num_labels:
        # The adapter brings another head, so the base model's names are not its names.
        return ModelLabels(names=None, num_labels=head.num_labels)
    return labels


def _read_raw_config(base: ModelLocation, trust_remote_code: bool) -> dict[str, Any]:
    """The contents of ``config.json``, before transformers fills in defaults."""
    if base.name.endswith(".json"):
        return read_json(Path(base.name), made_by="the model's save_pretrained")
    with translate_load_errors("model", base):
        raw, _ = PretrainedConfig.get_config_dict(
            **base.arguments, trust_remote_code=trust_remote_code
        )
    return dict(raw)


def model_summary_lines(info: ModelInfo) -> list[str]:
    """The lines of the MODEL SUMMARY block."""
    lines = [
        f"Model Type: {info.model_type}",
        f"Total Parameters: {info.total_params:,} ({info.total_params / 1e6:.2f}M)",
        f"Model Size: {info.total_size_mb:,.2f} MB",
        f"Attention: {info.attn_implementation}",
    ]
    if info.adapter is not None:
        how = "merged into" if info.adapter_mode == "merged" else "run unmerged on"
        lines.insert(0, f"Adapter: {info.adapter}, {how} {info.name}")
    if info.weights_format == "pytorch_model.bin":
        lines.append("Weights: pytorch_model.bin, read without running code (weights_only)")
    if info.problem_type == "multi_label":
        lines.append("Task: multi-label; a sigmoid for each label, the most probable one counts")
    return lines


def classify(loaded: LoadedModel, texts: list[str], max_length: int) -> torch.Tensor:
    """Logits of the texts as one batch, float32 on the CPU, shape (texts, labels)."""
    return classify_batch(loaded.model, loaded.tokenizer, loaded.inputs, texts, max_length)


def check_batching(
    loaded: LoadedModel, texts: Sequence[str], max_length: int
) -> tuple[list[str], float]:
    """Classify the texts one by one and as a batch; returns the labels, and the largest difference of a logit.

    Raises:
        ModelError: logits differ by more than the precision's rounding explains, or labels do that are clear.
    """
    alone = classify_alone(loaded.model, loaded.tokenizer, texts, max_length, loaded.device)
    agreement = _batch_agreement(loaded, texts, max_length, alone)
    if not agreement.holds:
        raise ModelError(
            f"Texts get other results in a batch than alone: {agreement}.",
            where=loaded.info.name,
            fix="name another model, or measure single texts with --set profiling.batch_sizes=[1]",
        )
    names = loaded.model.config.id2label
    return [names[int(number)] for number in alone.argmax(1)], agreement.difference


def _batch_agreement(
    loaded: LoadedModel, texts: Sequence[str], max_length: int, alone: torch.Tensor
) -> Agreement:
    if loaded.inputs.allows_padding:
        together = classify(loaded, list(texts), max_length)
    else:
        rows = [classify(loaded, [text, text], max_length)[:1] for text in texts]
        together = torch.cat(rows)
    return compare_logits(alone, together, loaded.info.dtype)


def check_on_texts(loaded: LoadedModel, texts: Sequence[str], max_length: int) -> tuple[str, ...]:
    """Check model and tokenizer on the data set's own texts, before anything is measured.

    Args:
        texts: a sample of the data set.
        max_length: tokens at which texts are truncated.

    Returns:
        Warnings.

    Raises:
        ModelError: the tokenizer does not suit the texts, or texts get other results in a batch than alone.
    """
    if loaded.info.weights == "dummy":
        return ()
    warnings = check_texts(loaded.tokenizer, texts, loaded.inputs.vocab_size, loaded.info.name)
    chosen = choose_texts(texts_of_one_end_token(loaded, texts, max_length), CHECKED_TEXTS)
    if not chosen:
        return warnings
    try:
        check_batching(loaded, chosen, max_length)
    except FORWARD_ERRORS as error:
        raise ModelError(
            f"The model cannot classify the data set's texts: {full_reason(error)}",
            where=loaded.info.name,
            fix="lower profiling.max_length, or name a model whose inputs are texts alone",
        ) from error
    return warnings


def texts_of_one_end_token(loaded: LoadedModel, texts: Sequence[str], max_length: int) -> list[str]:
    """The texts that can stand in one batch.

    T5, BART and their kin read the result at the end token, and refuse a batch whose texts hold different numbers of it. A
    text that itself holds the end token is classified alone or with its like in the evaluation, and left out of the sweep.
    """
    end_token_id = loaded.inputs.end_token_id
    if end_token_id is None:
        return list(texts)
    counts = count_end_tokens(loaded.tokenizer, texts, max_length, end_token_id)
    usual = max(set(counts), key=counts.count, default=0)
    return [text for text, count in zip(texts, counts, strict=True) if count == usual]
