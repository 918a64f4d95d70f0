"""The Hugging Face hub: what a name resolves to, what is cached, and its failures as errors that a user can act on."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, constants, scan_cache_dir, try_to_load_from_cache
from huggingface_hub.errors import CacheNotFound, HfHubHTTPError
from huggingface_hub.file_download import repo_folder_name

from utils.core.errors import UserError
from utils.core.files import check_disk_space

# The HTTP library's own base error; huggingface_hub derives from it, whichever library and version it uses.
HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]

CUT_ERRORS = {
    "RemoteProtocolError",
    "ReadError",
    "ReadTimeout",
    "WriteError",
    "ChunkedEncodingError",
    "IncompleteRead",
}
CUT_WORDS = (
    "Consistency check failed",
    "Data processing error",
)  # http_get's size check, hf_xet: no types of their own
OFFLINE_ERRORS = {"TransportError", "ConnectionError", "TimeoutError", "LocalEntryNotFoundError"}
NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}


class Resolved(NamedTuple):
    """A commit and the names of its files; ``from_cache`` where the hub does not answer and the cache alone is used."""

    commit: str
    from_cache: bool = False
    files: tuple[str, ...] = ()


@contextmanager
def hub_errors(what: str, name: str, kind: type[UserError] = UserError) -> Iterator[None]:
    """Turn what the hub's libraries raise into ``kind``; other errors pass unchanged.

    Args:
        what: ``model``, ``data set``, ``adapter`` or ``tokenizer``, as the message calls it.
        name: the hub's id.

    Raises:
        UserError: unreachable, refused (401, 403), not there (404), cut off, or no room on the disk.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError, HTTPError) as error:
        message = explain(error, what, name)
        if message is None:
            raise
        raise kind(message[0], where=f"{name} at {constants.ENDPOINT}", fix=message[1]) from error


def explain(error: BaseException, what: str, name: str) -> tuple[str, str] | None:
    """What is wrong and what to do, or None where ``error`` does not come from the hub.

    transformers and datasets wrap the hub's error in one of their own, so the chain of causes decides.
    """
    chain = _chain(error)
    codes = {e.errno for e in chain if isinstance(e, OSError)}
    types = {t.__name__ for e in chain for t in type(e).__mro__}
    cache = str(constants.HF_HUB_CACHE)
    if codes & {errno.ENOSPC, errno.EDQUOT}:
        return (
            f"The disk is full: no room for the {what}.",
            f"free some space, or move {cache} with HF_HOME=PATH",
        )
    if any(isinstance(e, OSError) and e.errno in NOT_WRITABLE and cache in str(e) for e in chain):
        return (
            f"The hub's cache cannot be written: {cache}.",
            "make it writable, or move the cache with HF_HOME=PATH",
        )
    if "HFValidationError" in types:
        return (
            f"{name!r} is neither an existing local path nor a valid name on the hub.",
            "correct the path, or write owner/name",
        )
    statuses = [
        e.response.status_code
        for e in chain
        if isinstance(e, HfHubHTTPError) and e.response is not None
    ]
    if statuses or "DatasetNotFoundError" in types and not types & (CUT_ERRORS | OFFLINE_ERRORS):
        return _refusal(types, statuses[-1] if statuses else 404, what, name)
    if types & CUT_ERRORS or any(words in str(e) for e in chain for words in CUT_WORDS):
        fix = (
            "run the same command again: files that are complete are kept, it goes on with the rest"
        )
        return f"The download of the {what} was cut off.", fix
    if types & OFFLINE_ERRORS:
        why = (
            "HF_HUB_OFFLINE is set"
            if constants.HF_HUB_OFFLINE
            else "check the network and HF_ENDPOINT"
        )
        return (
            f"The hub cannot be reached, and the {what} is not in the local cache.",
            f"{why}; {usable(what)}",
        )
    return None


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from, outermost first."""
    chain: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in chain:
        chain.append(step)
        step = step.__cause__ or (None if step.__suppress_context__ else step.__context__)
    return chain


def _refusal(types: set[str], status: int, what: str, name: str) -> tuple[str, str]:
    """The hub answered, with an HTTP status that is an error."""
    if status in (401, 403):
        fix = f"log in with `hf auth login` or set HF_TOKEN; ask for access at {constants.ENDPOINT}/{name}"
        return (
            f"The hub refuses access to the {what} (HTTP {status}): private, gated, or of another name.",
            fix,
        )
    if "RevisionNotFoundError" in types:
        return (
            f"The {what} has no such revision (HTTP 404).",
            "name a commit, tag or branch that exists, or null",
        )
    if status == 404 and "EntryNotFoundError" in types:
        return (
            f"The {what}'s repository lacks a file (HTTP 404).",
            "check on the hub which files it has",
        )
    if status == 404:
        return (
            f"There is no such {what} on the hub (HTTP 404), and no such local folder.",
            "check the name's spelling",
        )
    return (
        f"The hub answered with an error (HTTP {status}).",
        "try again later, see https://status.huggingface.co",
    )


def usable(what: str) -> str:
    """What can be used without the hub, as part of a message: cached data sets, and models whose weights are there."""
    kind, key = ("dataset", "dataset.hf_name") if what == "data set" else ("model", "model.name")
    try:
        repos = [repo for repo in scan_cache_dir().repos if repo.repo_type == kind]
    except CacheNotFound:
        repos = []
    files = {
        repo: {file.file_name for revision in repo.revisions for file in revision.files}
        for repo in repos
    }
    whole = [
        repo
        for repo in repos
        if any(kind == "dataset" or name.endswith((".safetensors", ".bin")) for name in files[repo])
    ]
    names = sorted(f"{repo.repo_id} ({repo.size_on_disk / 1e6:,.1f} MB)" for repo in whole)
    listed = (
        f"cached and usable, with --set {key}=NAME: {', '.join(names)}"
        if names
        else f"no {kind} is cached"
    )
    return (
        f"{listed} (in {constants.HF_HUB_CACHE}); or run without a hub: --config configs/demo.yaml"
    )


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
