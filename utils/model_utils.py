"""A model and tokenizer ready to classify: the entrance to ``utils.model``.

On a rented pod, call ``utils.pipeline.startup.use_persistent_hub_cache()`` before importing this
module, as the scripts do: the hub's library reads the place of its cache when it is imported, and
importing this module changes no environment variable.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import ValidationError

from utils.config_loader import Config
from utils.core.errors import ConfigError
from utils.core.paths import find_in_working_directory
from utils.data.labels import ModelLabels
from utils.model.encoding import encode_batch
from utils.model.lengths import check_max_length
from utils.model.load import (
    LoadedModel,
    load_classifier,
    load_tokenizer_alone,
    read_model_labels,
)
from utils.model.resolution import ModelResolver
from utils.model.summary import LoadedModelInfo, model_summary_lines
from utils.model.text_checks import (
    check_batch_sizes,
    check_batching,
    check_on_texts,
    classify,
    texts_of_one_end_token,
)
from utils.pipeline.hints import python_arguments
from utils.settings import EMBEDDED, ModelConfig

__all__ = [
    "LoadedModel",
    "LoadedModelInfo",
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

NAMES_OF_FILES = ("name", "tokenizer", "adapter_base")
"""Settings of the ``model`` section that may name a local file or folder."""


def load_model(config: Config) -> LoadedModel:
    """Load what the configuration names, ready to classify; for scripts, which have all settings.

    The stages load with ``utils.model.load.load_classifier``, which takes the ``model`` section.

    Raises:
        ModelError: the model does not exist, is no sequence classifier or cannot be loaded; the
            tokenizer is not the model's; batches change results; or the device is absent.
        UserError: an error of the hub.
    """
    loaded = load_classifier(_resolver(config))
    check_batch_sizes(loaded, config.profiling.batch_sizes)
    return loaded


def load_tokenizer_only(config: Config) -> Any:
    """The tokenizer without the model's weights, checked against the size of the embedding."""
    return load_tokenizer_alone(_resolver(config))


def model_labels(config: Config) -> ModelLabels:
    """The label names of the configured model from its configuration alone, without its weights.

    Raises:
        ModelError: the configuration cannot be read, its label names contradict each other, or it
            is a regression model's.
    """
    return read_model_labels(_resolver(config))


def load_model_and_tokenizer(
    model_name: str,
    device: str = "cuda",
    dtype: str | torch.dtype = "float32",
    **model_settings: Any,
) -> tuple[Any, Any]:
    """Load a model and its tokenizer, for programs without a configuration file.

    Args:
        model_name: hub id, local folder, or a PEFT adapter of either.
        device: ``cuda``, ``cuda:N``, ``cpu`` or ``auto``.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
        model_settings: further settings of the ``model`` section.

    Returns:
        The model, in evaluation mode on its device, and the tokenizer.
    """
    settings = {
        "name": model_name,
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        **model_settings,
    }
    for key in NAMES_OF_FILES:
        value = settings.get(key)
        if not isinstance(value, str) or value == EMBEDDED:
            continue
        local = find_in_working_directory(value)
        if local is not None:
            settings[key] = str(local)
    with python_arguments():
        loaded = load_model(Config(model=_validate(settings)))
    return loaded.model, loaded.tokenizer


def _resolver(config: Config) -> ModelResolver:
    return ModelResolver(settings=config.model, embedded_model=config.embedded_model_dir)


def _validate(settings: dict[str, Any]) -> ModelConfig:
    try:
        return ModelConfig.model_validate(settings)
    except ValidationError as error:
        problems = []
        for detail in error.errors():
            problems.append(f"{detail['loc'][0]} cannot be {detail['input']!r}: {detail['msg']}")
        known = ", ".join(ModelConfig.model_fields)
        raise ConfigError(
            "; ".join(problems),
            where="load_model_and_tokenizer",
            fix=f"settings are: {known}",
        ) from error
