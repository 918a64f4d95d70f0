"""Reads the label names of a classifier from its configuration.

transformers' pipelines name their results by ``id2label``; ``label2id`` is used in training.
Published configurations often have only one of them, or an outdated copy of the other, so both are
read and compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from utils.core.errors import ModelError
from utils.core.files import JsonObject, read_json
from utils.data.label_readings import spelling_of
from utils.data.labels import ModelLabels
from utils.model.adapter import read_head
from utils.model.load_errors import translate_load_errors
from utils.model.location import ModelLocation, ModelSource

DEFAULT_NUM_LABELS = 2
"""What transformers assumes where the configuration names no labels."""
MAX_SHOWN = 6


def read_labels(source: ModelSource, *, trust_remote_code: bool) -> ModelLabels:
    """The label names of a model from its configuration alone, without its weights.

    Raises:
        ModelError: the configuration cannot be read, or its label names contradict each other.
    """
    raw_config = _read_raw_config(source.base, trust_remote_code)
    labels = parse_label_names(raw_config, source.base)
    head = read_head(source.adapter)
    num_labels = labels.num_labels if head is None else head.num_labels
    of_adapter = _names_of_adapter(source.adapter)
    if of_adapter is not None and of_adapter.num_labels == num_labels:
        return of_adapter
    if num_labels != labels.num_labels:
        # The adapter has another head, so the base model's names are not its names.
        return ModelLabels(names=None, num_labels=num_labels)
    return labels


def _names_of_adapter(folder: Path | None) -> ModelLabels | None:
    """The label names of a ``config.json`` that some training programs save with an adapter."""
    if folder is None or not (folder / "config.json").is_file():
        return None
    raw_config = read_json(folder / "config.json", made_by="the adapter's save_pretrained")
    labels = parse_label_names(raw_config, folder)
    return labels if labels.names is not None else None


def _read_raw_config(base: ModelLocation, trust_remote_code: bool) -> JsonObject:
    """The contents of ``config.json``, before transformers fills in defaults."""
    if base.name.endswith(".json"):
        return read_json(Path(base.name), made_by="the model's save_pretrained")
    with translate_load_errors("model", base):
        raw, _ = PretrainedConfig.get_config_dict(
            base.name, **base.hub_arguments, trust_remote_code=trust_remote_code
        )
    return dict(raw)


def parse_label_names(raw_config: JsonObject, where: object) -> ModelLabels:
    """Read the label names from the contents of a ``config.json``.

    Args:
        raw_config: the JSON object, before transformers fills in defaults.
        where: the model, for messages.

    Returns:
        The names of ``id2label``, else those of ``label2id``, else none.

    Raises:
        ModelError: a list or an inverted mapping, ids with gaps, names that repeat, or names that
            disagree.
    """
    by_id2label = _parse_id2label(raw_config.get("id2label"), where)
    by_label2id = _parse_label2id(raw_config.get("label2id"), where)
    if by_id2label is not None and not _is_generic(by_id2label):
        if by_label2id is not None and not _is_generic_label2id(by_label2id):
            _check_agreement(by_id2label, by_label2id, where)
        return ModelLabels(names=by_id2label, num_labels=len(by_id2label), source="id2label")
    if by_label2id is not None and not _is_generic_label2id(by_label2id):
        by_id = {number: name for name, number in by_label2id.items()}
        names = _names_by_id(by_id, "label2id", where)
        return ModelLabels(names=names, num_labels=len(names), source="label2id")
    if by_id2label is not None:
        return ModelLabels(names=None, num_labels=len(by_id2label))
    num_labels = raw_config.get("num_labels") or raw_config.get("_num_labels") or DEFAULT_NUM_LABELS
    return ModelLabels(names=None, num_labels=int(num_labels))


def _parse_id2label(value: Any, where: object) -> tuple[str, ...] | None:
    """Names in the order of their ids, or None where there is no ``id2label``."""
    if not value:
        return None
    if not isinstance(value, Mapping):
        raise _malformed(
            f"id2label is a {type(value).__name__}, not a mapping of ids to names", where
        )
    if not all(_is_integer(key) for key in value):
        detail = "has keys that are not ids"
        if all(_is_integer(name) for name in value.values()):
            detail = "maps names to ids; it looks like label2id"
        raise _malformed(f"id2label {detail}: {_shorten(value)}", where)
    return _names_by_id({int(key): str(name) for key, name in value.items()}, "id2label", where)


def _parse_label2id(value: Any, where: object) -> dict[str, int] | None:
    """Names with their ids, or None where there is no ``label2id``."""
    if not value:
        return None
    if not isinstance(value, Mapping):
        raise _malformed(
            f"label2id is a {type(value).__name__}, not a mapping of names to ids", where
        )
    if not all(_is_integer(number) for number in value.values()):
        detail = "has values that are not ids"
        if all(_is_integer(key) for key in value):
            detail = "maps ids to names; it looks like id2label"
        raise _malformed(f"label2id {detail}: {_shorten(value)}", where)
    return {str(name): int(number) for name, number in value.items()}


def _names_by_id(names: Mapping[int, str], key: str, where: object) -> tuple[str, ...]:
    if sorted(names) != list(range(len(names))):
        raise _malformed(f"the ids of {key} have gaps or do not begin at 0: {sorted(names)}", where)
    ordered = tuple(names[number] for number in range(len(names)))
    if len(set(ordered)) != len(ordered):
        repeated = sorted({name for name in ordered if ordered.count(name) > 1})
        raise _malformed(
            f"{key} gives several ids the same name: {', '.join(map(repr, repeated[:MAX_SHOWN]))}",
            where,
        )
    return ordered


def _check_agreement(names: tuple[str, ...], label2id: Mapping[str, int], where: object) -> None:
    """Refuse a configuration whose two mappings give a name different ids.

    A name that only the case, spaces, underscores or hyphens of its other spelling differ from is
    the same name.
    """
    by_spelling = {spelling_of(name): number for name, number in label2id.items()}
    differences = []
    for number, name in enumerate(names):
        other = label2id.get(name, by_spelling.get(spelling_of(name), "absent"))
        if other != number:
            differences.append(f"{name!r} is {number} in id2label and {other} in label2id")
    if differences:
        shown = "; ".join(differences[:MAX_SHOWN])
        raise _malformed(f"id2label and label2id disagree: {shown}", where)


def _is_generic(names: tuple[str, ...]) -> bool:
    """Whether these are the names that transformers makes up: LABEL_0, LABEL_1 and so on."""
    return all(name == f"LABEL_{number}" for number, name in enumerate(names))


def _is_generic_label2id(label2id: Mapping[str, int]) -> bool:
    return all(re.fullmatch(r"LABEL_\d+", name) for name in label2id)


def _is_integer(value: Any) -> bool:
    return bool(re.fullmatch(r"\s*-?\d+\s*", str(value))) and not isinstance(value, bool)


def _shorten(value: Mapping[Any, Any]) -> str:
    shown = [f"{key!r}: {item!r}" for key, item in islice(value.items(), MAX_SHOWN)]
    if len(value) > MAX_SHOWN:
        shown.append("…")
    return "{" + ", ".join(shown) + "}"


def _malformed(detail: str, where: object) -> ModelError:
    fix = (
        'correct config.json: "id2label": {"0": NAME, "1": NAME, …} and '
        '"label2id": {NAME: 0, NAME: 1, …}'
    )
    return ModelError(f"The model's label names cannot be used: {detail}.", where=where, fix=fix)
