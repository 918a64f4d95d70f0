"""Failures of the Hugging Face hub as errors that a user can act on."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.errors import CacheNotFound, HfHubHTTPError

from utils.core.errors import UserError

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
