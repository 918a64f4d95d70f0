"""One run at a time in a results folder; a dead run's lock is not in the way."""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import support
from utils.core import lock
from utils.core.artifacts import PROJECT_ROOT
from utils.core.errors import UserError
from utils.core.lock import held, hold

HOLDER = """
import pathlib, subprocess, sys
from utils.core.lock import held, hold
with hold(pathlib.Path(sys.argv[1])):
    if sys.argv[2:]:  # a step that outlives its runner
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=sys.stdin, pass_fds=held())
    print("held", flush=True)
    sys.stdin.readline()
"""


def start_holder(file: Path, *more: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOLDER, str(file), *more]
    process = subprocess.Popen(words, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_by_pid_and_host_and_a_dead_one_is_not_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / ".state" / "lock"
    first = start_holder(file)
    with pytest.raises(UserError, match=f"pid {first.pid} on {platform.node()}") as refused, hold(file):
        pass
    assert refused.value.where == str(tmp_path)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    with hold(file):
        assert str(os.getpid()) in file.read_text()
    with hold(file):
        pass


def test_a_step_keeps_the_lock_of_its_killed_runner(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    runner = start_holder(file, "with a step")
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    with pytest.raises(UserError, match=f"pid {runner.pid}"), hold(file):
        pass
    assert runner.stdin and runner.stdout
    runner.stdin.close()
    runner.stdout.read()  # ends with the step
    with hold(file):
        assert held()
    assert not held()


def test_a_child_works_under_its_parents_lock(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    code = "import pathlib, sys\nfrom utils.core.lock import hold\nwith hold(pathlib.Path(sys.argv[1])): print('in')"
    with hold(file):
        words = [sys.executable, "-c", code, str(file)]
        done = subprocess.run(words, cwd=PROJECT_ROOT, capture_output=True, text=True, pass_fds=held())
    assert done.stdout == "in\n", done.stderr


def test_a_script_in_a_busy_folder_ends_with_code_2(tmp_path: Path, tiny_model: Path) -> None:
    with hold(tmp_path / "results" / ".state" / "lock"):
        words = support.set_flags(support.small_overrides(tmp_path, tiny_model))
        # A shell in between: the script is not our child.
        line = '"$@"; exit $?'
        done = subprocess.run(
            ["sh", "-c", line, "sh", sys.executable, "scripts/04_visualize_results.py", *words], cwd=PROJECT_ROOT,
            capture_output=True, text=True,
        )
    assert done.returncode == 2, done.stderr
    assert f"pid {os.getpid()} on {platform.node()}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)


@pytest.mark.usefixtures("without_flock")
def test_without_the_kernels_lock_a_file_made_once_stands_for_it(tmp_path: Path) -> None:
    file, owner = tmp_path / "lock", tmp_path / "lock.owner"
    with hold(file):
        assert f'"pid": {os.getpid()}' in owner.read_text()
        with pytest.raises(UserError, match=f"pid {os.getpid()} on {platform.node()}") as refused, hold(file):
            pass
        assert "remove lock.owner if it is gone" in str(refused.value)
    assert not owner.exists()


@pytest.mark.usefixtures("without_flock")
@pytest.mark.parametrize(("host", "pid", "way_in"), [
    (platform.node(), 2**30, True), ("elsewhere", 2**30, False), (platform.node(), 1, False),
    (platform.node(), os.getppid(), True),
])
def test_only_a_dead_owners_file_of_this_machine_is_taken_over(tmp_path: Path, host: str, pid: int, way_in: bool) -> None:
    (tmp_path / "lock.owner").write_text(json.dumps({"pid": pid, "host": host}))
    if way_in:
        with hold(tmp_path / "lock"):
            pass
        assert (tmp_path / "lock.owner").exists() == (pid == os.getppid()), "the parent's is left to it"
    else:
        with pytest.raises(UserError, match=f"pid {pid} on {host}"), hold(tmp_path / "lock"):
            pass
