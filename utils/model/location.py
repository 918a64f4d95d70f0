"""Where a model comes from: names to folders, commits and adapters."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError

from utils.config_loader import EMBEDDED, Config, project_path, tried_places
from utils.core.errors import ModelError, UserError
from utils.core.files import read_json
from utils.hub.errors import hub_errors
from utils.hub.repository import resolve
from utils.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, find_adapter_weights

TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges*",
    "spiece*",
    "sentencepiece*",
    "*.model",
    "*.spm",
    "*.bpe",
    "*.tiktoken",
    "*.jinja",
    "tekken.json",
    "bpe.codes",
    "dict.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""Names of the files that tokenizers of any kind are saved in."""
VOCABULARY_FILES = tuple(
    name
    for name in TOKENIZER_FILES
    if name not in ("tokenizer*", "*.jinja", "special_tokens_map.json", "added_tokens.json")
) + ("tokenizer.json", "tokenizer.model*")
"""Those of them that hold the vocabulary itself."""
CODE_AND_SETTINGS = ("*.json", "*.txt", "*.py")
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")
"""Names of the weights that transformers loads; other files of the same endings are not a model's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelLocation:
    """Where something is loaded from: a folder, an architecture's ``.json``, or a hub id with its commit.

    ``files`` are the names in the folder or in the repository; empty for an architecture's ``.json``.
    """

    name: str
    revision: str | None = None
    offline: bool = False
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @property
    def hub_kwargs(self) -> dict[str, Any]:
        """For the hub's functions; without the hub nothing is asked of it, each question would wait for a timeout."""
        return {"revision": self.revision or "main", "local_files_only": self.offline}

    @property
    def arguments(self) -> dict[str, Any]:
        """For ``from_pretrained``."""
        return {"pretrained_model_name_or_path": self.name, **self.hub_kwargs}

    def has_any(self, *patterns: str) -> bool:
        """Whether a file at the top of the folder or repository matches one of the patterns."""
        return any(fnmatch(name, pattern) for name in self.files for pattern in patterns)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """Base model, and the adapter's folder and name where there is one."""

    base: ModelLocation
    adapter: Path | None = None
    adapter_name: str | None = None


def resolve_model(config: Config) -> ModelSource:
    """Resolve names to folders and commits; fetch an adapter, which is small.

    Raises:
        UserError: a name, file or weight that is not there, or what the hub answers.
    """
    place = resolve_name(config, config.model.name, config.model.revision)
    adapter = _adapter_folder(place)
    if adapter is None:
        return ModelSource(base=place)
    base = _adapter_base(config, adapter)
    return ModelSource(base=base, adapter=adapter, adapter_name=str(place))


def resolve_name(
    config: Config, name: str, revision: str | None, what: str = "model"
) -> ModelLocation:
    """Where a ``model`` or ``tokenizer`` of that name is loaded from.

    Raises:
        UserError: it is nowhere.
    """
    if name == EMBEDDED:
        return _folder_location(embedded_folder(config))
    path = project_path(name)
    if path.is_dir():
        return _folder_location(path)
    if name.endswith(".json"):
        return _architecture_file(config, name, path)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        key = "name" if what == "model" else what
        where = tried_places(name)
        raise ModelError(
            f"No such {what} folder.", where=where, fix=f"correct model.{key}, or give a hub id"
        )
    resolved = resolve(name, revision, wanted=files_to_load)
    return ModelLocation(
        name=name, revision=resolved.commit, offline=resolved.from_cache, files=resolved.files
    )


def files_to_load(names: tuple[str, ...]) -> set[str]:
    """Of a repository's files those that loading a model may fetch: pickled weights only where there are no safetensors."""
    weights = PICKLED
    if any(fnmatch(name, pattern) for name in names for pattern in SAFETENSORS):
        weights = SAFETENSORS
    patterns = (*CODE_AND_SETTINGS, *TOKENIZER_FILES, *weights)
    return {name for name in names if any(fnmatch(name, pattern) for pattern in patterns)}


def embedded_folder(config: Config) -> Path:
    """The embedded model; a ModelError where it is not built yet."""
    folder = config.path("embedded.dir") / "model"
    if not (folder / "config.json").is_file():
        fix = "build it with: python scripts/build_demo_assets.py"
        raise ModelError("The embedded model is not built yet.", where=folder, fix=fix)
    return folder


def _folder_location(folder: Path) -> ModelLocation:
    files = tuple(sorted(path.name for path in folder.iterdir() if path.is_file()))
    return ModelLocation(name=str(folder), files=files)


def _architecture_file(config: Config, name: str, path: Path) -> ModelLocation:
    if config.model.load_format != "dummy":
        raise ModelError(
            f"{name} describes an architecture, it has no weights.",
            where="model.name",
            fix="--set model.load_format=dummy, or name a model with weights",
        )
    if not path.is_file():
        fix = "--set model.name=configs/architectures/qwen2.5-0.5b.json"
        raise ModelError("No such architecture file.", where=tried_places(name), fix=fix)
    return ModelLocation(name=str(path))


def _adapter_folder(place: ModelLocation) -> Path | None:
    """Where the adapter lies, or None where the place is no adapter."""
    folder = Path(place.name)
    if not folder.exists():
        with hub_errors("adapter", place.name, ModelError):
            try:
                hf_hub_download(place.name, ADAPTER_CONFIG, **place.hub_kwargs)
            except EntryNotFoundError:
                return None
            wanted = ["*.json", "*.txt", *TOKENIZER_FILES, *ADAPTER_WEIGHTS]
            folder = Path(snapshot_download(place.name, **place.hub_kwargs, allow_patterns=wanted))
    if not (folder / ADAPTER_CONFIG).is_file():
        return None
    find_adapter_weights(folder)
    return folder


def _adapter_base(config: Config, adapter: Path) -> ModelLocation:
    """Where the adapter's base model is loaded from: as ``model.adapter_base`` says, else as the adapter itself says."""
    file = adapter / ADAPTER_CONFIG
    description = read_json(file, made_by="the adapter's save_pretrained")
    override = config.model.adapter_base
    fix = "name the base model with --set model.adapter_base=NAME, a hub id or a local folder"
    if override is not None:
        return resolve_name(config, override, None)
    name = description.get("base_model_name_or_path")
    if not name:
        raise ModelError("The adapter does not name its base model.", where=file, fix=fix)
    try:
        return resolve_name(config, str(name), description.get("revision"))
    except UserError as error:
        message = f"The adapter's base_model_name_or_path is {name!r}, and that cannot be loaded: {error.what}"
        raise ModelError(message, where=file, fix=fix) from error
