"""A hub on loopback: serves folders as model and data set repositories, and fails on demand."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from typing_extensions import Self

from utils.core.files import sha256_file, sha256_tree

KINDS = {"models": "", "datasets": "datasets/"}
ERROR_CODES = {401: "RepoNotFound", 403: "GatedRepo", 404: "RepoNotFound"}


@dataclass
class Repo:
    """One repository with one commit, served from a folder."""

    kind: str
    repo_id: str
    folder: Path
    commit: str
    status: int = 200

    @property
    def names(self) -> list[str]:
        return sorted(
            p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file()
        )

    def entry(self, name: str) -> dict[str, object]:
        """A file as the tree lists it."""
        file = self.folder / name
        entry: dict[str, object] = {
            "type": "file",
            "path": name,
            "size": file.stat().st_size,
            "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
        }
        if file.suffix in (".safetensors", ".parquet"):
            entry["lfs"] = {
                "oid": sha256_file(file),
                "size": file.stat().st_size,
                "pointerSize": 130,
            }
        return entry

    def info(self) -> dict[str, object]:
        siblings = [
            {"rfilename": name, "size": (self.folder / name).stat().st_size} for name in self.names
        ]
        return {
            "_id": self.commit[:24],
            "id": self.repo_id,
            "modelId": self.repo_id,
            "sha": self.commit,
            "private": False,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
            "lastModified": "2025-01-01T00:00:00.000Z",
            "createdAt": "2025-01-01T00:00:00.000Z",
        }

    def knows(self, revision: str) -> bool:
        return revision in ("main", self.commit)


@dataclass
class Interruption:
    """Close the connection after ``after_bytes`` of a file's content, ``times`` times."""

    after_bytes: int
    times: int


@dataclass
class HubServer:
    """The hub, on a free port of 127.0.0.1; use it as a context manager.

    ``requests`` lists what was asked: method, path, and the Range header or an empty string.
    """

    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    _interruption: Interruption | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        hub: HubServer = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def env(self, cache_dir: Path) -> dict[str, str]:
        """Environment of a process that is to see this hub and nothing else."""
        return hub_env(self.endpoint, cache_dir)

    def add_model(self, repo_id: str, folder: Path) -> Repo:
        return self._add("models", repo_id, folder)

    def add_dataset(self, repo_id: str, folder: Path) -> Repo:
        return self._add("datasets", repo_id, folder)

    def fail(self, repo_id: str, status: int) -> None:
        """Answer all requests for a repository with an HTTP status; 200 ends the fault."""
        for repo in self.repos.values():
            if repo.repo_id == repo_id:
                repo.status = status

    def interrupt_downloads(self, after_bytes: int, times: int = 1) -> None:
        """Close the connection in the next ``times`` files of more than ``after_bytes``."""
        self._interruption = Interruption(after_bytes, times)

    def bytes_before_closing(self, size: int) -> int | None:
        """How many of ``size`` bytes to send before closing the connection; None for all."""
        with self._lock:
            interruption = self._interruption
            if interruption is None or interruption.times == 0:
                return None
            if size <= interruption.after_bytes:
                return None
            interruption.times -= 1
            return interruption.after_bytes

    def _add(self, kind: str, repo_id: str, folder: Path) -> Repo:
        digest = sha256_tree(folder)
        assert digest is not None, folder
        repo = self.repos[kind, repo_id] = Repo(kind, repo_id, folder, digest[:40])
        return repo


def hub_env(endpoint: str, cache_dir: Path) -> dict[str, str]:
    """Environment of a process whose hub is ``endpoint`` and whose cache is ``cache_dir``."""
    return {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache_dir),
        "HF_HUB_CACHE": str(cache_dir / "hub"),
        "HF_DATASETS_CACHE": str(cache_dir / "datasets"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_DATASETS_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": "",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@contextmanager
def closed_port() -> Iterator[str]:
    """An endpoint where nobody listens."""
    with HubServer() as hub:
        endpoint = hub.endpoint
    yield endpoint


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: HubServer

    def do_GET(self) -> None:
        self._respond(with_content=True)

    def do_HEAD(self) -> None:
        self._respond(with_content=False)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._respond(with_content=True)

    def log_message(self, format: str, *args: object) -> None:
        """Tests read ``HubServer.requests`` instead."""

    def _respond(self, with_content: bool) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        self.server_hub.requests.append((self.command, path, self.headers.get("Range") or ""))
        for (kind, repo_id), repo in self.server_hub.repos.items():
            api = f"api/{kind}/{repo_id}"
            files = f"{KINDS[kind]}{repo_id}/resolve/"
            is_api = path == api or path.startswith(api + "/")
            if not is_api and not path.startswith(files):
                continue
            if repo.status != 200:
                self._refuse(repo.status)
            elif is_api:
                self._api(repo, path[len(api) + 1 :])
            else:
                revision, _, name = path[len(files) :].partition("/")
                self._file(repo, revision, name, with_content)
            return
        self._refuse(404)

    def _api(self, repo: Repo, rest: str) -> None:
        """``''``, ``revision/REV``, ``tree/REV[/FOLDER]``, ``paths-info/REV``."""
        verb, _, rest = rest.partition("/")
        revision, _, folder = rest.partition("/")
        if revision and not repo.knows(revision):
            return self._refuse(404, "RevisionNotFound")
        if verb in ("", "revision"):
            return self._json(repo.info())
        if verb in ("tree", "paths-info"):
            return self._json([repo.entry(name) for name in repo.names if name.startswith(folder)])
        self._refuse(404, "EntryNotFound")

    def _file(self, repo: Repo, revision: str, name: str, with_content: bool) -> None:
        if not repo.knows(revision):
            return self._refuse(404, "RevisionNotFound")
        if name not in repo.names:
            return self._refuse(404, "EntryNotFound", commit=repo.commit)
        content = (repo.folder / name).read_bytes()
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", repo.commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if with_content:
            self._send(content[start:])

    def _send(self, content: bytes) -> None:
        stop = self.server_hub.bytes_before_closing(len(content))
        self.wfile.write(content[:stop])
        if stop is not None:
            self.close_connection = True

    def _json(self, payload: object) -> None:
        content = json.dumps(payload).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: int, code: str | None = None, commit: str | None = None) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code or ERROR_CODES.get(status, ""))
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()
