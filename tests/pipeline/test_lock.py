"""One run at a time in a results folder; the lock of a killed run is not in the way."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests import support
from utils.core.errors import UserError
from utils.core.files import PROJECT_ROOT
from utils.pipeline.lock import inherited_lock_fds, lock_owner, run_lock

NO_FLOCK = """
import errno, fcntl
def flock(*arguments):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""
HOLDER = """
import pathlib, sys
from utils.pipeline.lock import run_lock
with run_lock(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.readline()
"""
RUNNER = """
import pathlib, sys
from utils.pipeline import step_process as runner, steps
from utils.pipeline.lock import run_lock

class Step(steps.Step):
    path = pathlib.Path(sys.argv[2])

example = vars(steps.STEPS[0])
with run_lock(pathlib.Path(sys.argv[1])):
    runner.run_step(Step(**example), [sys.argv[1]])
"""


def start_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a process of this project and wait until it says that it holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=PROJECT_ROOT,
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "locked\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def start_runner_with_step(folder: Path) -> subprocess.Popen[str]:
    """A runner that waits for a step, which runs under the runner's lock until its input ends."""
    step = folder / "step.py"
    step.write_text(HOLDER)
    return start_python(RUNNER, folder / "lock", step)


def wait_for_end_of_step(runner: subprocess.Popen[str]) -> None:
    assert runner.stdin
    assert runner.stdout
    runner.stdin.close()
    runner.stdout.read()


def test_a_second_run_is_refused_with_pid_and_host_of_the_first(tmp_path: Path) -> None:
    file = tmp_path / ".state" / "lock"
    first = start_python(HOLDER, file)
    expected = f"pid {first.pid} on {platform.node()}"
    with pytest.raises(UserError, match=expected) as refused, run_lock(file):
        pass
    assert refused.value.where == str(tmp_path)
    kill(first)


def test_the_lock_of_a_killed_run_is_not_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    kill(start_python(HOLDER, file))
    with run_lock(file):
        assert f'"pid": {os.getpid()}' in file.read_text()


def test_the_lock_is_released_when_the_block_ends(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with run_lock(file):
        assert len(inherited_lock_fds()) == 1
    assert inherited_lock_fds() == ()
    process = start_python(HOLDER, file)
    kill(process)


def test_a_step_runs_under_the_lock_of_its_runner(tmp_path: Path) -> None:
    runner = start_runner_with_step(tmp_path)
    with pytest.raises(UserError, match=f"pid {runner.pid} "), run_lock(tmp_path / "lock"):
        pass
    wait_for_end_of_step(runner)
    assert runner.wait() == 0


def test_a_step_keeps_the_lock_of_its_killed_runner(tmp_path: Path) -> None:
    runner = start_runner_with_step(tmp_path)
    [step] = psutil.Process(runner.pid).children()
    kill(runner)
    owner = f"pid {step.pid} on {platform.node()}, started by pid {runner.pid}, which has ended"
    assert lock_owner(tmp_path / "lock") == owner
    with pytest.raises(UserError, match=owner), run_lock(tmp_path / "lock"):
        pass
    wait_for_end_of_step(runner)
    with run_lock(tmp_path / "lock"):
        pass


def test_a_script_in_a_busy_folder_ends_with_code_2(tmp_path: Path, tiny_model: Path) -> None:
    script = [sys.executable, "scripts/04_visualize_results.py"]
    flags = support.set_flags(support.small_overrides(tmp_path, tiny_model))
    # A shell in between: the script is not a child of this process.
    shell = ["sh", "-c", '"$@"; exit $?', "sh"]
    with run_lock(tmp_path / "results" / ".state" / "lock"):
        done = subprocess.run(
            [*shell, *script, *flags], cwd=PROJECT_ROOT, capture_output=True, text=True
        )
    assert done.returncode == 2, done.stderr
    assert f"pid {os.getpid()} on {platform.node()}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without kernel locks, as some network file systems are."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.usefixtures("no_flock")
def test_without_kernel_locks_a_marker_file_refuses_a_second_run(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    first = start_python(NO_FLOCK + HOLDER, file)
    expected = f"pid {first.pid} on {platform.node()}"
    with pytest.raises(UserError, match=expected) as refused, run_lock(file):
        pass
    assert refused.value.fix
    assert f"remove {file}.marker if that process no longer exists" in refused.value.fix
    kill(first)


@pytest.mark.usefixtures("no_flock")
def test_without_kernel_locks_the_marker_of_a_killed_run_is_not_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    kill(start_python(NO_FLOCK + HOLDER, file))
    with run_lock(file):
        assert (tmp_path / "lock.marker").exists()
    assert not (tmp_path / "lock.marker").exists()


def test_without_kernel_locks_a_step_runs_under_the_marker_of_its_runner(tmp_path: Path) -> None:
    step = tmp_path / "step.py"
    step.write_text(NO_FLOCK + HOLDER)
    runner = start_python(NO_FLOCK + RUNNER, tmp_path / "lock", step)
    wait_for_end_of_step(runner)
    assert runner.wait() == 0


def test_the_owner_of_a_lock_is_known_only_while_it_is_held(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert lock_owner(lock) is None
    with run_lock(lock):
        assert lock_owner(lock) == f"pid {os.getpid()} on {platform.node()}"
    assert lock.exists()
    assert lock_owner(lock) is None
