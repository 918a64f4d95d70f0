"""YAML and overrides in, one frozen and validated Config out."""

from __future__ import annotations

import difflib
import glob
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from utils.core.errors import ConfigError
from utils.core.files import PROJECT_ROOT
from utils.core.paths import (
    exists,
    find_in_working_directory,
    project_path,
    tried_places,
    works_in_project_root,
)
from utils.settings import (
    EMBEDDED,
    SECTIONS,
    Config,
    DatasetConfig,
    EmbeddedConfig,
    EvaluationConfig,
    ModelConfig,
    OutputConfig,
    ProfilingConfig,
    all_keys,
)

__all__ = [
    "EMBEDDED",
    "SECTIONS",
    "SOURCE_SUFFIXES",
    "Config",
    "DatasetConfig",
    "EmbeddedConfig",
    "EvaluationConfig",
    "ModelConfig",
    "OutputConfig",
    "ProfilingConfig",
    "all_keys",
    "changed",
    "default_config",
    "find_in_working_directory",
    "load_config",
    "project_path",
    "source_files",
    "tried_places",
    "works_in_project_root",
]

INPUT_KEYS = ("model.name", "model.tokenizer", "model.adapter_base", "dataset.hf_name")
"""Settings that may name a local file, folder or pattern to read."""
SOURCE_SUFFIXES = tuple(
    suffix + packed
    for suffix in (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
    for packed in ("", ".gz")
)
"""Endings, in lower case, by which ``dataset.hf_name`` is a local file even if there is none of that
name."""


def default_config() -> str:
    """The settings file that is used where none is named: always the project's own."""
    name = "configs/config.yaml"
    return name if works_in_project_root() else str(PROJECT_ROOT / name)


def source_files(name: str) -> list[Path]:
    """The local files that ``dataset.hf_name`` stands for.

    These are the file, all files of the folder, or all that a pattern matches.
    """
    path = project_path(name)
    if path.is_file():
        return [path]
    if path.is_dir():
        candidates = list(path.rglob("*"))
    else:
        candidates = [Path(match) for match in glob.glob(str(path), recursive=True)]
    return sorted(file for file in candidates if file.is_file())


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file, apply ``dotted.key=VALUE`` overrides, and check everything.

    Args:
        path: the file, looked up from the working directory first, then from the project's root;
            None is the project's ``configs/config.yaml``.
        overrides: settings that replace those of the file; VALUE is read as YAML. Local models and
            data sets that they name are looked up as ``path`` is; one that is in the working
            directory becomes an absolute path, so that other processes find it.

    Raises:
        ConfigError: no such file, no YAML, unknown key, wrong type or impossible value.
    """
    file = _config_file(path)
    settings = _read_yaml(file, path)
    overridden: dict[str, Any] = {}
    for override in overrides:
        _apply(settings, override)
        _apply(overridden, override)
    if not works_in_project_root():
        _resolve_inputs(settings, set(_named_inputs(overridden)))
    return _validated(settings, file)


def _resolve_inputs(settings: dict[str, Any], overridden: set[str]) -> None:
    """Make local inputs in the working directory absolute, so that other processes find them.

    What the command line names is looked up in the working directory first; what the configuration
    file names, in the project's root first.
    """
    for key, name in _named_inputs(settings).items():
        if name == EMBEDDED:
            continue
        if key not in overridden and exists(project_path(name)):
            continue
        path = find_in_working_directory(name)
        if path is not None:
            section, field = key.split(".")
            settings[section][field] = str(path)


def _config_file(path: str | Path | None) -> Path:
    if path is None:
        return PROJECT_ROOT / "configs" / "config.yaml"
    if works_in_project_root():
        return project_path(path)
    return find_in_working_directory(str(path)) or project_path(path)


def _named_inputs(settings: Mapping[str, Any]) -> dict[str, str]:
    """The names of inputs among some settings, by dotted key."""
    names = {}
    for key in INPUT_KEYS:
        section, field = key.split(".")
        fields = settings.get(section)
        name = fields.get(field) if isinstance(fields, dict) else None
        if isinstance(name, str) and name:
            names[key] = name
    return names


def changed(config: Config, override: str) -> Config:
    """The same settings but for one ``dotted.key=VALUE``, checked as a file's are."""
    settings = config.to_dict()
    _apply(settings, override)
    return _validated(settings, f"--set {override}")


def _validated(settings: dict[str, Any], where: object) -> Config:
    try:
        # As JSON, whose lists may be strict tuples; what YAML has beyond JSON (dates) becomes text.
        return Config.model_validate_json(json.dumps(settings, default=str))
    except ValidationError as error:
        if all(detail["loc"] for detail in error.errors()):
            raise _refusal(error, where) from error
        raise _invalid_settings(error, where) from error
    except ValueError as error:
        raise _invalid_settings(error, where) from error


def _invalid_settings(error: ValueError, where: object) -> ConfigError:
    return ConfigError(f"Invalid settings: {error}", where=where, fix="see configs/config.yaml")


def _read_yaml(file: Path, name: str | Path | None) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _missing_file(file, name) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"The config file cannot be read: {error}", where=file, fix="name a YAML file in UTF-8"
        ) from error
    if not isinstance(settings, dict | None):
        raise ConfigError(
            "The config file holds no settings by name.", where=file, fix="see configs/config.yaml"
        )
    return settings or {}


def _missing_file(file: Path, name: str | Path | None) -> ConfigError:
    known = []
    for path in sorted((PROJECT_ROOT / "configs").glob("*.yaml")):
        known.append(str(path.relative_to(PROJECT_ROOT)))
    where = tried_places(name) if name else file
    return ConfigError("No such config file.", where=where, fix=f"use one of: {', '.join(known)}")


def _apply(settings: dict[str, Any], override: str) -> None:
    """Set the value that ``dotted.key=VALUE`` gives.

    Raises:
        ConfigError: the override has another form, or VALUE is not YAML.
    """
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(
            f"Cannot read the override {override!r}.",
            where="--set",
            fix="write --set section.key=VALUE",
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"The override {override!r} is not valid YAML.", where=f"--set {dotted}"
        ) from error
    target = settings
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise ConfigError(
                f"{dotted} goes below a value.", where=f"--set {override}", fix=_nearest(keys)
            )
    target[keys[-1]] = value


def _refusal(error: ValidationError, where: object) -> ConfigError:
    """One message for all that is wrong, the first problem first."""
    problems: dict[tuple[str, ...], list[Any]] = {}
    for detail in error.errors():
        problems.setdefault(_problem_keys(detail["loc"]), []).append(detail)
    lines = [_describe(".".join(keys), details) for keys, details in problems.items()]
    first_keys = next(iter(problems))
    return ConfigError("\n".join(lines), where=where, fix=_nearest(list(first_keys)))


def _problem_keys(location: tuple[int | str, ...]) -> tuple[str, ...]:
    """Section, key and positions in lists of a problem; without the names of a union's members."""
    section, *rest = location
    keys = [str(section)]
    for position, part in enumerate(rest):
        if position == 0 or isinstance(part, int):
            keys.append(str(part))
    return tuple(keys)


def _describe(dotted: str, details: list[Any]) -> str:
    if details[0]["type"] == "extra_forbidden":
        return f"Unknown setting: {dotted}"
    messages = [str(detail["msg"]).removeprefix("Value error, ") for detail in details]
    return f"{dotted} cannot be {details[0]['input']!r}: {'; or '.join(messages)}"


def _nearest(keys: list[str]) -> str:
    """What to write instead: what the setting allows, or the nearest valid name."""
    if len(keys) == 1 and keys[0] in SECTIONS:
        return "see configs/config.yaml"
    fields = SECTIONS.get(keys[0], {})
    field = fields.get(keys[1]) if len(keys) > 1 else None
    if field is not None and all(key.isdigit() for key in keys[2:]):
        return _allowed_values(field)
    valid = all_keys()
    close = difflib.get_close_matches(".".join(keys), valid, n=1, cutoff=0.6)
    if not close:
        # A right name in the wrong section is near too.
        close = [key for key in valid if key.rsplit(".", 1)[-1] == keys[-1]]
    if close:
        return f"did you mean {close[0]}?"
    return "valid settings: " + ", ".join(valid)


def _allowed_values(field: FieldInfo) -> str:
    """The choices of a setting, where it has some, and its default."""
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    text = f"the default is {default!r}"
    choices = ", ".join(map(repr, _choices(field.annotation)))
    if choices:
        text = f"allowed: {choices}; {text}"
    return text


def _choices(annotation: Any) -> list[Any]:
    """The values of every Literal in a type."""
    if getattr(annotation, "__origin__", None) is Literal:
        return list(get_args(annotation))
    choices = []
    for part in get_args(annotation):
        choices += _choices(part)
    return choices
