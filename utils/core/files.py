"""Files: atomic writing, so that no file is ever incomplete; JSON, hashes and disk space."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jsonschema

from utils.core.errors import UserError, reason_of

JsonObject = dict[str, Any]
"""An object of a JSON or YAML file as it was read, before it is checked."""
PROJECT_ROOT = Path(__file__).resolve().parents[2]
METRICS_SCHEMA = PROJECT_ROOT / "configs" / "baseline_metrics.schema.json"
SPARE_BYTES = 100 * 10**6
"""Disk space to leave free for results and the system."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` and move it into place when the block succeeds.

    The move is atomic, by rename(2).

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_error(path: Path, error: OSError) -> UserError:
    """The error for a file or folder that cannot be written."""
    return UserError(
        f"Cannot write {path.name}: {error.strerror or error}.",
        where=path,
        fix=(
            "free disk space, make the folder writable, or choose another with "
            "--set output.results_dir=PATH"
        ),
    )


def check_disk_space(
    folder: Path, needed_bytes: int, what: str, *, fix: str, kind: type[UserError] = UserError
) -> None:
    """Raise ``kind`` if ``needed_bytes`` would fill the disk of ``folder``, which may not exist."""
    while not folder.exists():
        folder = folder.parent
    free_bytes = shutil.disk_usage(folder).free
    if not needed_bytes or needed_bytes + SPARE_BYTES <= free_bytes:
        return
    raise kind(
        f"Too little disk space: {what} needs {needed_bytes / 1e6:,.1f} MB and "
        f"{SPARE_BYTES / 1e6:,.0f} MB to spare, {free_bytes / 1e6:,.1f} MB are free.",
        where=folder,
        fix=f"free some space, or {fix}",
    )


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically.

    Lone surrogates, as from a file name in another encoding, become escapes.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, payload: JsonObject, *, schema: Path | None = None) -> None:
    """Write JSON atomically, after checking it against ``schema``; refuse NaN and infinity."""
    _validate(payload, schema)
    write_text(path, json.dumps(payload, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path, *, made_by: str, schema: Path | None = None) -> JsonObject:
    """Read JSON and check it against ``schema``.

    Args:
        made_by: the command that makes the file, for the error message.

    Raises:
        UserError: the file is missing, is not valid JSON or does not match the schema.
    """
    try:
        payload: JsonObject = json.loads(path.read_text(encoding="utf-8"))
        _validate(payload, schema)
    except FileNotFoundError as error:
        raise UserError(
            f"{path.name} is not there.", where=path, fix=f"make it with: {made_by}"
        ) from error
    except jsonschema.ValidationError as error:
        # Only the message: the text of the error repeats the schema and the file.
        reason = reason_of(ValueError(error.message))
        raise _read_error(
            path, f"does not match its schema at {error.json_path}: {reason}", made_by
        ) from error
    except ValueError as error:
        raise _read_error(path, f"is not valid JSON: {error}", made_by) from error
    return payload


def _read_error(path: Path, problem: str, made_by: str) -> UserError:
    return UserError(f"{path.name} {problem}.", where=path, fix=f"make it again: {made_by}")


def _validate(payload: Any, schema: Path | None) -> None:
    if schema is not None:
        jsonschema.validate(payload, json.loads(schema.read_text(encoding="utf-8")))


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_tree(path: Path) -> str | None:
    """Hex SHA-256 of a file, or of a folder's names and contents; None if there is nothing."""
    if path.is_file():
        return sha256_file(path)
    if not path.is_dir():
        return None
    hashes = {}
    for file in path.rglob("*"):
        if file.is_file():
            hashes[file.relative_to(path).as_posix()] = sha256_file(file)
    return fingerprint(hashes)


def fingerprint(payload: Any) -> str:
    """Hex SHA-256 of a JSON value, independent of key order."""
    text = json.dumps(payload, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
