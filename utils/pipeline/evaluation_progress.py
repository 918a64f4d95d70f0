"""How far the evaluation is, by the files that it writes for each chunk."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import ValidationError

from utils.core.files import write_text
from utils.core.result_files import ResultFiles
from utils.pipeline.durations import duration_text
from utils.schema.chunk import CHUNK_FILE_RE
from utils.schema.run_status import EvaluationProgress

PROGRESS_FILE = "evaluation_progress.json"


def start_progress(files: ResultFiles, fingerprint: str, num_rows: int) -> None:
    """Save that an evaluation starts, and how many of its rows are predicted already."""
    progress = EvaluationProgress(
        fingerprint=fingerprint,
        num_rows=num_rows,
        num_rows_in_place=_count_rows(_chunk_records(files, fingerprint), num_rows),
        started_unix_s=time.time(),
    )
    write_text(_progress_file(files), progress.model_dump_json())


def progress_lines(files: ResultFiles, since_unix_s: float) -> list[str]:
    """Rows done of all, their rate, and the time left; nothing where no evaluation started.

    Args:
        since_unix_s: an evaluation that started before is not the one at work.
    """
    try:
        content = _progress_file(files).read_bytes()
        progress = EvaluationProgress.model_validate_json(content, extra="ignore")
    except (OSError, ValidationError):
        return []
    if progress.started_unix_s < since_unix_s:
        return []
    records = _chunk_records(files, progress.fingerprint)
    num_done = _count_rows(records, progress.num_rows)
    line = f"     evaluation: {num_done:,} of {progress.num_rows:,} rows"
    num_new = num_done - progress.num_rows_in_place
    if num_new <= 0:
        return [f"{line}, no new chunk is finished yet"]
    # A chunk that is being made is no reason for a lower rate.
    spent_s = max(records.values()) - progress.started_unix_s
    if spent_s <= 0:
        return [line]
    rows_per_s = num_new / spent_s
    line += f", {rows_per_s:,.0f} rows/s"
    num_left = progress.num_rows - num_done
    if num_left:
        line += f", about {duration_text(num_left / rows_per_s)} left"
    return [line]


def _chunk_records(files: ResultFiles, fingerprint: str) -> dict[str, float]:
    """When the record of each finished chunk was written, as Unix time, by its name."""
    folder: Path = files.chunk_records_dir / fingerprint
    times = {}
    for file in folder.glob("rows-*.json"):
        times[file.name] = file.stat().st_mtime
    return times


def _count_rows(names: dict[str, float], num_rows: int) -> int:
    """The rows of these chunks among the first ``num_rows``."""
    # A last chunk of another length may lie over a complete one.
    stops: dict[int, int] = {}
    for name in names:
        match = CHUNK_FILE_RE.match(name)
        if match is None:
            continue
        start = int(match["start"])
        stops[start] = max(min(int(match["stop"]), num_rows), stops.get(start, start))
    return sum(stop - start for start, stop in stops.items())


def _progress_file(files: ResultFiles) -> Path:
    path: Path = files.state_dir / PROGRESS_FILE
    return path
