"""The names of all files, and how they are written so that none is ever half there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

from utils.core.errors import UserError, reason_of

PROJECT_ROOT = Path(__file__).resolve().parents[2]
METRICS_SCHEMA = PROJECT_ROOT / "configs" / "baseline_metrics.schema.json"
SCHEMA_VERSION = 2
SPARE_BYTES = 100 * 10**6  # disk to leave free: the results and the system need some too


def _below(path: str) -> Any:
    """A path below ``results_dir``."""
    return property(lambda files: files.results_dir / path)


@dataclass(frozen=True, kw_only=True)
class ResultFiles:
    """Where every result of one run lies."""

    results_dir: Path
    metrics: Path
    detailed_metrics: Path

    summary_report = _below("baseline_summary_report.txt")
    html_report = _below("report.html")
    predictions_dir = _below("predictions")
    plots_dir = _below("plots")
    comparison_plot = _below("plots/batch_size_comparison.png")
    heatmap_plot = _below("plots/metrics_heatmap.png")
    traces_dir = _below("profiler_traces")
    stacks = _below("profiler_traces/stacks.txt")
    operators = _below("profiler_traces/operators.csv")
    layers = _below("profiler_traces/layers.csv")
    kernels = _below("profiler_traces/kernels.csv")
    memory = _below("profiler_traces/memory.csv")
    flame_graph = _below("profiler_traces/flamegraph.svg")
    bottlenecks = _below("bottlenecks.json")
    ceilings = _below("ceilings.json")
    gpu_timeline = _below("gpu_timeline.csv")
    logs_dir = _below("logs")
    state_dir = _below(".state")  # what the steps remember between runs: finished steps, the sweep's rows
    lock = _below(".state/lock")

    @property
    def trace(self) -> Path:
        """``trace.json``, or ``trace.json.gz`` where a large one was written compressed."""
        packed = self.traces_dir / "trace.json.gz"
        return packed if packed.exists() else self.traces_dir / "trace.json"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; move it into place (rename(2) is atomic) when the block ends without an error.

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
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def cannot_write(path: Path, error: OSError) -> UserError:
    """The error for a file or folder that cannot be written."""
    fix = "free disk space, make the folder writable, or choose another with --set output.results_dir=PATH"
    return UserError(f"Cannot write {path.name}: {error.strerror or error}.", where=path, fix=fix)


def check_disk_space(folder: Path, needed_bytes: int, what: str, *, fix: str, kind: type[UserError] = UserError) -> None:
    """Refuse with ``kind`` what would fill the disk of ``folder``, which may not be there yet."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed_bytes and needed_bytes + SPARE_BYTES > free:
        needs = f"needs {needed_bytes / 1e6:,.1f} MB and {SPARE_BYTES / 1e6:,.0f} MB to spare, {free / 1e6:,.1f} MB are free"
        raise kind(f"Too little disk: {what} {needs}.", where=folder, fix=f"free some space, or {fix}")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically. Half characters, as of a file name in another encoding, become escapes."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, payload: dict[str, Any], *, schema: Path | None = None) -> None:
    """Write JSON atomically, after checking it against ``schema``. NaN and infinity are refused."""
    _validate(payload, schema)
    write_text(path, json.dumps(payload, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path, *, made_by: str, schema: Path | None = None) -> dict[str, Any]:
    """Read JSON and check it against ``schema``. UserError names ``made_by``, the command that makes the file."""
    try:
        payload: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _validate(payload, schema)
    except FileNotFoundError as error:
        raise UserError(f"{path.name} is not there.", where=path, fix=f"make it with: {made_by}") from error
    except (ValueError, jsonschema.ValidationError) as error:
        wrong = f"is not valid JSON: {error}"
        if isinstance(error, jsonschema.ValidationError):
            # Only the message: the text of the whole error repeats the schema and the file.
            wrong = f"does not fit its schema at {error.json_path}: {reason_of(ValueError(error.message))}"
        raise UserError(f"{path.name} {wrong}.", where=path, fix=f"make it anew: {made_by}") from error
    return payload


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
    """Hex SHA-256 of a file, or of a folder's names and contents; None where there is nothing."""
    if not path.is_dir():
        return sha256_file(path) if path.is_file() else None
    return fingerprint({p.relative_to(path).as_posix(): sha256_file(p) for p in path.rglob("*") if p.is_file()})


def fingerprint(payload: Any) -> str:
    """Hex SHA-256 of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(payload, sort_keys=True, default=str).encode()).hexdigest()
