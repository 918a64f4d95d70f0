"""The hub's failures in the user's words: error chains here, the hub itself in tests/scripts."""

from __future__ import annotations

import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import (
    CacheNotFound,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub_server import HubServer
from utils.core.errors import ModelError, UserError
from utils.core.files import PROJECT_ROOT
from utils.hub import errors as hub

# The HTTP library that this version of huggingface_hub uses: httpx or its successor.
httpx = importlib.import_module(hub.HTTPError.__module__.partition(".")[0])


def http_error(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    request = httpx.Request("GET", "http://127.0.0.1/api/models/a/b")
    return kind("no", response=httpx.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [
        (http_error(RepositoryNotFoundError, 401), "HTTP 401", "hf auth login"),
        (http_error(HfHubHTTPError, 403), "HTTP 403", "HF_TOKEN"),
        (http_error(RepositoryNotFoundError, 404), "HTTP 404", "spelling"),
        (http_error(RevisionNotFoundError, 404), "no such revision", "commit, tag or branch"),
        (http_error(HfHubHTTPError, 503), "HTTP 503", "try again later"),
        (httpx.RemoteProtocolError("peer closed connection"), "interrupted", "same command again"),
        (
            OSError("Consistency check failed: file should be of size 5 but has size 3"),
            "interrupted",
            "same command",
        ),
        (httpx.ConnectError("refused"), "cannot be reached", "configs/demo.yaml"),
        (LocalEntryNotFoundError("no"), "cannot be reached", "--config"),
        (OfflineModeIsEnabled("no"), "cannot be reached", "HF_HUB_OFFLINE|network"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full", "HF_HOME"),
        (HFValidationError("bad"), "valid name on the hub", "owner/name"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_errors_of_the_hub(error: Exception, what: str, fix: str, wrapped: bool) -> None:
    with (
        pytest.raises(ModelError, match=what) as caught,
        hub.hub_errors("model", "a/b", ModelError),
    ):
        if wrapped:
            raise OSError("transformers' own words") from error
        raise error
    assert caught.value.fix
    assert any(word in caught.value.fix for word in fix.split("|"))
    assert "a/b" in (caught.value.where or "")


def test_cache_that_cannot_be_written() -> None:
    error = PermissionError(
        errno.EACCES, "Permission denied", str(Path(constants.HF_HUB_CACHE) / "x")
    )
    with pytest.raises(UserError, match="cache cannot be written"), hub.hub_errors("model", "a/b"):
        raise error


@pytest.mark.parametrize(
    "error", [ValueError("x"), FileNotFoundError("x"), RuntimeError("x"), ModelError("x")]
)
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, hub.hub_errors("model", "a/b"):
        raise error
    assert caught.value is error


def test_nothing_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_cache() -> None:
        raise CacheNotFound("none", cache_dir=tmp_path)

    monkeypatch.setattr(hub, "scan_cache_dir", no_cache)
    assert "no dataset is cached" in hub.describe_cached_repos("data set")


def test_a_data_set_from_the_hub(tmp_path: Path) -> None:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "test.csv").write_text("query,label\none,books\ntwo,games\n", encoding="utf-8")
    code = (
        "from datasets import load_dataset\n"
        "from utils.hub.errors import describe_cached_repos\n"
        "from utils.hub.repository import resolve\n"
        "name = 'someone/data'\n"
        "commit = resolve(name, None, 'dataset').commit\n"
        "print(commit)\n"
        "print(load_dataset(name, split='test', revision=commit)['query'][:])\n"
        "print(describe_cached_repos('data set'))\n"
    )
    with HubServer() as server:
        repo = server.add_dataset("someone/data", folder)
        environment = {**os.environ, **server.env(tmp_path / "cache")}
        words = [sys.executable, "-c", code]
        done = subprocess.run(
            words, capture_output=True, text=True, env=environment, cwd=PROJECT_ROOT, timeout=300
        )
    assert done.returncode == 0, done.stderr
    commit, texts, cached = done.stdout.splitlines()
    assert commit == repo.commit
    assert texts == "['one', 'two']"
    assert "someone/data (" in cached
