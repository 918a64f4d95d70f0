"""The tables of ``docs/SETTINGS.md``: every setting with its values, default and meaning."""

from __future__ import annotations

import json

from utils.core.files import JsonObject
from utils.schema.markdown import table
from utils.settings import Config

HEADER = ("Setting", "Values", "Default", "Meaning")
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}
"""Words for the limits of a number in a JSON Schema."""


def settings_tables() -> list[str]:
    """The lines of the generated part of ``docs/SETTINGS.md``."""
    lines: list[str] = []
    sections = Config.model_json_schema()["$defs"]
    for name, field in Config.model_fields.items():
        section = type(field.default)
        summary = (section.__doc__ or "").strip().splitlines()[0]
        properties = sections[section.__name__]["properties"]
        rows = [_row(f"{name}.{key}", schema) for key, schema in properties.items()]
        lines += [f"## `{name}`", "", summary, "", *table(HEADER, rows), ""]
    return lines


def _row(key: str, schema: JsonObject) -> tuple[str, ...]:
    default = json.dumps(schema["default"])
    return (f"`{key}`", describe_values(schema), f"`{default}`", schema["description"])


def describe_values(schema: JsonObject) -> str:
    """The values that a JSON Schema allows, in words."""
    if "anyOf" in schema:
        return " or ".join(describe_values(member) for member in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = str(schema["type"])
    if kind == "array":
        return f"list of: {describe_values(schema['items'])}"
    if kind == "object":
        return f"names to: {describe_values(schema['additionalProperties'])}"
    if kind == "boolean":
        return "`true`, `false`"
    if "pattern" in schema:
        return f"text that matches `{schema['pattern']}`"
    words = [{"string": "text"}.get(kind, kind)]
    for bound, phrase in BOUNDS.items():
        if bound in schema:
            words.append(phrase.format(schema[bound]))
    return " ".join([words[0], ", ".join(words[1:])]).strip()
