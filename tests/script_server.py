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
import gc
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
import pydantic

PROJECT_ROOT = Path(__file__).resolve().parents[1]
READY = "ready"
# As the tests began: a test may change its own, which its scripts get with each request.
START_ENVIRONMENT = dict(os.environ)
# Libraries that read no environment variable of the hub when they are imported.
HUB_INDEPENDENT = ("numpy", "pandas", "pyarrow.parquet", "sklearn.metrics", "scipy.stats", "torch")
HUB_INDEPENDENT += ("torch.profiler", "torch.utils.flop_counter", "tokenizers", "pydantic")
HUB_INDEPENDENT += ("pydantic.json_schema", "jsonschema", "pyarrow.dataset", "yaml")
HUB_INDEPENDENT += ("torch._dynamo", "torch.distributed.tensor", "matplotlib.figure", "seaborn")
HUB_INDEPENDENT += ("matplotlib.backends.backend_svg", "pandas.plotting._matplotlib")
HUB_INDEPENDENT += ("pydantic.types", "xml.etree.ElementTree", "torch.profiler.python_tracer")
HUB_DEPENDENT = ("transformers", "transformers.models.auto.modeling_auto")
HUB_DEPENDENT += ("transformers.models.qwen2.modeling_qwen2",)
HUB_DEPENDENT += ("transformers.models.qwen2.tokenization_qwen2",)
HUB_VARIABLES = ("HF_", "TRANSFORMERS_", "NO_PROXY", "no_proxy")
# What the interpreter or a library reads once, at its start: each value has a server of its own.
START_VARIABLES = ("PYTHON", "LC_", "LANG", "MPL", "OMP_", "MKL_", "COLUMNS")


class ScriptServer:
    """A process that has imported ``modules`` and forks a script's process on request."""

    def __init__(self, modules: tuple[str, ...], environment: Mapping[str, str]) -> None:
        # Without a buffer ``select`` sees every line that has not been read.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.script_server", *modules],
            cwd=PROJECT_ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._script: StartedScript | None = None
        atexit.register(self.close)
        answer = self.read_line(timeout=300)
        assert answer == READY, answer

    def start(
        self, words: list[str], environment: Mapping[str, str], folder: Path
    ) -> StartedScript:
        """Start ``words`` (a script and its arguments) in ``folder``, as ``Popen`` would."""
        output = tempfile.TemporaryDirectory()
        request: dict[str, Any] = {
            "words": words,
            "cwd": str(folder),
            "environment": dict(environment),
            "stdout": f"{output.name}/stdout",
            "stderr": f"{output.name}/stderr",
        }
        for stream in ("stdout", "stderr"):
            Path(request[stream]).touch()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        pid = int(self.read_line(timeout=60))
        self._script = StartedScript(self, words, pid, output)
        return self._script

    def read_line(self, timeout: float) -> str:
        """The server's next line.

        Raises:
            subprocess.TimeoutExpired: there was none in ``timeout`` seconds.
        """
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], timeout)
        if not readable:
            raise subprocess.TimeoutExpired(self._process.args, timeout)
        return self._process.stdout.readline().decode().strip()

    @property
    def is_free(self) -> bool:
        """The server is alive, and runs no script."""
        if self._process.poll() is not None:
            return False
        return self._script is None or self._script.poll() is not None

    def close(self) -> None:
        """End the server, and the script that it may still be running."""
        if self._process.poll() is not None:
            return
        server = psutil.Process(self._process.pid)
        for process in [*server.children(recursive=True), server]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()


class StartedScript:
    """A script that a server has started, with those members of ``Popen`` that tests use."""

    def __init__(
        self,
        server: ScriptServer,
        words: list[str],
        pid: int,
        output: tempfile.TemporaryDirectory[str],
    ) -> None:
        self.args = words
        self.pid = pid
        self.returncode: int | None = None
        self._server = server
        self._output = output

    def poll(self) -> int | None:
        """The exit code; None while the script runs."""
        with suppress(subprocess.TimeoutExpired):
            self._wait(0)
        return self.returncode

    def has_printed(self, words: str) -> bool:
        """Whether these are in what the script has written to its standard output by now."""
        return words in self._read("stdout")

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for the end; what the script has written to both streams."""
        try:
            self._wait(timeout)
        except subprocess.TimeoutExpired:
            self._server.close()
            raise
        written = self._read("stdout"), self._read("stderr")
        self._output.cleanup()
        return written

    def _read(self, stream: str) -> str:
        return Path(self._output.name, stream).read_text(encoding="utf-8", errors="replace")

    def _wait(self, timeout: float) -> None:
        if self.returncode is None:
            self.returncode = int(self._server.read_line(timeout))


_servers: dict[tuple[object, ...], ScriptServer] = {}


def start_forked(
    words: list[str], environment: Mapping[str, str], folder: Path | None = None
) -> StartedScript:
    """Start a script and its arguments in a forked process, in ``folder`` or where this one is."""
    changed = changed_variables(environment)
    modules = HUB_INDEPENDENT
    if not any(name.startswith(HUB_VARIABLES) for name in changed):
        modules += HUB_DEPENDENT
    read_at_start = {name for name in changed if name.startswith(START_VARIABLES)}
    start_environment = dict(START_ENVIRONMENT)
    for name in read_at_start:
        start_environment.pop(name, None)
        if name in environment:
            start_environment[name] = environment[name]
    key = (modules, *sorted((name, environment.get(name)) for name in read_at_start))
    server = _servers.get(key)
    if server is None or not server.is_free:
        if server is not None:
            server.close()
        server = ScriptServer(modules, start_environment)
        _servers[key] = server
    return server.start(words, environment, folder or Path.cwd())


def changed_variables(environment: Mapping[str, str]) -> set[str]:
    """The names of the variables that differ from those that the servers start with."""
    names = {*environment, *START_ENVIRONMENT}
    return {name for name in names if environment.get(name) != START_ENVIRONMENT.get(name)}


def serve(modules: list[str]) -> None:
    """Answer requests until the input ends; in a forked process, run the script instead."""
    for module in modules:
        importlib.import_module(module)
    use_libraries_once()
    # Without it, the garbage collector of each child visits, and so copies, all that is imported.
    gc.collect()
    gc.freeze()
    print(READY, flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run_request(json.loads(line))
            return
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def use_libraries_once() -> None:
    """What libraries do once in a process, at their first use."""
    pydantic.create_model("First", number=(int, 0))
    if "transformers" not in sys.modules:
        return
    # Not every version has it: the names of weights that checkpoints of each kind may have.
    with suppress(ImportError, AttributeError):
        names = importlib.import_module("transformers.conversion_mapping")
        names.get_checkpoint_conversion_mapping("qwen2")


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
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        *,
        start_new_session: bool,
        hides_output: bool,
    ) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            if start_new_session:
                os.setsid()
            if hides_output:
                redirect(1, os.devnull, os.O_WRONLY)
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
        stdout = options.get("stdout")
        is_script = isinstance(words, list) and words[0] == sys.executable
        if not is_script or stdout not in (None, subprocess.DEVNULL):
            return super().__new__(cls)
        environment = options.get("env") or os.environ
        return ForkedScript(
            words[1:],
            dict(environment),
            start_new_session=options.get("start_new_session", False),
            hides_output=stdout is not None,
        )


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
