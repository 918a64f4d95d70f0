"""The record beside each chunk of predictions: what the chunk cost, and its checksum."""

from __future__ import annotations

import re
from typing import Literal

from utils.core.files import JsonObject
from utils.schema.common import Record, optional, required, text

CHUNK_VERSION: Literal[1] = 1
"""Raise it when a field changes its name or meaning, and convert older files here."""
CHUNK_FILE_RE = re.compile(
    r"^\.?rows-(?P<start>\d{12})-(?P<stop>\d{12})-(?P<fingerprint>[0-9a-f]{12})\.(parquet|json)"
)
"""Chunks, their stats, and what a killed run left of a file that it was writing."""
FORMER_COMPUTED_TOKENS = "padded_tokens"
"""The name of ``ChunkStats.computed_tokens`` in chunks of earlier versions, which still load."""


class ChunkStats(Record):
    """What one chunk cost. Stored beside its predictions, so that these are the same bytes on every
    run.
    """

    num_rows: int = text("Rows of the chunk.")
    num_tokens: int = text("Tokens without padding.")
    computed_tokens: int = text("Tokens that were computed, padding included.")
    num_truncated: int | None = text("Texts that `max_length` truncated; null is not known.")
    num_unknown_labels: int = text("Rows with a label that the model does not know.")
    seconds: float = required("s", "Time of the chunk, as `evaluate_dataset` explains it.")
    gpu_mem_used_bytes: int | None = text("Memory that PyTorch has allocated on the GPU.")
    peak_gpu_mem_bytes: int | None = text("The most that it had allocated at once.")
    cpu_mem_used_bytes: int = text("Memory of the process.")
    gpu_util_pct: float | None = text("Utilisation of the GPU over `gpu_util_s`.")
    gpu_util_s: float = required(
        "s",
        "The seconds that the utilisation stands for. They end with the chunk and may include "
        "earlier chunks that have none.",
    )
    gpu_util_reason: str | None = optional("Why there is no utilisation.")
    worker: str | None = optional(
        "Which of several workers made the chunk; null where there was one process."
    )
    invocation_id: str | None = optional("Which call of the evaluation that worker belonged to.")
    done_at_s: float | None = optional(
        "Unix time at the end, by the clock of the worker's machine.", unit="s"
    )


class ChunkRecord(ChunkStats):
    """The content of the file: the stats, and the checksum of the predictions."""

    schema_version: Literal[1] = optional(
        "Version of this file's format. Files of version 1 may lack it.", default=CHUNK_VERSION
    )
    sha256: str = text("Checksum of the Parquet file.")

    @property
    def stats(self) -> ChunkStats:
        """The stats alone."""
        values = {name: getattr(self, name) for name in ChunkStats.model_fields}
        return ChunkStats(**values)


def convert_chunk_record(payload: JsonObject) -> JsonObject:
    """The content of a chunk's file in the present form."""
    converted = dict(payload)
    if FORMER_COMPUTED_TOKENS in converted:
        converted["computed_tokens"] = converted.pop(FORMER_COMPUTED_TOKENS)
    return converted
