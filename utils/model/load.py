"""From the ``model`` section of the settings to a classifier that is ready to run, in one pass.

Names become locations (``resolution``), locations a tokenizer and weights (``tokenizer``,
``weights``, ``adapter``), and a comparison with single texts decides how batches are padded
(``padding``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from utils.data.labels import ModelLabels
from utils.model.encoding import InputFormat
from utils.model.label_names import read_labels
from utils.model.load_errors import out_of_memory_error, translate_load_errors
from utils.model.location import ModelSource
from utils.model.padding import configure_padding
from utils.model.resolution import ModelResolver
from utils.model.stored_tokenizer import find_stored_tokenizer
from utils.model.summary import LoadedModelInfo, describe_model
from utils.model.tokenizer import load_tokenizer
from utils.model.weights import (
    LoadedWeights,
    build_random,
    check_attention,
    check_task,
    embedding_rows,
    load_weights,
    read_architecture,
)
from utils.settings import ModelConfig
from utils.system.device import is_out_of_memory, resolve_device, synchronize

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A classifier in evaluation mode on its device, with its tokenizer.

    Args:
        inputs: how batches are made.
        tokenizer_file: the ``tokenizer.json`` that is stored with the tokenizer; None without one.
    """

    model: Any
    tokenizer: Any
    info: LoadedModelInfo
    device: torch.device
    inputs: InputFormat
    tokenizer_file: Path | None = None


def load_classifier(resolver: ModelResolver) -> LoadedModel:
    """Load what the settings name, ready to classify.

    Sets the precision of float32 matrix products (``matmul_precision``) for the process, because
    PyTorch has no such setting for a single model.

    Raises:
        ModelError: the model does not exist, is no sequence classifier or cannot be loaded; the
            tokenizer is not the model's; batches change results; or the device is absent.
        UserError: an error of the hub.
    """
    settings = resolver.settings
    started = time.perf_counter()
    load_times: dict[str, float] = {}
    torch.set_float32_matmul_precision(settings.matmul_precision)
    device = resolve_device(settings.device)

    source = resolver.resolve_model()
    labels = read_labels(source, trust_remote_code=settings.trust_remote_code)
    architecture = read_architecture(settings, source.base)
    check_attention(settings, architecture)
    problem_type = check_task(architecture, labels, source.base)

    with _record_time(load_times, "tokenizer_s"):
        tokenizer_location = resolver.resolve_tokenizer(source)
        tokenizer = load_tokenizer(settings, tokenizer_location, embedding_rows(architecture))
    with _record_time(load_times, "weights_s"):
        weights = _make_weights(settings, source, labels, device)
    with _record_time(load_times, "to_device_s"):
        model = _move_to_device(weights.model, source, device)

    model.eval()
    # Some configurations ask for tuples, whose places mean something else in each architecture.
    model.config.return_dict = True
    if labels.names is not None:
        model.config.id2label = dict(enumerate(labels.names))
    inputs = _configure_inputs(model, tokenizer, settings.dtype, source)
    load_times["total_s"] = time.perf_counter() - started
    logger.info("loaded %s: %s", source.base, load_times)
    info = describe_model(source, settings, weights, problem_type, inputs, load_times)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        tokenizer_file=find_stored_tokenizer(tokenizer_location),
        info=info,
        device=device,
        inputs=inputs,
    )


def load_tokenizer_alone(resolver: ModelResolver) -> Any:
    """The tokenizer without the model's weights, checked against the size of the embedding."""
    source = resolver.resolve_model()
    architecture = read_architecture(resolver.settings, source.base)
    location = resolver.resolve_tokenizer(source)
    return load_tokenizer(resolver.settings, location, embedding_rows(architecture))


def read_model_labels(resolver: ModelResolver) -> ModelLabels:
    """The label names of a classifier from its configuration alone.

    Raises:
        ModelError: the configuration cannot be read, its label names contradict each other, or it
            is a regression model's.
    """
    settings = resolver.settings
    source = resolver.resolve_model()
    labels = read_labels(source, trust_remote_code=settings.trust_remote_code)
    check_task(read_architecture(settings, source.base), labels, source.base)
    return labels


@contextmanager
def _record_time(load_times: dict[str, float], part: str) -> Iterator[None]:
    """Save the seconds that the block takes."""
    begin = time.perf_counter()
    yield
    load_times[part] = time.perf_counter() - begin


def _configure_inputs(model: Any, tokenizer: Any, dtype: str, source: ModelSource) -> InputFormat:
    """How batches are padded, checked by classifying a few short texts alone and together.

    Raises:
        ModelError: the results differ, or the model leaves no memory for these texts.
    """
    try:
        return configure_padding(model, tokenizer, dtype, source.adapter_name or source.base).inputs
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory_error(
            "The model leaves no memory for a batch of short texts.", source.base
        ) from error


def _make_weights(
    settings: ModelConfig, source: ModelSource, labels: ModelLabels, device: torch.device
) -> LoadedWeights:
    if settings.load_format == "dummy":
        return build_random(settings, source.base, device)
    return load_weights(settings, source, labels)


def _move_to_device(model: Any, source: ModelSource, device: torch.device) -> Any:
    with translate_load_errors("model", source.base):
        moved = model.to(device)
        synchronize(device)
    return moved
