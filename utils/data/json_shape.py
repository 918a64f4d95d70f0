"""Refuses JSON files that are a single object with the complete table in it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from utils.core.errors import DataError
from utils.core.files import JsonObject
from utils.data.hints import yaml_text


def refuse_single_object(lines: io.TextIOWrapper, path: Path) -> None:
    """Refuse a file that is one JSON object with the columns, or with the list of records, in it.

    Raises:
        DataError: it is one of these.
    """
    content = _single_object(lines)
    if content is None:
        return
    lists = [key for key, value in content.items() if _is_list_of_records(value)]
    if lists:
        shown = ", ".join(map(repr, lists))
        raise DataError(
            f"The data file is one JSON object, and its records are in a list under {shown}.",
            where=path,
            fix="save that list as a file of its own: "
            f"json.dump(content[{yaml_text(lists[0])}], open('NEW.json', 'w'))",
        )
    if content and all(isinstance(value, (dict, list)) for value in content.values()):
        raise DataError(
            "The data file has columns, not records: one JSON object with "
            f"{', '.join(map(repr, content))}.",
            where=path,
            fix="save records: pandas.read_json(PATH).to_json('NEW.json', orient=\"records\")",
        )


def _single_object(lines: io.TextIOWrapper) -> JsonObject | None:
    """The object that is the complete file; None for a list, records by line, or anything else."""
    first = _next_line(lines)
    if not first.lstrip().startswith("{"):
        return None
    try:
        content = json.loads(first)
    except ValueError:
        content = _object_over_lines(first, lines)
    else:
        if _next_line(lines):
            return None
    return content if isinstance(content, dict) else None


def _object_over_lines(first: str, lines: io.TextIOWrapper) -> Any:
    """The content of a file whose first line alone is no JSON; None if all of it is no JSON."""
    try:
        return json.loads(first + lines.read())
    except ValueError:
        return None


def _next_line(lines: io.TextIOWrapper) -> str:
    """The next line that is not blank; an empty text at the end."""
    for line in lines:
        if line.strip():
            return line
    return ""


def _is_list_of_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)
