"""The identity of a run: all that its predictions depend on. Chunks are named by it."""

from __future__ import annotations

import json
from typing import Any

import torch
import transformers

from utils.core.files import JsonObject, fingerprint, sha256_tree
from utils.core.paths import project_path
from utils.data.labels import read_mapping_file
from utils.data.reader import hash_data
from utils.evaluation.attention import attention_kernels
from utils.evaluation.chunks import ChunkStore
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.model_utils import LoadedModel
from utils.pipeline import console
from utils.settings import EMBEDDED

IDENTITY_VERSION = 8
"""Raise it when the same settings would give other bytes."""


def prediction_identity(
    loaded: LoadedModel, settings: EvaluationSettings, data_sha256: str
) -> JsonObject:
    """What the predictions depend on: not on how many workers or devices take part, but on what
    kind of device.

    A local model, adapter or adapter's base counts by its contents, a hub's by its commit; the
    tokenizer as it was loaded.
    """
    name = settings.model.name
    model_folder = settings.embedded_model if name == EMBEDDED else project_path(name)
    base_files = sha256_tree(project_path(loaded.info.name)) if loaded.info.adapter else None
    on_cuda = loaded.device.type == "cuda"
    label_names = read_mapping_file(settings.label_mappings_file).names
    model_settings = {}
    for key, value in settings.model.model_dump(mode="json").items():
        if key != "device":
            model_settings[f"model.{key}"] = value
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
        "dataset.text_column": settings.text_column,
        "profiling.max_length": settings.max_length,
        "evaluation.batching": settings.evaluation.batching,
        "evaluation's batch limit": settings.configured_limit,
        "evaluation.compile": settings.evaluation.compile,
        "evaluation.chunk_rows": settings.evaluation.chunk_rows,
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


def make_store(settings: EvaluationSettings, identity: JsonObject) -> ChunkStore:
    """The store of the chunks of this identity."""
    label_names = read_mapping_file(settings.label_mappings_file).names
    return ChunkStore(
        settings.files.predictions_dir, settings.files.chunk_records_dir, identity, label_names
    )


def open_store(
    loaded: LoadedModel, settings: EvaluationSettings, data_sha256: str | None = None
) -> ChunkStore:
    """The run's chunks; prints which settings changed where only chunks of other settings are in
    place.
    """
    identity = prediction_identity(loaded, settings, data_sha256 or hash_data(settings.data_file))
    store = make_store(settings, identity)
    changes = store.changed_settings()
    if changes:
        message = (
            f"The {store.count_other_rows():,} predictions in place are of other settings; they "
            "stay until this run is complete and are deleted then. Changed:"
        )
        console.print_line("\n  ".join([message, *changes]))
    return store
