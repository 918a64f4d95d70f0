"""YAML and overrides in, one frozen and validated Config out."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import ValidationError

from utils.core.errors import ConfigError
from utils.core.files import PROJECT_ROOT, JsonObject
from utils.core.paths import (
    find_in_working_directory,
    matches_something,
    project_path,
    tried_places,
    works_in_project_root,
)
from utils.settings import EMBEDDED, SECTIONS, Config, all_keys

__all__ = ["Config", "default_config", "load_config", "with_override"]

DEFAULT_FILE = "configs/config.yaml"
INPUT_KEYS = ("model.name", "model.tokenizer", "model.adapter_base", "dataset.hf_name")
"""Settings that may name a local file, folder or pattern to read."""
MIN_SIMILARITY = 0.6
"""From this ratio of difflib on, a valid name is suggested for an unknown one."""
YAML_TEXT = "tag:yaml.org,2002:str"
YAML_NULL = "tag:yaml.org,2002:null"


def default_config() -> str:
    """The settings file that is used if none is named: always the project's own."""
    if works_in_project_root():
        return DEFAULT_FILE
    return str(PROJECT_ROOT / DEFAULT_FILE)


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
    overridden: JsonObject = {}
    for override in overrides:
        _apply_override(settings, override)
        _apply_override(overridden, override)
    if not works_in_project_root():
        _resolve_inputs(settings, set(_named_inputs(overridden)))
    return _validate(settings, file)


def with_override(config: Config, override: str) -> Config:
    """The same settings except for one ``dotted.key=VALUE``, checked as a file's are."""
    settings = config.to_dict()
    _apply_override(settings, override)
    return _validate(settings, f"--set {override}")


def _config_file(path: str | Path | None) -> Path:
    if path is None:
        return PROJECT_ROOT / DEFAULT_FILE
    if works_in_project_root():
        return project_path(path)
    return find_in_working_directory(str(path)) or project_path(path)


def _read_yaml(file: Path, name: str | Path | None) -> JsonObject:
    try:
        settings = _load_yaml(file.read_text(encoding="utf-8"), ())
    except FileNotFoundError as error:
        raise _no_such_file(name or file) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"The config file cannot be read: {error}", where=file, fix="name a YAML file in UTF-8"
        ) from error
    if not isinstance(settings, dict | None):
        raise ConfigError(
            "The config file has no settings by name.", where=file, fix=f"see {DEFAULT_FILE}"
        )
    return settings or {}


def _load_yaml(text: str, keys: tuple[str, ...]) -> Any:
    """What a YAML text holds; settings that are text are taken as they are written.

    Plain YAML reads ``yes`` and ``no`` as truth values, ``010`` as the number 8 and ``2024-01-01``
    as a date. All of them are labels of data sets, or names of configurations and revisions.

    Args:
        keys: the setting that the text is the value of; empty for a complete file.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _keep_text(node, keys)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _keep_text(node: yaml.Node, keys: tuple[str, ...]) -> None:
    """Mark everything below ``node`` as text that belongs to a setting which is text."""
    if len(keys) < 2:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                _keep_text(value, (*keys, str(key.value)))
        return
    field = SECTIONS.get(keys[0], {}).get(keys[1])
    if field is None:
        return
    if _is_text(field.annotation) and len(keys) == 2:
        _mark_as_text(node)
    elif get_origin(field.annotation) is dict and get_args(field.annotation) == (str, str):
        _mark_as_text(node)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                _mark_as_text(key, null=True)
                _mark_as_text(value)


def _is_text(annotation: Any) -> bool:
    """Whether a setting of this type is a text, or null."""
    return annotation is str or set(get_args(annotation)) == {str, type(None)}


def _mark_as_text(node: yaml.Node, *, null: bool = False) -> None:
    """Read an unquoted scalar as text, null only where ``null`` is true."""
    is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
    if is_plain and (null or node.tag != YAML_NULL):
        node.tag = YAML_TEXT


def _no_such_file(name: str | Path) -> ConfigError:
    files = sorted((PROJECT_ROOT / "configs").glob("*.yaml"))
    known = ", ".join(str(file.relative_to(PROJECT_ROOT)) for file in files)
    return ConfigError("No such config file.", where=tried_places(name), fix=f"use one of: {known}")


def _apply_override(settings: JsonObject, override: str) -> None:
    """Put the value of ``dotted.key=VALUE`` into nested settings."""
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(
            f"Cannot read the override {override!r}.",
            where="--set",
            fix="write --set section.key=VALUE",
        )
    try:
        value = _load_yaml(text, tuple(keys))
    except yaml.YAMLError as error:
        raise ConfigError(
            f"The override {override!r} is not valid YAML.", where=f"--set {dotted}"
        ) from error
    target = settings
    for depth, key in enumerate(keys[:-1], start=1):
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise ConfigError(
                f"`{'.'.join(keys[:depth])}` is not a section.",
                where=f"--set {override}",
                fix=_suggest_fix(keys),
            )
    target[keys[-1]] = value


def _resolve_inputs(settings: JsonObject, overridden: set[str]) -> None:
    """Make local inputs in the working directory absolute, so that other processes find them.

    What the command line names (``overridden``) is looked up in the working directory first; what
    the configuration file names, in the project's root first.
    """
    for key, name in _named_inputs(settings).items():
        if name == EMBEDDED:
            continue
        if key not in overridden and matches_something(project_path(name)):
            continue
        path = find_in_working_directory(name)
        if path is not None:
            section, field = key.split(".")
            settings[section][field] = str(path)


def _named_inputs(settings: JsonObject) -> dict[str, str]:
    """The names of inputs among some settings, by dotted key."""
    names = {}
    for key in INPUT_KEYS:
        section, field = key.split(".")
        fields = settings.get(section)
        if not isinstance(fields, dict):
            continue
        name = fields.get(field)
        if isinstance(name, str) and name:
            names[key] = name
    return names


def _validate(settings: JsonObject, where: object) -> Config:
    try:
        # As JSON, whose lists may be strict tuples; what YAML has beyond JSON (dates) becomes text.
        return Config.model_validate_json(json.dumps(settings, default=str))
    except ValidationError as error:
        if all(detail["loc"] for detail in error.errors()):
            raise _to_config_error(error, where) from error
        raise _invalid_settings(error, where) from error
    except ValueError as error:
        raise _invalid_settings(error, where) from error


def _invalid_settings(error: ValueError, where: object) -> ConfigError:
    """For YAML that cannot be settings, such as a mapping that contains itself."""
    return ConfigError(f"Invalid settings: {error}", where=where, fix=f"see {DEFAULT_FILE}")


def _to_config_error(error: ValidationError, where: object) -> ConfigError:
    """One message for everything that is wrong, the first problem first."""
    problems: dict[tuple[str, ...], list[Any]] = {}
    for detail in error.errors():
        problems.setdefault(_setting_of(detail["loc"]), []).append(detail)
    lines = []
    for keys, details in problems.items():
        lines.append(_describe_problem(".".join(keys), details))
    first = next(iter(problems))
    return ConfigError("\n".join(lines), where=where, fix=_suggest_fix(list(first)))


def _setting_of(location: tuple[int | str, ...]) -> tuple[str, ...]:
    """Section, key and position in a list.

    pydantic's location also has, for a union, the name of its member.
    """
    parts = [str(part) for part in location[:2]]
    parts += [str(part) for part in location[2:] if isinstance(part, int)]
    return tuple(parts)


def _describe_problem(dotted: str, details: list[Any]) -> str:
    if details[0]["type"] == "extra_forbidden":
        return f"Unknown setting: {dotted}"
    allowed = "; or ".join(str(d["msg"]).removeprefix("Value error, ") for d in details)
    return f"{dotted} cannot be {details[0]['input']!r}: {allowed}"


def _suggest_fix(keys: list[str]) -> str:
    """What to write instead: what the setting allows, or the nearest valid name."""
    if len(keys) == 1 and keys[0] in SECTIONS:
        return f"see {DEFAULT_FILE}"
    field = None
    if len(keys) > 1:
        field = SECTIONS.get(keys[0], {}).get(keys[1])
    if field is not None and all(key.isdigit() for key in keys[2:]):
        return _allowed_values(field.annotation, field.default)
    valid = all_keys()
    close = difflib.get_close_matches(".".join(keys), valid, n=1, cutoff=MIN_SIMILARITY)
    # The right name in the wrong section.
    close += [key for key in valid if key.rsplit(".", 1)[-1] == keys[-1]]
    if close:
        return f"did you mean {close[0]}?"
    return "valid settings: " + ", ".join(valid)


def _allowed_values(annotation: Any, default: Any) -> str:
    if isinstance(default, tuple):
        default = list(default)
    text = f"the default is {default!r}"
    choices = _choices(annotation)
    if choices:
        text = f"allowed: {', '.join(map(repr, choices))}; {text}"
    return text


def _choices(annotation: Any) -> list[Any]:
    """The values of every Literal in a type."""
    if getattr(annotation, "__origin__", None) is Literal:
        return list(get_args(annotation))
    choices = []
    for part in get_args(annotation):
        choices += _choices(part)
    return choices
