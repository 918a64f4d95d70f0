"""setup/test_matrix.sh with stand-ins for the interpreters."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from utils.core.files import PROJECT_ROOT

# Records every call, "makes" an environment with itself as its Python, and passes as a test run.
STAND_IN = r"""#!/usr/bin/env bash
[ "$1" != -c ] || exit "${STAND_IN_CHECK:-0}"
echo "$*" >>"$STAND_IN_LOG"
case "$2" in
  venv)
    for folder; do :; done
    mkdir -p "$folder/bin" && cp "$0" "$folder/bin/python"
    ;;
  pip) exit "${STAND_IN_PIP:-0}" ;;
  pytest) echo "5 passed in 1.00s"; exit "${STAND_IN_PYTEST:-0}" ;;
esac
"""


class Machine:
    """A copy of the script, and a PATH on which the interpreters are stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.log = folder / "calls.log"
        self.bin = folder / "bin"
        self.bin.mkdir()
        shutil.copytree(PROJECT_ROOT / "setup", self.folder / "setup")

    def add(self, name: str, folder: Path | None = None) -> None:
        file = (folder or self.bin) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(STAND_IN)
        file.chmod(0o755)

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "STAND_IN_LOG": str(self.log),
            "HOME": str(self.folder),
            **environment,
        }
        command = [str(self.folder / "setup" / "test_matrix.sh"), *words]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def count(self, start: str) -> int:
        """How many calls of an interpreter begin with these words."""
        return sum(call.startswith(start) for call in self.calls)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def complete_machine(machine: Machine) -> Machine:
    for version in ("3.10", "3.12", "3.13"):
        machine.add(f"python{version}")
    return machine


def test_the_plan_names_versions_and_interpreters_and_does_nothing(
    complete_machine: Machine,
) -> None:
    done = complete_machine.run("--plan")
    assert done.returncode == 0, done.stderr
    oldest, middle, newest = done.stdout.splitlines()
    assert "Python 3.10, torch==2.6.0 transformers==5.0.0 datasets==4.0.0" in oldest
    assert "Python 3.12, torch==2.11.0 transformers==5.17.0" in middle
    assert "Python 3.13, pinned" in newest
    assert str(complete_machine.bin / "python3.13") in newest
    assert complete_machine.calls == []


def test_missing_interpreters_are_named(machine: Machine) -> None:
    machine.add("python3.12")
    done = machine.run("--plan")
    assert done.returncode == 1
    missing = [line.split(":")[0] for line in done.stdout.splitlines() if "MISSING" in line]
    assert missing == ["oldest", "newest"]
    assert "no python3.10 that runs" in done.stdout
    assert "PYTHON_3_13" in done.stdout


def test_an_interpreter_that_does_not_run_is_missing(complete_machine: Machine) -> None:
    done = complete_machine.run("--plan", STAND_IN_CHECK="1")
    assert done.stdout.count("MISSING") == 3


def test_interpreters_of_pyenv_are_found_and_others_can_be_named(machine: Machine) -> None:
    machine.add("python", machine.folder / ".pyenv" / "versions" / "3.10.13" / "bin")
    machine.add("mine")
    done = machine.run("--plan", PYTHON_3_13=str(machine.bin / "mine"))
    oldest, middle, newest = done.stdout.splitlines()
    assert "3.10.13/bin/python" in oldest
    assert "MISSING" in middle
    assert newest.endswith("/mine")


def test_each_environment_is_made_and_tested(complete_machine: Machine) -> None:
    done = complete_machine.run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("5 passed in 1.00s") == 3
    installs = [call for call in complete_machine.calls if call.startswith("-m pip")]
    assert installs[0].endswith("torch==2.6.0 transformers==5.0.0 datasets==4.0.0")
    assert installs[2].endswith("-c setup/constraints.txt")
    assert complete_machine.count("-m pytest") == 3


def test_an_environment_is_kept_until_its_requirements_change(complete_machine: Machine) -> None:
    complete_machine.run()
    complete_machine.run()
    assert complete_machine.count("-m pip") == 3
    assert complete_machine.count("-m pytest") == 6
    with (complete_machine.folder / "setup" / "requirements.txt").open("a") as file:
        file.write("another>=1\n")
    complete_machine.run()
    assert complete_machine.count("-m pip") == 6


def test_an_environment_whose_installation_failed_is_made_again(complete_machine: Machine) -> None:
    complete_machine.run(STAND_IN_PIP="1")
    assert complete_machine.count("-m pytest") == 0
    complete_machine.run()
    assert complete_machine.count("-m venv") == 6


def test_one_can_be_chosen(complete_machine: Machine) -> None:
    done = complete_machine.run("--plan", "middle")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["middle"]


@pytest.mark.parametrize("variable", ["STAND_IN_PIP", "STAND_IN_PYTEST"])
def test_a_failure_is_shown_and_the_others_run(complete_machine: Machine, variable: str) -> None:
    done = complete_machine.run(**{variable: "1"})
    assert done.returncode == 1
    assert done.stdout.count("FAILED") == 3


def test_an_unknown_word_is_refused(machine: Machine) -> None:
    assert machine.run("latest").returncode == 2
