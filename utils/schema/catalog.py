"""All metrics of the records with unit and description: what units and docs are made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from utils.schema.common import Record, is_nullable, unit_of, walk_records


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldEntry:
    """One field of a record, as it is described to users."""

    name: str
    unit: str | None
    description: str
    may_be_null: bool


def entries_of(kind: type[Record]) -> list[FieldEntry]:
    """The fields of a record in order."""
    entries = []
    for name, field in kind.model_fields.items():
        assert field.description, f"{kind.__name__}.{name} has no description"
        entries.append(
            FieldEntry(
                name=name,
                unit=unit_of(field),
                description=field.description,
                may_be_null=is_nullable(field),
            )
        )
    return entries


def record_paths(kind: type[Record]) -> Iterator[tuple[str, type[Record]]]:
    """The record and every record that it holds, each once, with its path in the JSON file.

    ``[]`` stands for every item of an array; the path of ``kind`` itself is empty.
    """
    seen: set[type[Record]] = set()
    yield from _paths_below("", kind, seen)


def _paths_below(
    path: str, annotation: Any, seen: set[type[Record]]
) -> Iterator[tuple[str, type[Record]]]:
    if get_origin(annotation) is tuple:
        path += "[]"
    for part in get_args(annotation):
        yield from _paths_below(path, part, seen)
    if not isinstance(annotation, type) or not issubclass(annotation, Record):
        return
    if annotation in seen:
        return
    seen.add(annotation)
    yield path, annotation
    for name, field in annotation.model_fields.items():
        yield from _paths_below(f"{path}.{name}" if path else name, field.annotation, seen)


def units_of(kind: type[Record]) -> dict[str, str]:
    """Unit of every quantity in a record and in the records that it holds.

    A name has one unit wherever it stands.
    """
    units: dict[str, str] = {}
    for record in walk_records(kind):
        for entry in entries_of(record):
            if entry.unit is None:
                continue
            known = units.setdefault(entry.name, entry.unit)
            assert known == entry.unit, f"{entry.name} has two units: {known}, {entry.unit}"
    return units
