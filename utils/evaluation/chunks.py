"""Finished chunks on disk: complete or absent, and only loaded under the same settings."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from utils.core.errors import UserError
from utils.core.files import (
    JsonObject,
    atomic_path,
    fingerprint,
    read_json,
    sha256_file,
    write_json,
)
from utils.evaluation.batching import Indices
from utils.evaluation.predictions import Predictions
from utils.schema.chunk import CHUNK_FILE_RE, ChunkRecord, ChunkStats, convert_chunk_record

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
STEP_COMMAND = "python scripts/02_baseline_inference.py"
LABEL_NAME = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    {
        "row_id": pa.int64(),
        "label_id": pa.int32(),
        "label": LABEL_NAME,
        "predicted_id": pa.int32(),
        "predicted_label": LABEL_NAME,
        "predicted_probability": pa.float32(),
        "num_tokens": pa.int32(),
    }
)
"""Columns of a chunk. Label names are dictionary-encoded: a chunk stores each once, its rows hold
small integers.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredChunk:
    """A finished chunk as it was read from disk; a missing label has id -1."""

    stats: ChunkStats
    label_ids: Indices
    predicted_ids: Indices


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLimits:
    """The batch limit that a run began with and the lowest that memory left of it; None where none
    is chosen yet.
    """

    initial: int | None = None
    lowest: int | None = None


class ChunkStore:
    """The chunks of one run: predictions in ``folder``; stats, checksums and chosen limits in
    ``state_folder``.

    ``identity`` is everything that the predictions depend on, by setting; its fingerprint is in
    every name. ``label_names`` are written beside the ids, and belong to the identity.
    """

    def __init__(
        self,
        folder: Path,
        state_folder: Path,
        identity: JsonObject,
        label_names: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.label_names = pa.array(label_names, type=pa.string())
        self.identity = identity
        self.fingerprint = fingerprint(identity)[:12]
        self.all_states = state_folder
        self.state = state_folder / self.fingerprint

    def file(self, start: int, stop: int) -> Path:
        """The chunk of rows ``start`` up to, not including, ``stop``; names sort in file order."""
        return self.folder / f"rows-{start:012d}-{stop:012d}-{self.fingerprint}.parquet"

    def save(
        self,
        start: int,
        label_ids: Indices,
        predictions: Predictions,
        num_tokens: Indices,
        stats: ChunkStats,
    ) -> None:
        """Write a chunk. It counts as finished once its stats are there too, which are written
        last.
        """
        stop = start + len(label_ids)
        file = self.file(start, stop)
        columns = {
            "row_id": np.arange(start, stop),
            "label_id": pa.array(label_ids, type=pa.int64(), mask=label_ids < 0),
            "label": self._names_of(label_ids),
            "predicted_id": predictions.predicted_ids,
            "predicted_label": self._names_of(predictions.predicted_ids),
            "predicted_probability": predictions.probabilities,
            "num_tokens": num_tokens,
        }
        arrays = [pa.array(columns[field.name]).cast(field.type) for field in SCHEMA]
        with atomic_path(file) as temporary:
            pq.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), temporary)
        record = ChunkRecord(sha256=sha256_file(file), **dict(stats))
        self.write_state(_record_name(file), record.to_dict())

    def _names_of(self, ids: Indices) -> pa.DictionaryArray:
        """The name of each id; null where the id is missing or has no name."""
        is_nameless = (ids < 0) | (ids >= len(self.label_names))
        indices = pa.array(ids, type=pa.int32(), mask=is_nameless)
        return pa.DictionaryArray.from_arrays(indices, self.label_names)

    def load(self, start: int, stop: int) -> StoredChunk | None:
        """A finished chunk; None where it is missing or damaged, and must be computed."""
        file = self.file(start, stop)
        record = self._read_chunk_record(_record_name(file))
        if record is None or not file.is_file():
            return None
        if sha256_file(file) != record.sha256:
            logger.warning("%s is damaged (its checksum differs); it is computed again", file.name)
            return None
        table = pq.read_table(file, columns=["label_id", "predicted_id"])
        return StoredChunk(
            stats=record.stats,
            label_ids=_to_ids(table["label_id"]),
            predicted_ids=_to_ids(table["predicted_id"]),
        )

    def _read_chunk_record(self, name: str) -> ChunkRecord | None:
        """The record of a chunk; None where it is missing or damaged."""
        payload = self.read_state(name)
        if not isinstance(payload, dict):
            return None
        content = json.dumps(convert_chunk_record(payload))
        try:
            # Fields of other versions of this program are left out.
            return ChunkRecord.model_validate_json(content, extra="ignore")
        except ValidationError:
            return None

    def has(self, start: int, stop: int) -> bool:
        """Whether a chunk is finished and undamaged."""
        return self.load(start, stop) is not None

    def limits(self) -> BatchLimits:
        """The batch limits of this run, as far as they are chosen."""
        record = self.read_state(RUN_FILE) or {}
        lowest = record.get("limit")
        return BatchLimits(initial=record.get("first_limit", lowest), lowest=lowest)

    def save_batch_limit(self, limit: int) -> None:
        """Save the batch limit, so that a resumed run makes the same batches. Of several workers'
        the lowest counts.
        """
        saved = self.limits()
        record = {
            "first_limit": saved.initial or limit,
            "limit": min(saved.lowest or limit, limit),
            "identity": self.identity,
        }
        self.write_state(RUN_FILE, record)

    def changed_settings(self) -> list[str]:
        """Where only runs of other settings left chunks: what differs from the latest, as ``name:
        old -> new``.
        """
        if (self.state / RUN_FILE).exists():
            return []
        others = list(self.all_states.glob(f"*/{RUN_FILE}"))
        if not others:
            return []
        latest = max(others, key=lambda path: path.stat().st_mtime_ns)
        record = self.read_state(latest)
        if record is None:
            return []
        old, new = record["identity"], self.identity
        changes = []
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                changes.append(f"{key}: {old.get(key)} -> {new.get(key)}")
        return changes

    def count_other_rows(self) -> int:
        """Predictions in place that are of other settings, data or libraries."""
        if not self.folder.is_dir():
            return 0
        num_rows = 0
        for file in self.folder.glob("rows-*.parquet"):
            match = CHUNK_FILE_RE.match(file.name)
            if match is not None and match["fingerprint"] != self.fingerprint:
                num_rows += int(match["stop"]) - int(match["start"])
        return num_rows

    def delete_other_chunks(self, num_rows: int, chunk_rows: int) -> None:
        """Once a run is complete: delete every other chunk of this program and what is known of
        other runs.

        Args:
            num_rows: rows of the complete run.
            chunk_rows: rows of each of its chunks but the last, which may have fewer.
        """
        for folder in (self.folder, self.state):
            for file in folder.iterdir():
                match = CHUNK_FILE_RE.match(file.name)
                if match is None:
                    continue
                start, stop = int(match["start"]), int(match["stop"])
                expected_stop = min(start + chunk_rows, num_rows)
                is_of_this_run = file.stem == self.file(start, stop).stem
                if start % chunk_rows != 0 or stop != expected_stop or not is_of_this_run:
                    file.unlink()
        for state in self.all_states.iterdir():
            if state != self.state:
                shutil.rmtree(state)

    def write_state(self, name: str, payload: JsonObject) -> None:
        """Save something beside this run's chunks."""
        write_json(self.state / name, payload)

    def read_state(self, name: str | Path) -> JsonObject | None:
        """What was saved; None where it is missing or damaged, so that it is computed again."""
        try:
            return read_json(self.state / name, made_by=STEP_COMMAND)
        except UserError:
            return None


def _record_name(file: Path) -> str:
    """Name of the file that holds a chunk's stats and checksum."""
    return f"{file.stem}.json"


def _to_ids(column: pa.ChunkedArray) -> Indices:
    """Ids as integers; -1 where one is missing."""
    ids: Indices = column.cast(pa.int64()).fill_null(-1).to_numpy()
    return ids
