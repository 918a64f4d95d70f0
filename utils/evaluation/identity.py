"""The identity of a run: all that its predictions depend on. Chunks are named by it."""

from __future__ import annotations

import json
from typing import Any

import torch
import transformers

from utils.config_loader import Config
from utils.core.files import JsonObject, fingerprint, sha256_tree
from utils.core.paths import project_path
from utils.data.labels import read_mapping_file
from utils.data.reader import hash_data
from utils.evaluation.attention import attention_kernels
from utils.evaluation.chunks import ChunkStore
from utils.evaluation.plan import plan_evaluation
from utils.model_utils import LoadedModel
from utils.pipeline import console
from utils.settings import EMBEDDED

IDENTITY_VERSION = 7
"""Raise it when the same settings would give other bytes."""


def prediction_identity(loaded: LoadedModel, config: Config, data_sha256: str) -> JsonObject:
    """What the predictions depend on: not on how many workers or devices take part, but on what
    kind of device.

    A local model, adapter or adapter's base counts by its contents, a hub's by its commit; the
    tokenizer as it was loaded.
    """
    name = config.model.name
    model_folder = config.embedded_model_dir if name == EMBEDDED else project_path(name)
    base_files = sha256_tree(project_path(loaded.info.name)) if loaded.info.adapter else None
    on_cuda = loaded.device.type == "cuda"
    label_names = read_mapping_file(config.label_mappings_file).names
    model_settings = {
        f"model.{key}": value for key, value in config.to_dict()["model"].items() if key != "device"
    }
    identity = {
        "version": IDENTITY_VERSION,
        **model_settings,
        "model's commit": loaded.info.revision,
        "model's files": sha256_tree(model_folder),
        "adapter": loaded.info.adapter,
        "base model's files": base_files,
        "tokenizer": hash_tokenizer(loaded.tokenizer),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name(loaded.device) if on_cuda else "cpu",
        "data set": data_sha256,
        "label names": fingerprint(label_names)[:12],
        "dataset.text_column": config.dataset.text_column,
        "profiling.max_length": config.profiling.max_length,
        "evaluation.batching": config.evaluation.batching,
        "evaluation's batch limit": plan_evaluation(config).configured_limit,
        "evaluation.compile": config.evaluation.compile,
        "evaluation.chunk_rows": config.evaluation.chunk_rows,
    }
    if on_cuda:
        kernels = attention_kernels(loaded.model)
        identity["attention kernels"] = list(kernels.evaluation)
        identity["repeats key-value heads"] = kernels.repeats_key_value_heads
    return identity


def hash_tokenizer(tokenizer: Any) -> str:
    """Hash of all that decides a text's token ids; a slow tokenizer has no more to show than its
    vocabulary.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        description = tokenizer.get_vocab()
    else:
        description = json.loads(backend.to_str())
        # A fast tokenizer keeps the last call's truncation and padding, which every call sets
        # again.
        description.pop("truncation", None)
        description.pop("padding", None)
    padding_side = getattr(tokenizer, "padding_side", "right")
    return fingerprint([tokenizer.pad_token_id, padding_side, description])


def make_store(config: Config, identity: JsonObject) -> ChunkStore:
    """The store of the chunks of this identity."""
    label_names = read_mapping_file(config.label_mappings_file).names
    state_folder = config.files.state_dir / "evaluation"
    return ChunkStore(config.files.predictions_dir, state_folder, identity, label_names)


def open_store(loaded: LoadedModel, config: Config, data_sha256: str | None = None) -> ChunkStore:
    """The run's chunks; prints which settings changed where only chunks of other settings are in
    place.
    """
    identity = prediction_identity(loaded, config, data_sha256 or hash_data(config.data_file))
    store = make_store(config, identity)
    changes = store.changed_settings()
    if changes:
        message = (
            "The predictions in place are of other settings; they stay until this run is complete. "
            "Changed:"
        )
        console.print_line("\n  ".join([message, *changes]))
    return store
