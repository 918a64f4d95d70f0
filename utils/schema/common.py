"""What all records share: the base class, metrics with units, reading and writing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from utils.core.errors import UserError
from utils.core.files import JsonObject, read_json, write_json

UNIT_KEY = "unit"
"""Key of a field's unit in its JSON Schema."""
NO_REASON = "no reason was recorded"

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
PositiveCount = Annotated[int, Field(ge=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Record(BaseModel):
    """A part of a JSON file: frozen, without unknown keys, strict about types.

    A field that a later version added has a default, so that older files still load. Reading keeps
    unknown keys (see ``read_record``); writing refuses them.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        # The JSON Schema describes what is written: there every field has a value.
        json_schema_serialization_defaults_required=True,
    )

    def to_dict(self) -> JsonObject:
        """Plain JSON values by field name, in the order of the fields."""
        return self.model_dump(mode="json")


class MeasuredRecord(Record):
    """A record with metrics that may be None, each with its reason in ``unavailable``.

    Every subclass declares a field ``unavailable: Unavailable = unavailable()``.
    """

    def reason(self, name: str) -> str | None:
        """Why the metric ``name`` is None; None if it was measured or the file does not say."""
        reasons: dict[str, str] = getattr(self, "unavailable", {})
        return reasons.get(name)


Unavailable = dict[str, str]
"""Metric: why it is None."""

RecordType = TypeVar("RecordType", bound=Record)


def metric(unit: str | None, description: str) -> Any:
    """A field that is None where it was not measured; ``unit`` is None for what is no quantity."""
    return Field(default=None, description=description, json_schema_extra={UNIT_KEY: unit})


def required(unit: str | None, description: str) -> Any:
    """A metric that every file has; ``unit`` is None for what is no quantity."""
    return Field(description=description, json_schema_extra={UNIT_KEY: unit})


def text(description: str) -> Any:
    """A field without a unit that always has a value."""
    return Field(description=description)


def optional(description: str, *, unit: str | None = None, default: Any = None) -> Any:
    """A field that older files may lack; None needs no reason in ``unavailable``."""
    extra: Any = {} if unit is None else {UNIT_KEY: unit}
    return Field(default=default, description=description, json_schema_extra=extra)


def unavailable() -> Any:
    """The field that gives the reason for each metric that is None."""
    return Field(
        default_factory=dict, description="For each metric that is null: why it was not measured."
    )


def warnings() -> Any:
    """The field that lists what to know before relying on the values."""
    return Field(default=(), description="What to know before relying on these values.")


def unit_of(field: FieldInfo) -> str | None:
    """The unit of a field; None for one that is no quantity."""
    extra = field.json_schema_extra
    if not isinstance(extra, dict):
        return None
    unit = extra.get(UNIT_KEY)
    return None if unit is None else str(unit)


def is_nullable(field: FieldInfo) -> bool:
    """Whether the field may be None."""
    is_union = get_origin(field.annotation) in (Union, UnionType)
    return is_union and type(None) in get_args(field.annotation)


def is_metric(field: FieldInfo) -> bool:
    """Whether the field was declared with ``metric`` or ``required``."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and UNIT_KEY in extra


def nullable_metrics(kind: type[Record]) -> tuple[str, ...]:
    """Names of the metrics that may be None, in order."""
    names = []
    for name, field in kind.model_fields.items():
        if is_metric(field) and is_nullable(field):
            names.append(name)
    return tuple(names)


def complete_reasons(
    kind: type[Record], values: JsonObject, reasons: dict[str, str]
) -> dict[str, str]:
    """The content of ``unavailable``: a reason for each nullable metric without a value.

    Args:
        values: the metrics by name; one that is left out has no value.
        reasons: the known reasons by metric; those of metrics that have a value are left out.
    """
    complete = {}
    for name in nullable_metrics(kind):
        if values.get(name) is None:
            complete[name] = reasons.get(name, NO_REASON)
    return complete


def read_record(
    path: Path,
    kind: type[RecordType],
    *,
    made_by: str,
    convert: Callable[[JsonObject], JsonObject] | None = None,
) -> RecordType:
    """Read a JSON file of any version.

    Unknown keys are kept in ``model_extra``: a later version may have written them.

    Args:
        made_by: the command that makes the file, for the error message.
        convert: turns the content of a file of an earlier version into the present form.

    Raises:
        UserError: the file is missing, is not valid JSON or does not fit the record.
    """
    payload = read_json(path, made_by=made_by)
    problem = "does not hold an object"
    if isinstance(payload, dict):
        if convert is not None:
            payload = convert(payload)
        try:
            # As JSON, whose lists fit strict tuples.
            return kind.model_validate_json(json.dumps(payload), extra="allow")
        except ValidationError as error:
            problem = describe_mismatch(error)
    raise UserError(f"{path.name} {problem}.", where=path, fix=f"make it again: {made_by}")


def describe_mismatch(error: ValidationError) -> str:
    """The first place at which a file does not fit its record, and how many more there are."""
    first, *others = error.errors()
    place = ".".join(map(str, first["loc"]))
    described = f"does not fit its schema at {place}: {first['msg']}"
    if others:
        described += f" (and {len(others)} more)"
    return described


def write_record(path: Path, record: Record) -> None:
    """Write a record atomically, after checking all of it again; unknown keys are left out.

    Raises:
        ValidationError: the record holds impossible values.
        UserError: the file cannot be written.
    """
    type(record).model_validate_json(record.model_dump_json())
    write_json(path, record.to_dict())


def walk_records(kind: type[Record]) -> Iterator[type[Record]]:
    """The record and every record that its fields hold, each once, in order."""
    seen: dict[type[Record], None] = {}
    _collect(kind, seen)
    yield from seen


def _collect(annotation: Any, seen: dict[type[Record], None]) -> None:
    if isinstance(annotation, type) and issubclass(annotation, Record):
        if annotation in seen:
            return
        seen[annotation] = None
        for field in annotation.model_fields.values():
            _collect(field.annotation, seen)
        return
    for part in get_args(annotation):
        _collect(part, seen)
