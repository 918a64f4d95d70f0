"""What a name on the Hugging Face hub resolves to: a commit and its files, or what is cached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import repo_folder_name

from utils.core.files import check_disk_space
from utils.hub.errors import HTTPError, hub_errors

TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedRepo:
    """A commit and the names of its files.

    Args:
        from_cache: the hub did not answer, and only the local cache is used.
    """

    commit: str
    from_cache: bool = False
    files: tuple[str, ...] = ()


def resolve(
    name: str,
    revision: str | None = None,
    kind: str = "model",
    select: Callable[[tuple[str, ...]], set[str]] = set,
) -> ResolvedRepo:
    """Ask the hub, or the cache if the hub does not answer, which commit a revision stands for.

    Checks that what will be downloaded fits on the disk.

    Args:
        kind: ``model`` or ``dataset``.
        select: from all names of files those that will be downloaded; by default all.

    Raises:
        UserError: no such repository or revision, no access, neither hub nor cache, or too little
            disk space.
    """
    what = kind
    if kind == "dataset":
        what = "data set"
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)
    with hub_errors(what, name):
        try:
            info: Any = HfApi().repo_info(
                name, repo_type=kind, revision=revision, files_metadata=True, timeout=TIMEOUT_S
            )
        except (OSError, HTTPError) as error:
            cached = None
            if not _was_refused(error):
                cached = _resolve_in_cache(folder, revision)
            if cached is None:
                raise
            return cached
        commit = str(info.sha)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        selected = select(tuple(sizes))
        missing = [
            file for file in selected & sizes.keys() if not _is_cached(name, file, commit, kind)
        ]
        _check_space(sum(sizes[file] for file in missing), f"the {what} {name}")
        if commit != revision:
            _record_reference(folder, revision, commit)
    return ResolvedRepo(commit=commit, files=tuple(sizes))


def _check_space(missing_bytes: int, what: str) -> None:
    fix = "move the hub's cache to a larger disk with HF_HOME=PATH"
    check_disk_space(Path(constants.HF_HUB_CACHE), missing_bytes, what, fix=fix)


def _is_cached(name: str, file: str, commit: str, kind: str) -> bool:
    path = try_to_load_from_cache(name, file, revision=commit, repo_type=kind)
    return isinstance(path, str)


def _was_refused(error: Exception) -> bool:
    """Whether the hub answered, other than with a failure of its own."""
    return isinstance(error, HfHubHTTPError) and error.response.status_code < 500


def _reference_file(folder: Path, revision: str | None) -> Path:
    """The file of the cache that names the commit of a branch or tag."""
    return folder / "refs" / (revision or "main")


def _resolve_in_cache(folder: Path, revision: str | None) -> ResolvedRepo | None:
    """The commit that the cache has for a revision, or None."""
    reference = _reference_file(folder, revision)
    commit = revision
    if reference.is_file():
        commit = reference.read_text(encoding="utf-8")
    if not commit:
        return None
    snapshot = folder / "snapshots" / commit
    if not snapshot.is_dir():
        return None
    files = []
    for path in snapshot.rglob("*"):
        if path.is_file():
            files.append(path.relative_to(snapshot).as_posix())
    return ResolvedRepo(commit=commit, from_cache=True, files=tuple(files))


def _record_reference(folder: Path, revision: str | None, commit: str) -> None:
    """Save the commit of a branch for offline use; downloads by commit do not save it."""
    reference = _reference_file(folder, revision)
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit, encoding="utf-8")
