"""The whole data set through the model: which chunks are missing, in what order, and what all of them add up to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from typing import Any

import torch
import transformers

from utils.config_loader import EMBEDDED, Config, project_path
from utils.core import console
from utils.core.artifacts import fingerprint, sha256_tree
from utils.core.errors import ConfigError
from utils.data.labels import read_mapping_file
from utils.data.reader import Rows, count_rows, hash_data, iter_rows
from utils.evaluation.chunks import ChunkStore
from utils.evaluation.comparison import compare
from utils.evaluation.totals import Totals
from utils.evaluation.worker import ChunkWorker, wanted_limit
from utils.model_utils import LoadedModel

IDENTITY_VERSION = 7  # raise it when the same settings would give other bytes


def check_workers(config: Config) -> None:
    """Refuse, before anything is loaded, what needs Ray where it is not installed."""
    if through_ray(config) and find_spec("ray") is None:
        settings = config.evaluation
        name = "num_workers" if settings.ray_address is None else "ray_address"
        raise ConfigError(
            f"evaluation.{name} is {getattr(settings, name)}: that needs Ray Data, which is not installed.",
            where=f"evaluation.{name}",
            fix='python -m pip install "ray[data]" (it brings no PyTorch), or one process: --set evaluation.num_workers=1 '
            "--set evaluation.ray_address=null",
        )


def through_ray(config: Config) -> bool:
    """Whether the chunks go through Ray Data."""
    return config.evaluation.num_workers > 1 or config.evaluation.ray_address is not None


def evaluate_dataset(loaded: LoadedModel, config: Config, *, data_sha256: str | None = None) -> dict[str, Any]:
    """Predict every row, write ``results/predictions/``, return the contract's ``full_dataset_metrics``.

    Goes on at the first chunk that is missing or damaged; everything is added up from what is stored.
    ``inference_time_s`` adds up the chunks, those of earlier parts of the run included; a chunk's clock runs from the
    end of the chunk before it until its predictions are in host memory. The first chunk's, and that of one that follows
    chunks which were there, runs from asking for its rows, or from having them where others were read past on the way.
    With several workers it is wall time instead: from where the first chunk begins to where the last one is done.

    Raises:
        ConfigError, DataError, ModelError: Ray is asked for and not there; data that is unusable or was replaced meanwhile; a
            text too long for the memory.
    """
    check_workers(config)
    names = read_mapping_file(config.label_mappings_file).names
    total = count_rows(config.data_file)
    total = min(total, config.evaluation.max_samples or total)
    store = open_store(loaded, config, data_sha256)
    computed = 0
    with closing(ChunkWorker(loaded, config, store)) as worker, console.progress(
        total=total, what="Evaluating", unit="row"
    ) as bar:
        worker.refuse_other_data(sha256=store.identity["data set"])
        made = _computed_by_ray(worker, loaded, config, total, bar) if through_ray(config) else _computed(worker, config, bar)
        for rows in made:
            computed += rows
            bar.update(rows)
        worker.refuse_other_data()
    totals = Totals(names)
    for start, stop in chunk_ranges(total, config):
        chunk = store.load(start, stop)
        assert chunk is not None, "every chunk was found or computed"
        totals.add(chunk)
    store.drop_all_but(total, config.evaluation.chunk_rows)
    metrics = totals.metrics(loaded, config, store.limits(), total - computed)
    return {**metrics, **compare(worker, config, store, metrics)}


def _computed(worker: ChunkWorker, config: Config, bar: Any) -> Iterator[int]:
    """Make what is missing; yields the rows of each chunk made."""
    for rows, _ in worker.run(missing(worker.store, config, bar)):
        yield len(rows.texts)


def _computed_by_ray(worker: ChunkWorker, loaded: LoadedModel, config: Config, total: int, bar: Any) -> Iterator[int]:
    from utils.evaluation import distributed  # it imports this module; and nobody else needs Ray

    chunks = list(chunk_ranges(total, config))
    absent = [chunk for chunk in chunks if not worker.store.has(*chunk)]
    bar.update(total - sum(stop - start for start, stop in absent))
    return distributed.compute(worker, loaded, config, absent)


def open_store(loaded: LoadedModel, config: Config, data_sha256: str | None = None) -> ChunkStore:
    """The run's chunks; says which settings changed where only chunks of other settings are in place."""
    identity = identity_of(loaded, config, data_sha256 or hash_data(config.data_file))
    names = read_mapping_file(config.label_mappings_file).names
    store = ChunkStore(config.files.predictions_dir, config.files.state_dir / "evaluation", identity, names)
    if changed := store.changed_settings():
        said = "The predictions in place are of other settings; they stay until this run is complete. Changed:"
        console.say("\n  ".join([said, *changed]))
    return store


def identity_of(loaded: LoadedModel, config: Config, data_sha256: str) -> dict[str, Any]:
    """What the predictions depend on: not on how many workers or devices take part, but on what kind of device.

    A local model, adapter or adapter's base counts by its contents, a hub's by its commit; the tokenizer as it was loaded.
    """
    name = config.model.name
    local = config.path("embedded.dir") / "model" if name == EMBEDDED else project_path(name)
    return {
        "version": IDENTITY_VERSION,
        **{f"model.{key}": value for key, value in config.to_dict()["model"].items() if key != "device"},
        "model's commit": loaded.info.revision,
        "model's files": sha256_tree(local),
        "adapter": loaded.info.adapter,
        "base model's files": sha256_tree(project_path(loaded.info.name)) if loaded.info.adapter else None,
        "tokenizer": tokenizer_hash(loaded.tokenizer),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name(loaded.device) if loaded.device.type == "cuda" else "cpu",
        "data set": data_sha256,
        "label names": fingerprint(read_mapping_file(config.label_mappings_file).names)[:12],
        "dataset.text_column": config.dataset.text_column,
        "profiling.max_length": config.profiling.max_length,
        "evaluation.batching": config.evaluation.batching,
        "evaluation's batch limit": wanted_limit(config),
        "evaluation.compile": config.evaluation.compile,
        "evaluation.chunk_rows": config.evaluation.chunk_rows,
    }


def tokenizer_hash(tokenizer: Any) -> str:
    """Of all that decides a text's token ids; a slow tokenizer has no more to show than its vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    # A fast tokenizer keeps the last call's truncation and padding, which every call sets anew.
    described = tokenizer.get_vocab() if backend is None else {
        key: value for key, value in json.loads(backend.to_str()).items() if key not in ("truncation", "padding")
    }
    return fingerprint([tokenizer.pad_token_id, getattr(tokenizer, "padding_side", "right"), described])


def chunk_ranges(total: int, config: Config) -> Iterator[tuple[int, int]]:
    """First row and end of every chunk, in file order."""
    size = config.evaluation.chunk_rows
    return ((start, min(start + size, total)) for start in range(0, total, size))


def missing(store: ChunkStore, config: Config, bar: Any) -> Iterator[Rows]:
    """The rows of every chunk that is not finished, in file order; those that are count on the bar."""
    for rows in iter_rows(config.data_file, config.evaluation.chunk_rows, config.evaluation.max_samples):
        if store.has(rows.start, rows.start + len(rows.texts)):
            bar.update(len(rows.texts))
        else:
            yield rows
