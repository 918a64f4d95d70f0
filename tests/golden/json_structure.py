"""The structure of a JSON document: which types stand at which path, and how two structures differ.

A structure is a flat mapping ``{path: types}``, for example::

    {"run": "object", "run.seed": "integer", "batch_size_profiling[].mfu": "null or number"}

``[]`` stands for every item of an array, ``*`` for every key of an object whose keys are data
(names of metrics or labels, see ``KEYS_ARE_DATA``). ``absent`` among the types means that not every
object at that path has the key. An integer is also a number; where both occur, the type is
``number``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Objects whose keys are data rather than names that the project chose.
KEYS_ARE_DATA = ("unavailable", "not_measured", "label_map", "targets")
ROOT = ""

Structure = dict[str, str]


def structure_of(document: Any) -> Structure:
    """The structure of a decoded JSON document; its paths are in the order of their first use."""
    types: dict[str, set[str]] = {}
    for path, value in _walk(document, ROOT):
        types.setdefault(path, set()).add(_type_of(value))
    for path in _sometimes_absent(document):
        types[path].add("absent")
    del types[ROOT]
    return {path: _join(names) for path, names in types.items()}


def differences(expected: Structure, actual: Structure) -> list[str]:
    """One line for each path whose types differ, that is missing, or that is new.

    Paths inside an array that is empty, or inside an object that is null, are not missing: there is
    nothing to see of them.
    """
    lines = []
    for path, types in expected.items():
        if path not in actual:
            if _could_be_seen(path, expected, actual):
                lines.append(f"- {path}: {types} is expected, the key is missing")
        elif not _fits(actual[path], types):
            lines.append(f"! {path}: {types} is expected, the file has {actual[path]}")
    for path, types in actual.items():
        if path not in expected:
            lines.append(f"+ {path}: {types} is new")
    return lines


def merge(committed: Structure, actual: Structure) -> Structure:
    """``actual``, with the types that were widened by hand and the paths that it could not show.

    The paths keep their committed places.
    """
    paths = list(actual)
    place = 0
    for path in committed:
        if path not in actual and not _could_be_seen(path, committed, actual):
            paths.insert(place, path)
        if path in paths:
            place = paths.index(path) + 1
    merged = {}
    for path in paths:
        before = committed.get(path)
        if before is not None and (path not in actual or _fits(actual[path], before)):
            merged[path] = before
        else:
            merged[path] = actual[path]
    return merged


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value of the document with its path, parents first."""
    yield path, value
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, _child(path, key))
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item, f"{path}[]")


def _child(path: str, key: str) -> str:
    if path.rpartition(".")[2] in KEYS_ARE_DATA:
        key = "*"
    return f"{path}.{key}" if path else key


def _sometimes_absent(document: Any) -> set[str]:
    """The paths of keys that some objects at the same path have and others do not."""
    keys_by_path: dict[str, list[set[str]]] = {}
    for path, value in _walk(document, ROOT):
        if isinstance(value, Mapping):
            keys = {_child(path, key) for key in value}
            keys_by_path.setdefault(path, []).append(keys)
    absent: set[str] = set()
    for keys_of_objects in keys_by_path.values():
        absent |= set.union(*keys_of_objects) - set.intersection(*keys_of_objects)
    return {path for path in absent if not path.endswith(".*")}


def _type_of(value: Any) -> str:
    # bool first: it is a subclass of int.
    names = {
        bool: "boolean",
        int: "integer",
        float: "number",
        str: "string",
        list: "array",
        dict: "object",
        type(None): "null",
    }
    return names[type(value)]


def _join(names: set[str]) -> str:
    if "number" in names:
        names = names - {"integer"}
    return " or ".join(sorted(names))


def _fits(actual: str, expected: str) -> bool:
    allowed = set(expected.split(" or "))
    if "number" in allowed:
        allowed.add("integer")
    return set(actual.split(" or ")) <= allowed


def _could_be_seen(path: str, expected: Structure, actual: Structure) -> bool:
    """Whether a value at ``path`` had to show in ``actual``, given what stands above it there."""
    if "absent" in expected[path].split(" or ") or path.endswith((".*", "[]")):
        return False
    parent = _parent(path)
    if parent == ROOT:
        return True
    if parent not in actual:
        # An empty array, or null further up: reported there if it is wrong.
        return False
    return "object" in actual[parent].split(" or ")


def _parent(path: str) -> str:
    if path.endswith("[]"):
        return path.removesuffix("[]")
    return path.rpartition(".")[0]
