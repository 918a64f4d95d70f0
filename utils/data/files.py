"""The local files that ``dataset.hf_name`` names."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path

from utils.core.errors import DataError
from utils.core.paths import project_path, source_files
from utils.data.formats import ENDINGS, FIX_KIND, file_kind
from utils.data.hints import setting_flag
from utils.schema.dataset import Origin
from utils.settings import EMBEDDED

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
SAVED_MARKS = ("dataset_dict.json", "state.json")
"""Files that ``save_to_disk`` of the datasets library leaves in a folder."""
METADATA_NAMES = {
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "label_mappings.json",
    "package.json",
}
SHARD_NUMBER = re.compile(r"[0-9a-f]{8,}|[0-9]+")
"""What the names of the parts of one file differ in: numbers, and hashes as the hub has them."""
MAX_SHOWN = 8
FIX_TARGET = "write the data set to a place of its own: --set dataset.local_path=PATH"


def origin_of(name: str) -> Origin:
    """What kind of source ``dataset.hf_name`` names; what is no local path is a name on the hub."""
    if name == EMBEDDED:
        return "embedded"
    path = project_path(name)
    if path.is_dir():
        if any((path / mark).is_file() for mark in SAVED_MARKS):
            return "saved"
        return "folder"
    looks_like_path = name.startswith(("/", "./", "../", "~")) or "*" in name or "?" in name
    looks_like_file = name.lower().removesuffix(".gz").endswith(tuple(ENDINGS))
    if path.exists() or source_files(name) or looks_like_path or looks_like_file:
        return "files"
    return "hub"


def find_files(name: str, split: str, embedded_dir: Path) -> list[Path]:
    """The files to read, in the order of their names.

    Args:
        name: ``dataset.hf_name``.
        split: which split to take from a folder with several.
        embedded_dir: the folder of the embedded corpus.

    Raises:
        DataError: there are none, they are of several kinds, or a folder has files of other splits
            only.
    """
    origin = origin_of(name)
    if origin == "embedded":
        return [embedded_dir / "corpus_eval.parquet"]
    place = project_path(name)
    files = source_files(name)
    if not files:
        what = "There is no such data file."
        if origin == "folder":
            what = "There are no data files in this folder."
        raise DataError(what, where=place, fix=FIX_KIND)
    if len(files) == 1 and origin == "files":
        return files
    known = []
    for file in files:
        if file_kind(file) is not None and not _is_metadata(file, place):
            known.append(file)
    if not known:
        raise DataError(
            f"None of these files can be read: {_names(files)}.", where=place, fix=FIX_KIND
        )
    if origin == "folder":
        known = _files_of_split(known, place, split)
    _check_one_kind(known, place)
    return known


def warn_about_file_names(name: str, files: Sequence[Path]) -> tuple[str, ...]:
    """A warning if the files that were found in a folder are not evidently parts of one.

    Args:
        name: ``dataset.hf_name``.
    """
    if origin_of(name) != "folder":
        return ()
    stems = {SHARD_NUMBER.sub("", file.name.lower()) for file in files}
    if len(stems) < 2:
        return ()
    return (
        f"{len(files)} files of the folder are read as one data set, although their names differ: "
        f"{_names(files)}",
    )


def _check_one_kind(known: Sequence[Path], place: Path) -> None:
    """Refuse files of several kinds (DataError)."""
    kinds = sorted({str(file_kind(file)) for file in known})
    if len(kinds) > 1:
        raise DataError(
            f"These files are of several kinds ({', '.join(kinds)}), so they are not one data "
            f"set: {_names(known)}.",
            where=place,
            fix="name one file, or a pattern that matches files of one kind: --set "
            "dataset.hf_name=FOLDER/*.csv",
        )


def refuse_target_in_source(name: str, outputs: Sequence[Path]) -> None:
    """Refuse to write where the source is read, also by another name or by a link.

    Args:
        name: ``dataset.hf_name``.
        outputs: the files that step 01 writes.

    Raises:
        DataError: an output is a file of the source, or would become one.
    """
    origin = origin_of(name)
    if origin in ("hub", "embedded"):
        return
    place = project_path(name)
    sources = source_files(name)
    for output in outputs:
        same = any(_is_same(output, source) for source in sources)
        inside = origin in ("folder", "saved") and output.is_relative_to(place)
        matched = any(mark in name for mark in "*?[") and fnmatch.fnmatch(str(output), str(place))
        if same or inside or matched:
            raise DataError(
                "Step 01 would overwrite or extend its own source: dataset.hf_name and "
                "dataset.local_path overlap.",
                where=f"{output} (source: {place})",
                fix=FIX_TARGET,
            )


def _is_same(output: Path, source: Path) -> bool:
    return output == source or (output.exists() and source.exists() and output.samefile(source))


def _is_metadata(file: Path, folder: Path) -> bool:
    """Whether a file describes the data set, or is in a hidden folder such as a cache."""
    parts: tuple[str, ...] = (file.name,)
    if file.is_relative_to(folder):
        parts = file.relative_to(folder).parts
    return file.name.lower() in METADATA_NAMES or any(part.startswith((".", "_")) for part in parts)


def _files_of_split(files: list[Path], folder: Path, split: str) -> list[Path]:
    """The files whose names or folders name the split; all files if no name contains a split."""
    canonical = SPLIT_WORDS.get(split.lower(), split.lower())
    splits = {file: _split_of(file.relative_to(folder), split) for file in files}
    named = sorted({name for name in splits.values() if name is not None})
    if not named:
        return files
    chosen = [file for file in files if splits[file] == canonical]
    if not chosen:
        raise DataError(
            f"The folder has no files of the split {split!r}, only of "
            f"{', '.join(map(repr, named))}.",
            where=folder,
            fix=f"{setting_flag('dataset.split', named[0])}, or name a file: --set "
            "dataset.hf_name=PATH",
        )
    return chosen


def _split_of(relative: Path, split: str) -> str | None:
    """The split that a file's own name, or else one of its folders, names."""
    for part in reversed(relative.parts):
        stem = part.split(".")[0].lower()
        if stem == split.lower():
            return SPLIT_WORDS.get(stem, stem)
        for word in re.split(r"[^a-z]+", stem):
            if word in SPLIT_WORDS:
                return SPLIT_WORDS[word]
    return None


def _names(files: Sequence[Path]) -> str:
    shown = ", ".join(file.name for file in files[:MAX_SHOWN])
    if len(files) > MAX_SHOWN:
        shown += f" and {len(files) - MAX_SHOWN} more"
    return shown
