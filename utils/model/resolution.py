"""From the names in the settings to locations: folders, commits on the hub, adapters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError

from utils.core.errors import ModelError, UserError
from utils.core.files import read_json
from utils.core.paths import project_path, tried_places
from utils.hub.errors import hub_errors
from utils.hub.repository import resolve
from utils.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, find_adapter_weights
from utils.model.location import (
    TOKENIZER_FILES,
    VOCABULARY_FILES,
    ModelLocation,
    ModelSource,
    files_to_load,
)
from utils.settings import EMBEDDED, ModelConfig

OTHER_TOKENIZER = (
    "name the model's own tokenizer with --set model.tokenizer=NAME, a hub id or a local folder"
)
OTHER_BASE = "name the base model with --set model.adapter_base=NAME, a hub id or a local folder"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelResolver:
    """Finds what the ``model`` section of the settings names.

    Args:
        settings: the section.
        embedded_model: the folder of the embedded model, which the name ``embedded`` stands for.
    """

    settings: ModelConfig
    embedded_model: Path

    def resolve_model(self) -> ModelSource:
        """The base model and the adapter; an adapter is fetched, because it is small.

        Raises:
            UserError: a name, file or weight that does not exist, or an error of the hub.
        """
        location = self._resolve_name(self.settings.name, self.settings.revision)
        adapter = _fetch_adapter(location)
        if adapter is None:
            return ModelSource(base=location)
        base = self._resolve_adapter_base(adapter)
        return ModelSource(base=base, adapter=adapter, adapter_name=str(location))

    def resolve_tokenizer(self, source: ModelSource) -> ModelLocation:
        """The configured tokenizer, the adapter's, the model's, or the embedded one.

        The embedded tokenizer is for architectures without weights.

        Raises:
            ModelError: there are no tokenizer files.
            UserError: an error of the hub.
        """
        if self.settings.tokenizer:
            location = self._resolve_name(self.settings.tokenizer, None, "tokenizer")
            _check_tokenizer_files(location)
            return location
        if source.adapter is not None:
            files = tuple(path.name for path in source.adapter.iterdir())
            adapter = ModelLocation(name=str(source.adapter), files=files)
            # transformers makes an empty tokenizer of a lone tokenizer_config.json.
            if "tokenizer_config.json" in files and adapter.has_any(*VOCABULARY_FILES):
                return adapter
        is_architecture_file = Path(source.base.name).is_file()
        has_files = source.base.has_any(*TOKENIZER_FILES)
        is_dummy = self.settings.load_format == "dummy"
        if is_architecture_file or (is_dummy and not has_files):
            return self._embedded_location()
        _check_tokenizer_files(source.base)
        return source.base

    def _resolve_name(self, name: str, revision: str | None, what: str = "model") -> ModelLocation:
        """The location of a ``model`` or ``tokenizer`` of that name (UserError: there is none)."""
        if name == EMBEDDED:
            return self._embedded_location()
        path = project_path(name)
        if path.is_dir():
            return _folder_location(path)
        if name.endswith(".json"):
            return self._architecture_file(name, path)
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            key = what
            if what == "model":
                key = "name"
            raise ModelError(
                f"No such {what} folder.",
                where=tried_places(name),
                fix=f"correct model.{key}, or give a hub id",
            )
        resolved = resolve(name, revision, select=files_to_load)
        return ModelLocation(
            name=name, revision=resolved.commit, offline=resolved.from_cache, files=resolved.files
        )

    def _embedded_location(self) -> ModelLocation:
        if not (self.embedded_model / "config.json").is_file():
            raise ModelError(
                "The embedded model is not built yet.",
                where=self.embedded_model,
                fix="build it with: python scripts/build_demo_assets.py",
            )
        return _folder_location(self.embedded_model)

    def _architecture_file(self, name: str, path: Path) -> ModelLocation:
        if self.settings.load_format != "dummy":
            raise ModelError(
                f"{name} describes an architecture, it has no weights.",
                where="model.name",
                fix="--set model.load_format=dummy, or name a model with weights",
            )
        if not path.is_file():
            fix = "--set model.name=configs/architectures/qwen2.5-0.5b.json"
            raise ModelError("No such architecture file.", where=tried_places(name), fix=fix)
        return ModelLocation(name=str(path))

    def _resolve_adapter_base(self, adapter: Path) -> ModelLocation:
        """The adapter's base model: ``model.adapter_base``, else the one that the adapter names."""
        if self.settings.adapter_base is not None:
            return self._resolve_name(self.settings.adapter_base, None)
        file = adapter / ADAPTER_CONFIG
        description = read_json(file, made_by="the adapter's save_pretrained")
        name = description.get("base_model_name_or_path")
        if not name:
            message = "The adapter does not name its base model."
            raise ModelError(message, where=file, fix=OTHER_BASE)
        try:
            return self._resolve_name(str(name), description.get("revision"))
        except UserError as error:
            message = (
                f"The adapter's base_model_name_or_path is {name!r}, and that cannot be loaded: "
                f"{error.what}"
            )
            raise ModelError(message, where=file, fix=OTHER_BASE) from error


def _folder_location(folder: Path) -> ModelLocation:
    files = tuple(sorted(path.name for path in folder.iterdir() if path.is_file()))
    return ModelLocation(name=str(folder), files=files)


def _fetch_adapter(location: ModelLocation) -> Path | None:
    """The adapter's folder, or None where the location has no adapter."""
    folder = Path(location.name)
    if not folder.exists():
        with hub_errors("adapter", location.name, ModelError):
            try:
                hf_hub_download(location.name, ADAPTER_CONFIG, **location.hub_arguments)
            except EntryNotFoundError:
                return None
            patterns = ["*.json", "*.txt", *TOKENIZER_FILES, *ADAPTER_WEIGHTS]
            snapshot = snapshot_download(
                location.name, **location.hub_arguments, allow_patterns=patterns
            )
        folder = Path(snapshot)
    if not (folder / ADAPTER_CONFIG).is_file():
        return None
    find_adapter_weights(folder)
    return folder


def _check_tokenizer_files(location: ModelLocation) -> None:
    if location.has_any(*TOKENIZER_FILES):
        return
    raise ModelError(
        "The model has no tokenizer files, so its texts cannot be turned into its tokens.",
        where=location,
        fix=f"add its tokenizer.json there, or {OTHER_TOKENIZER}",
    )
