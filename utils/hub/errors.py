"""Failures of the Hugging Face hub as errors that a user can act on."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.errors import CacheNotFound, HfHubHTTPError

from utils.core.errors import UserError

# The HTTP library's own base error, which depends on the version of huggingface_hub.
HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]

INTERRUPTED_DOWNLOAD = {
    "RemoteProtocolError",
    "ReadError",
    "ReadTimeout",
    "WriteError",
    "ChunkedEncodingError",
    "IncompleteRead",
}
"""Names of the errors of a connection that breaks during a download."""
INTERRUPTED_MESSAGES = ("Consistency check failed", "Data processing error")
"""Messages for the same without an error class: of a file's size, and of hf_xet."""
OFFLINE_ERRORS = {"TransportError", "ConnectionError", "TimeoutError", "LocalEntryNotFoundError"}
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}
WEIGHT_ENDINGS = (".safetensors", ".bin")


@dataclass(frozen=True, kw_only=True, slots=True)
class HubProblem:
    """What is wrong with the hub or its cache, and what to do about it."""

    message: str
    fix: str


@contextmanager
def hub_errors(what: str, name: str, kind: type[UserError] = UserError) -> Iterator[None]:
    """Turn what the hub's libraries raise into ``kind``; other errors pass unchanged.

    Args:
        what: ``model``, ``data set``, ``adapter`` or ``tokenizer``, as the message calls it.
        name: the hub's id.

    Raises:
        UserError: unreachable, refused (401, 403), nonexistent (404), interrupted, or no room on
            the disk.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError, HTTPError) as error:
        problem = translate_hub_error(error, what, name)
        if problem is None:
            raise
        where = f"{name} at {constants.ENDPOINT}"
        raise kind(problem.message, where=where, fix=problem.fix) from error


def translate_hub_error(error: BaseException, what: str, name: str) -> HubProblem | None:
    """What is wrong and what to do, or None if ``error`` does not come from the hub.

    transformers and datasets wrap the hub's error in one of their own, so the chain of causes
    decides.
    """
    chain = _causes(error)
    types = {cls.__name__ for cause in chain for cls in type(cause).__mro__}
    problem = _disk_problem(chain, what)
    if problem is not None:
        return problem
    if "HFValidationError" in types:
        return HubProblem(
            message=f"{name!r} is neither an existing local path nor a valid name on the hub.",
            fix="correct the path, or write owner/name",
        )
    status = _http_status(chain)
    no_connection = types & (INTERRUPTED_DOWNLOAD | OFFLINE_ERRORS)
    if status is None and "DatasetNotFoundError" in types and not no_connection:
        status = 404
    if status is not None:
        return _http_problem(types, status, what, name)
    if types & INTERRUPTED_DOWNLOAD or _has_interrupted_message(chain):
        return HubProblem(
            message=f"The download of the {what} was interrupted.",
            fix="run the same command again: complete files are kept, and it continues with the "
            "rest",
        )
    if types & OFFLINE_ERRORS:
        return _offline_problem(what)
    return None


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from, outermost first."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        following = cause.__cause__
        if following is None and not cause.__suppress_context__:
            following = cause.__context__
        cause = following
    return chain


def _disk_problem(chain: list[BaseException], what: str) -> HubProblem | None:
    """A disk that is full, or a cache that cannot be written."""
    cache = str(constants.HF_HUB_CACHE)
    for cause in chain:
        if not isinstance(cause, OSError):
            continue
        if cause.errno in DISK_FULL:
            return HubProblem(
                message=f"The disk is full: no room for the {what}.",
                fix=f"free some space, or move {cache} with HF_HOME=PATH",
            )
        if cause.errno in NOT_WRITABLE and cache in str(cause):
            return HubProblem(
                message=f"The hub's cache cannot be written: {cache}.",
                fix="make it writable, or move the cache with HF_HOME=PATH",
            )
    return None


def _http_status(chain: list[BaseException]) -> int | None:
    """The status code of the innermost HTTP error."""
    status = None
    for cause in chain:
        if isinstance(cause, HfHubHTTPError) and cause.response is not None:
            status = int(cause.response.status_code)
    return status


def _has_interrupted_message(chain: list[BaseException]) -> bool:
    texts = "\n".join(str(cause) for cause in chain)
    return any(message in texts for message in INTERRUPTED_MESSAGES)


def _http_problem(types: set[str], status: int, what: str, name: str) -> HubProblem:
    """The hub answered with an HTTP status that is an error."""
    if status in (401, 403):
        return HubProblem(
            message=f"The hub refuses access to the {what} (HTTP {status}): private, gated, or of "
            "another name.",
            fix="log in with `hf auth login` or set HF_TOKEN; ask for access at "
            f"{constants.ENDPOINT}/{name}",
        )
    if "RevisionNotFoundError" in types:
        return HubProblem(
            message=f"The {what} has no such revision (HTTP 404).",
            fix="name a commit, tag or branch that exists, or null",
        )
    if status == 404 and "EntryNotFoundError" in types:
        return HubProblem(
            message=f"The {what}'s repository lacks a file (HTTP 404).",
            fix="check on the hub which files it has",
        )
    if status == 404:
        return HubProblem(
            message=f"There is no such {what} on the hub (HTTP 404), and no such local folder.",
            fix="check the name's spelling",
        )
    return HubProblem(
        message=f"The hub answered with an error (HTTP {status}).",
        fix="try again later, see https://status.huggingface.co",
    )


def _offline_problem(what: str) -> HubProblem:
    reason = "check the network and HF_ENDPOINT"
    if constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set"
    return HubProblem(
        message=f"The hub cannot be reached, and the {what} is not in the local cache.",
        fix=f"{reason}; {describe_cached_repos(what)}",
    )


def describe_cached_repos(what: str) -> str:
    """What can be used without the hub, as part of a message.

    These are the cached data sets, or the cached models with weights.
    """
    kind = "model"
    key = "model.name"
    if what == "data set":
        kind = "dataset"
        key = "dataset.hf_name"
    names = _usable_repos(kind)
    listed = f"no {kind} is cached"
    if names:
        listed = f"cached and usable, with --set {key}=NAME: {', '.join(names)}"
    cache = constants.HF_HUB_CACHE
    return f"{listed} (in {cache}); or run without a hub: --config configs/demo.yaml"


def _usable_repos(kind: str) -> list[str]:
    """Names and sizes of the cached repositories of that kind."""
    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return []
    names = []
    for repo in repos:
        if repo.repo_type != kind:
            continue
        files = [file.file_name for revision in repo.revisions for file in revision.files]
        if kind == "dataset" or any(name.endswith(WEIGHT_ENDINGS) for name in files):
            names.append(f"{repo.repo_id} ({repo.size_on_disk / 1e6:,.1f} MB)")
    return sorted(names)
