"""Where a model comes from: names to folders, commits and adapters, and what goes wrong on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError, safe_open

from utils.config_loader import EMBEDDED, Config, project_path
from utils.core.artifacts import read_json
from utils.core.device import is_out_of_memory
from utils.core.errors import ModelError
from utils.hub import explain, hub_errors, resolve

DOWNLOADED = (".safetensors", ".json", ".txt", ".model", ".jinja", ".py")
"""Endings of the files that loading a model may fetch from the hub."""
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_PREFIX = "base_model.model."


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where something is loaded from: a folder, an architecture's ``.json``, or a hub id with its commit."""

    name: str
    revision: str | None = None
    offline: bool = False

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @property
    def version(self) -> dict[str, Any]:
        """For the hub's functions; without the hub nothing is asked of it, each question would wait for a timeout."""
        return {"revision": self.revision or "main", "local_files_only": self.offline}

    @property
    def arguments(self) -> dict[str, Any]:
        """For ``from_pretrained``."""
        return {"pretrained_model_name_or_path": self.name, **self.version}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Base model, and the adapter's folder and name where there is one."""

    base: Place
    adapter: Path | None = None
    adapter_name: str | None = None


def locate(config: Config) -> Source:
    """Resolve names to folders and commits; fetch an adapter, which is small.

    Raises:
        UserError: a name, file or weight that is not there, or what the hub says.
    """
    place = place_of(config, config.model.name, config.model.revision)
    adapter = _adapter_folder(place)
    if adapter is None:
        return Source(base=place)
    file = adapter / ADAPTER_CONFIG
    described = read_json(file, made_by="the adapter's save_pretrained")
    base = described.get("base_model_name_or_path")
    if not base:
        raise ModelError("The adapter does not name its base model.", where=file, fix="set base_model_name_or_path there")
    return Source(base=place_of(config, base, described.get("revision")), adapter=adapter, adapter_name=str(place))


def place_of(config: Config, name: str, revision: str | None, what: str = "model") -> Place:
    """Where a ``model`` or ``tokenizer`` of that name is loaded from; a UserError where it is nowhere."""
    if name == EMBEDDED:
        return Place(name=str(embedded_folder(config)))
    path = project_path(name)
    if path.is_dir():
        return Place(name=str(path))
    if name.endswith(".json"):
        if config.model.load_format != "dummy":
            raise ModelError(f"{name} describes an architecture, it has no weights.", where="model.name",
                             fix="--set model.load_format=dummy, or name a model with weights")
        if not path.is_file():
            fix = "--set model.name=configs/architectures/qwen2.5-0.5b.json"
            raise ModelError("No such architecture file.", where=path, fix=fix)
        return Place(name=str(path))
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        key = "name" if what == "model" else what
        raise ModelError(f"No such {what} folder.", where=path, fix=f"mend model.{key}, or give a hub id")
    resolved = resolve(name, revision, suffixes=DOWNLOADED)
    return Place(name=name, revision=resolved.commit, offline=resolved.from_cache)


def embedded_folder(config: Config) -> Path:
    """The embedded model; a ModelError where it is not built yet."""
    folder = config.path("embedded.dir") / "model"
    if not (folder / "config.json").is_file():
        fix = "build it with: python scripts/build_demo_assets.py"
        raise ModelError("The embedded model is not built yet.", where=folder, fix=fix)
    return folder


def _adapter_folder(place: Place) -> Path | None:
    """Where the adapter lies, or None where the place is no adapter."""
    folder = Path(place.name)
    if not folder.exists():
        with hub_errors("adapter", place.name, ModelError):
            try:
                hf_hub_download(place.name, ADAPTER_CONFIG, **place.version)
            except EntryNotFoundError:
                return None
            wanted = ["*.json", "*.txt", ADAPTER_WEIGHTS]
            folder = Path(snapshot_download(place.name, **place.version, allow_patterns=wanted))
    if not (folder / ADAPTER_CONFIG).is_file():
        return None
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ModelError("The adapter has no safetensors weights.", where=folder / ADAPTER_WEIGHTS,
                         fix="save it again with safe_serialization=True")
    return folder


def adapter_head(folder: Path | None) -> tuple[set[str], int] | None:
    """Names of the weights that the adapter brings whole, and its number of labels; None without a head of its own."""
    if folder is None:
        return None
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as weights:
        keys = list(weights.keys())
        names = {key.removeprefix(ADAPTER_PREFIX): key for key in keys if "lora_" not in key}
        heads = [names[name] for name in names if name.startswith(("score", "classifier")) and name.endswith("weight")]
        return (set(names), int(weights.get_slice(heads[-1]).get_shape()[0])) if heads else None


@contextmanager
def loading(what: str, place: Place) -> Iterator[None]:
    """What transformers, peft and torch raise on a model that cannot be loaded, as a ModelError."""
    with hub_errors(what, place.name, ModelError):
        try:
            yield
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            if not Path(place.name).exists() and explain(error, what, place.name) is not None:
                raise
            if is_out_of_memory(error):
                fix = "--set model.dtype=bfloat16, take another device, or end what else uses the GPU"
                raise ModelError(f"The {what} does not fit into the device's memory.", where=place, fix=fix) from error
            reason = str(error).strip().split("\n")[0]
            fix = "it needs a config.json, safetensors weights and tokenizer files that this transformers can read"
            if "trust_remote_code" in str(error):
                fix = "read the code in the repository; if you trust it, --set model.trust_remote_code=true"
            raise ModelError(f"The {what} cannot be loaded: {reason}", where=place, fix=fix) from error
