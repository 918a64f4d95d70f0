"""Finished chunks on disk: written whole, found again, never mixed with those of other settings."""

from __future__ import annotations

import dataclasses
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from utils.core.artifacts import atomic_path, fingerprint, read_json, sha256_file, write_json
from utils.core.errors import UserError
from utils.evaluation.batching import Indices
from utils.evaluation.predictor import Predictions

logger = logging.getLogger(__name__)

OURS = re.compile(r"^\.?rows-(?P<start>\d{12})-(?P<stop>\d{12})-[0-9a-f]{12}\.(parquet|json)")
"""Chunks, their figures, and what a killed run left of one that it was writing."""
LABEL_NAME = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema({
    "row_id": pa.int64(),
    "label_id": pa.int32(),
    "label": LABEL_NAME,
    "predicted_id": pa.int32(),
    "predicted_label": LABEL_NAME,
    "predicted_probability": pa.float32(),
    "num_tokens": pa.int32(),
})
"""Columns of a chunk. Names are dictionary-encoded: each is stored once a chunk, the rows hold small integers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkFigures:
    """What one chunk cost. Kept beside its predictions, so that these are the same bytes on every run.

    ``padded_tokens`` were computed, padding included; ``seconds`` are explained at ``evaluate_dataset``;
    ``gpu_util_pct`` stands for the last ``gpu_util_s`` seconds, which may hold earlier chunks that have none.
    """

    num_rows: int
    num_tokens: int
    padded_tokens: int
    num_truncated: int | None
    num_unknown_labels: int
    seconds: float
    gpu_mem_used_bytes: int | None
    peak_gpu_mem_bytes: int | None
    cpu_mem_used_bytes: int
    gpu_util_pct: float | None
    gpu_util_s: float
    gpu_warnings: tuple[str, ...]
    worker: str | None = None
    """Which worker of several made it; None where there was one process."""
    part: str | None = None
    """Which call of the evaluation that worker belonged to."""
    done_at_s: float | None = None
    """Unix time by the clock of the worker's machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredChunk:
    """A finished chunk as it was found on disk; a missing label has id -1."""

    figures: ChunkFigures
    label_ids: Indices
    predicted_ids: Indices


class ChunkStore:
    """The chunks of one run: predictions in ``folder``; figures, checksums and resolved settings in ``state_folder``.

    ``identity`` is everything that the predictions depend on, by setting; its fingerprint is in every name.
    ``label_names`` are written beside the ids, and belong to the identity.
    """

    def __init__(
        self, folder: Path, state_folder: Path, identity: dict[str, Any], label_names: Sequence[str] = ()
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
        self, start: int, label_ids: Indices, predictions: Predictions, num_tokens: Indices, figures: ChunkFigures
    ) -> None:
        """Write a chunk. It counts as finished once its figures are there too, which come last."""
        file = self.file(start, stop := start + len(label_ids))
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
        self.keep(self._record(file), {"sha256": sha256_file(file), **dataclasses.asdict(figures)})

    def _names_of(self, ids: Indices) -> pa.DictionaryArray:
        """The name of each id; null where the id is missing or has no name."""
        nameless = (ids < 0) | (ids >= len(self.label_names))
        return pa.DictionaryArray.from_arrays(pa.array(ids, type=pa.int32(), mask=nameless), self.label_names)

    def load(self, start: int, stop: int) -> StoredChunk | None:
        """A finished chunk; None where it is missing or damaged, and so must be computed."""
        file = self.file(start, stop)
        if (record := self.recall(self._record(file))) is None or not file.is_file():
            return None
        if sha256_file(file) != record.pop("sha256", None):
            logger.warning("%s is damaged (its checksum differs); it is computed again", file.name)
            return None
        table = pq.read_table(file, columns=["label_id", "predicted_id"])
        labels, predicted = (table[name].cast(pa.int64()).fill_null(-1).to_numpy() for name in table.column_names)
        return StoredChunk(figures=ChunkFigures(**record), label_ids=labels, predicted_ids=predicted)

    def limits(self) -> tuple[int | None, int | None]:
        """The batch limit that this run began with, and what the memory left of it; None where none is settled."""
        settled = self.recall("run.json") or {}
        return settled.get("first_limit", settled.get("limit")), settled.get("limit")

    def settle_limit(self, limit: int) -> None:
        """Remember the batch limit, so that a resumed run makes the same batches. Of several workers' the lowest counts."""
        first, lowest = self.limits()
        settled = {"first_limit": first or limit, "limit": min(lowest or limit, limit), "identity": self.identity}
        self.keep("run.json", settled)

    def changed_settings(self) -> list[str]:
        """Where only runs of other settings left chunks: what differs from the latest, as ``name: old -> new``."""
        if (self.state / "run.json").exists():
            return []
        others = sorted(self.all_states.glob("*/run.json"), key=lambda path: path.stat().st_mtime_ns)
        before = (self.recall(others[-1]) if others else None) or {"identity": self.identity}
        old, new = before["identity"], self.identity
        return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in {**old, **new} if old.get(key) != new.get(key)]

    def has(self, start: int, stop: int) -> bool:
        """Whether a chunk is finished and whole."""
        return self.load(start, stop) is not None

    def drop_all_but(self, total: int, chunk_rows: int) -> None:
        """Once a run of ``total`` rows is complete: remove every other chunk of ours and what is known of other runs."""
        for file in (file for folder in (self.folder, self.state) for file in folder.iterdir()):
            if not (ours := OURS.match(file.name)):
                continue
            start, stop = int(ours["start"]), int(ours["stop"])
            whole = start % chunk_rows == 0 and stop == min(start + chunk_rows, total)
            if not whole or file.stem != self.file(start, stop).stem:
                file.unlink()
        for state in set(self.all_states.iterdir()) - {self.state}:
            shutil.rmtree(state)

    def keep(self, name: str, payload: dict[str, Any]) -> None:
        """Remember something beside this run's chunks."""
        write_json(self.state / name, payload)

    def recall(self, name: str | Path) -> dict[str, Any] | None:
        """What was kept; None where it is missing or damaged, so that what it told is computed again."""
        try:
            return read_json(self.state / name, made_by="python scripts/02_baseline_inference.py")
        except UserError:
            return None

    @staticmethod
    def _record(file: Path) -> str:
        return f"{file.stem}.json"
