"""Starts scripts in processes forked from one that has imported the libraries already.

Importing PyTorch and transformers takes longer than what most tests do with a script. A server
imports them once; each script then runs in a process of its own, with its own arguments,
environment, working directory, output and exit code. The project's modules are not imported in
advance, so each script imports them as in a new interpreter. The steps that such a script starts
are forked too.

The server's part runs as ``python -m tests.script_server MODULE ...``. It reads a request a line
from its standard input, and answers with the exit code of the script.
"""

from __future__ import annotations

import atexit
import importlib
import json
import logging
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

PROJECT_ROOT = Path(__file__).resolve().parents[1]
READY = "ready"
# As the tests began: a test may change its own, which its scripts get with each request.
START_ENVIRONMENT = dict(os.environ)
# Libraries that read no environment variable of the hub when they are imported.
HUB_INDEPENDENT = ("numpy", "pandas", "pyarrow.parquet", "sklearn.metrics", "scipy.stats", "torch")
HUB_INDEPENDENT += ("torch.profiler", "torch.utils.flop_counter", "tokenizers", "pydantic")
HUB_INDEPENDENT += ("pydantic.json_schema", "jsonschema", "pyarrow.dataset", "yaml")
HUB_INDEPENDENT += ("torch._dynamo", "torch.distributed.tensor", "matplotlib.figure", "seaborn")
HUB_DEPENDENT = ("transformers", "transformers.models.auto.modeling_auto")
HUB_DEPENDENT += ("transformers.models.qwen2.modeling_qwen2",)
HUB_VARIABLES = ("HF_", "TRANSFORMERS_", "NO_PROXY", "no_proxy")
# What the interpreter or a library reads once, at its start: such a script needs a new interpreter.
START_VARIABLES = ("PYTHON", "LC_", "LANG", "MPL", "OMP_", "MKL_", "COLUMNS")


class ScriptServer:
    """A process that has imported ``modules`` and forks a script's process on request."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.script_server", *modules],
            cwd=PROJECT_ROOT,
            env=START_ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self.close)
        answer = self._read_line(timeout=300)
        assert answer == READY, answer

    def run(
        self, words: list[str], environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run ``words`` (a script and its arguments) as ``subprocess.run`` would."""
        with tempfile.TemporaryDirectory() as folder:
            request = {
                "words": words,
                "cwd": os.getcwd(),
                "environment": dict(environment),
                "stdout": f"{folder}/stdout",
                "stderr": f"{folder}/stderr",
            }
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            returncode = int(self._read_line(timeout))
            stdout = Path(request["stdout"]).read_text(encoding="utf-8")
            stderr = Path(request["stderr"]).read_text(encoding="utf-8")
        return subprocess.CompletedProcess(words, returncode, stdout, stderr)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the server, and the script that it may still be running."""
        if not self.is_alive:
            return
        server = psutil.Process(self._process.pid)
        for process in [*server.children(recursive=True), server]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def _read_line(self, timeout: float) -> str:
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], timeout)
        if not readable:
            self.close()
            raise subprocess.TimeoutExpired(self._process.args, timeout)
        return self._process.stdout.readline().strip()


_servers: dict[tuple[str, ...], ScriptServer] = {}


def run_forked(
    words: list[str], environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str] | None:
    """Run a script and its arguments in a forked process; None if it needs a new interpreter."""
    changed = changed_variables(environment)
    if any(name.startswith(START_VARIABLES) for name in changed):
        return None
    modules = HUB_INDEPENDENT
    if not any(name.startswith(HUB_VARIABLES) for name in changed):
        modules += HUB_DEPENDENT
    server = _servers.get(modules)
    if server is None or not server.is_alive:
        server = ScriptServer(modules)
        _servers[modules] = server
    return server.run(words, environment, timeout)


def changed_variables(environment: Mapping[str, str]) -> set[str]:
    """The names of the variables that differ from those that the servers start with."""
    names = {*environment, *START_ENVIRONMENT}
    return {name for name in names if environment.get(name) != START_ENVIRONMENT.get(name)}


def serve(modules: list[str]) -> None:
    """Answer requests until the input ends; in a forked process, run the script instead."""
    for module in modules:
        importlib.import_module(module)
    print(READY, flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run_request(json.loads(line))
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run_request(request: dict[str, Any]) -> None:
    """Become the process that was asked for, and run its script to its end."""
    redirect(0, os.devnull, os.O_RDONLY)
    redirect(1, request["stdout"], os.O_WRONLY | os.O_CREAT)
    redirect(2, request["stderr"], os.O_WRONLY | os.O_CREAT)
    os.chdir(request["cwd"])
    become_script(request["words"], request["environment"])
    subprocess.Popen = ForkingPopen  # type: ignore[misc]
    runpy.run_path(sys.argv[0], run_name="__main__")


def become_script(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Arguments, environment and modules as a new interpreter has them at its start."""
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = list(words)
    # The script's folder comes first, and the project's is not there.
    folder = str(Path(sys.argv[0]).resolve().parent)
    sys.path[:] = [folder, *(entry for entry in sys.path if entry != str(PROJECT_ROOT))]
    for name in list(sys.modules):
        if name.partition(".")[0] in ("tests", "utils"):
            del sys.modules[name]


class ForkedScript:
    """A script in a fork of this process, with those methods of ``Popen`` that runners use."""

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], *, start_new_session: bool
    ) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            if start_new_session:
                os.setsid()
            run_to_the_end(words, environment)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; the exit code, negative for a signal."""
        if timeout is None:
            _, status = os.waitpid(self.pid, 0)
            return os.waitstatus_to_exitcode(status)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        raise subprocess.TimeoutExpired("a forked script", timeout)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


class ForkingPopen(subprocess.Popen):  # type: ignore[type-arg]
    """``Popen`` that forks where a script of Python is to be started."""

    def __new__(cls, words: Any, *rest: Any, **options: Any) -> Any:
        if not isinstance(words, list) or words[0] != sys.executable or "stdout" in options:
            return super().__new__(cls)
        environment = options.get("env") or os.environ
        own_session = options.get("start_new_session", False)
        return ForkedScript(words[1:], dict(environment), start_new_session=own_session)


def run_to_the_end(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run a script in this process, which a fork has made, and end the process.

    What the forking script would still do at its own end is left out.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.getLogger().handlers.clear()
    logging.getLogger().setLevel(logging.WARNING)
    code: object = 1
    try:
        become_script(words, environment)
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001 - the end of a process, as the interpreter would end it
        traceback.print_exc()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def redirect(descriptor: int, file: str, flags: int) -> None:
    opened = os.open(file, flags, 0o600)
    os.dup2(opened, descriptor)
    os.close(opened)


if __name__ == "__main__":
    serve(sys.argv[1:])
