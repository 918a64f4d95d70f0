"""What a name on the Hugging Face hub resolves to: a commit and its files, or what is cached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import repo_folder_name

from utils.core.files import check_disk_space
from utils.hub.errors import HTTPError, hub_errors


class Resolved(NamedTuple):
    """A commit and the names of its files; ``from_cache`` where the hub does not answer and the cache alone is used."""

    commit: str
    from_cache: bool = False
    files: tuple[str, ...] = ()


def resolve(
    name: str,
    revision: str | None = None,
    kind: str = "model",
    wanted: Callable[[tuple[str, ...]], set[str]] = set,
) -> Resolved:
    """Ask the hub, or where it does not answer the cache, what a revision stands for; check that it fits on the disk.

    Args:
        kind: ``model`` or ``dataset``.
        wanted: of all names of files those that will be downloaded; by default all.

    Raises:
        UserError: no such repository or revision, no access, no hub and nothing cached, too little disk.
    """
    what = "data set" if kind == "dataset" else kind
    with hub_errors(what, name):
        folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)
        reference = folder / "refs" / (revision or "main")
        try:
            info: Any = HfApi().repo_info(
                name, repo_type=kind, revision=revision, files_metadata=True, timeout=30.0
            )
        except (OSError, HTTPError) as error:
            known = reference.read_text(encoding="utf-8") if reference.is_file() else revision or ""
            answered = isinstance(error, HfHubHTTPError) and error.response.status_code < 500
            if answered or not known or not (folder / "snapshots" / known).is_dir():
                raise
            snapshot = folder / "snapshots" / known
            cached_files = tuple(
                path.relative_to(snapshot).as_posix()
                for path in snapshot.rglob("*")
                if path.is_file()
            )
            return Resolved(commit=known, from_cache=True, files=cached_files)
        commit = str(info.sha)
        sizes = {f.rfilename: f.size or 0 for f in info.siblings or ()}
        names = tuple(sizes)
        downloads = wanted(names)
        files = {file: size for file, size in sizes.items() if file in downloads}
        cached = {
            f
            for f in files
            if isinstance(try_to_load_from_cache(name, f, revision=commit, repo_type=kind), str)
        }
        missing = sum(size for file, size in files.items() if file not in cached)
        move = "move the hub's cache to a larger disk with HF_HOME=PATH"
        check_disk_space(Path(constants.HF_HUB_CACHE), missing, f"the {what} {name}", fix=move)
        if (
            commit != revision
        ):  # what is fetched by commit leaves no trace of the branch, and offline we look for it
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(commit, encoding="utf-8")
    return Resolved(commit=commit, files=names)
