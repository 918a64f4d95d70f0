"""setup_environment.sh with stand-ins for Python and nvidia-smi."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from utils.core.files import PROJECT_ROOT

FILES = (
    "setup_environment.sh",
    "setup/requirements.txt",
    "setup/constraints.txt",
    "setup/requirements-dev.txt",
    "setup/probe_python.py",
)

# Answers the probe with fixed values, records every other call, and "makes" an environment with
# itself as its Python.
STAND_IN = r"""#!/usr/bin/env bash
case "$1" in
  */probe_python.py) echo "$STAND_IN_PROBE $0"; exit 0 ;;
  -c) exit 0 ;;
esac
echo "${0##*/} $*" >>"$STAND_IN_LOG"
if [ "$1 $2" = "-m venv" ]; then
  for folder; do :; done
  mkdir -p "$folder/bin" && cp "$0" "$folder/bin/python"
  system=false; case "$*" in *--system-site-packages*) system=true ;; esac
  {
    echo "version = ${STAND_IN_PROBE%% *}"
    echo "include-system-site-packages = $system"
  } >"$folder/pyvenv.cfg"
fi
if [ "$1 $2" = "-m pip" ]; then exit "${STAND_IN_PIP:-0}"; fi
"""

NO_CUDA = "3.11.7 - -"
POD = "3.11.10 2.8.0+cu128 12.8"


class Machine:
    """A copy of the set-up files with a PATH on which Python and nvidia-smi are stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder / "project", folder / "calls.log"
        for name in FILES:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT_ROOT / name, self.folder / name)
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.add("python3", STAND_IN)
        self.add("nvidia-smi", "#!/bin/sh\nexit 9\n")

    def add(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def add_gpu(self, driver: str = "570.86") -> None:
        self.add("nvidia-smi", f"#!/bin/sh\necho 'NVIDIA H100, {driver}'\n")

    def run(
        self, *words: str, probe: str = NO_CUDA, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        variables = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "STAND_IN_PROBE": probe,
            "STAND_IN_LOG": str(self.log),
            "HOME": str(self.folder),
            **environment,
        }
        command = [str(self.folder / "setup_environment.sh"), *words]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def handed_to_pip(self, name: str) -> list[str]:
        return (self.folder / ".venv" / name).read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def torch_line(plan: subprocess.CompletedProcess[str]) -> str:
    assert plan.returncode == 0, plan.stderr
    return next(line for line in plan.stdout.splitlines() if line.startswith("PyTorch:"))


@pytest.mark.parametrize(
    ("probe", "gpu", "expected"),
    [
        (POD, True, "kept: 2.8.0+cu128 with CUDA 12.8"),
        (POD, False, "kept: 2.8.0+cu128"),
        ("3.12.3 2.6.0a0+ecf3bae.nv25.1 12.8", True, "kept: 2.6.0a0+ecf3bae.nv25.1"),
        ("3.11.7 2.6.0 12.4", True, "kept: 2.6.0"),
        ("3.13.1 2.7.1+cu126 12.6", True, "installed: 2.8 or later"),
        ("3.13.1 2.8.0+cu128 12.8", True, "kept: 2.8.0+cu128"),
        ("3.11.7 2.5.1+cu124 12.4", True, "installed: 2.6 or later"),
        ("3.11.7 2.13.0+cpu -", True, "installed: 2.6 or later"),
        (NO_CUDA, True, "installed: 2.6 or later"),
        ("3.11.7 2.13.0+cpu -", False, "since no GPU is here"),
        (NO_CUDA, False, "since no GPU is here"),
    ],
)
def test_which_pytorch(machine: Machine, probe: str, gpu: bool, expected: str) -> None:
    if gpu:
        machine.add_gpu()
    assert expected in torch_line(machine.run("--plan", probe=probe))


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        ("580.65.06", "installed: 2.6 or later, with CUDA 13 or later"),
        ("610.10", "installed: 2.6 or later, with CUDA 13 or later"),
        ("579.99", "installed: 2.6 or later, earlier than 2.11, with CUDA 12: driver 579.99"),
        ("525.60.13", "installed: 2.6 or later, earlier than 2.11, with CUDA 12: driver 525.60.13"),
        ("[N/A]", "the newest CUDA build, since nvidia-smi does not tell"),
    ],
)
def test_the_build_is_one_that_the_driver_can_run(
    machine: Machine, driver: str, expected: str
) -> None:
    machine.add_gpu(driver)
    assert expected in torch_line(machine.run("--plan"))


@pytest.mark.parametrize(("driver", "limit"), [("570.86", ["torch<2.11"]), ("580.65.06", [])])
def test_an_old_driver_limits_what_pip_may_take(
    machine: Machine, driver: str, limit: list[str]
) -> None:
    machine.add_gpu(driver)
    assert machine.run().returncode == 0
    pins = machine.handed_to_pip("constraints.txt")
    assert [line for line in pins if line.startswith("torch<")] == limit


def test_two_gpus_have_one_driver(machine: Machine) -> None:
    machine.add(
        "nvidia-smi", "#!/bin/sh\nprintf 'NVIDIA A100, 550.54.15\\nNVIDIA A100, 550.54.15\\n'\n"
    )
    assert "driver 550.54.15 is older than 580" in torch_line(machine.run("--plan"))


def test_a_driver_too_old_for_every_build_is_refused(machine: Machine) -> None:
    machine.add_gpu("470.82.01")
    done = machine.run("--plan")
    assert done.returncode == 2
    assert "Driver 470.82.01 is too old" in done.stderr
    assert "fix:" in done.stderr


def test_a_kept_build_that_the_driver_may_not_run_is_kept_with_a_warning(machine: Machine) -> None:
    machine.add_gpu("570.86")
    plan = machine.run("--plan", probe="3.12.3 2.11.0+cu130 13.0")
    assert "kept: 2.11.0+cu130" in torch_line(plan)
    assert "CUDA 13.0 needs driver 580 or later; here is 570.86" in plan.stdout
    assert "Warning" not in machine.run("--plan", probe=POD).stdout


def test_a_machine_with_an_older_driver_means_a_new_environment(machine: Machine) -> None:
    machine.add_gpu("580.65.06")
    machine.run()
    machine.add_gpu("570.86")
    machine.run()
    assert sum(" venv " in call for call in machine.calls) == 2


def test_a_plan_does_nothing(machine: Machine) -> None:
    before = sorted(machine.folder.rglob("*"))
    done = machine.run("--plan", probe=POD)
    assert done.returncode == 0
    assert machine.calls == []
    assert sorted(machine.folder.rglob("*")) == before


def test_the_gpu_is_named(machine: Machine) -> None:
    assert "shows no GPU" in machine.run("--plan").stdout
    machine.add_gpu()
    assert "NVIDIA H100, 570.86" in machine.run("--plan").stdout


def test_on_a_pod_nothing_of_pytorch_is_installed(machine: Machine) -> None:
    machine.add_gpu()
    done = machine.run(probe=POD)
    assert done.returncode == 0, done.stderr
    assert "python3 -m venv --clear --system-site-packages .venv" in machine.calls
    wanted = machine.handed_to_pip("requirements.txt")
    assert not [line for line in wanted if line.startswith("torch")]
    assert any(line.startswith("transformers") for line in wanted)
    assert machine.handed_to_pip("constraints.txt") == ["torch==2.8.0+cu128"]
    assert machine.calls[-1] == "python test_setup.py --config configs/config.yaml"


def test_without_a_gpu_the_pins_are_used(machine: Machine) -> None:
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert "python3 -m venv --clear .venv" in machine.calls
    pip = next(call for call in machine.calls if " pip " in call)
    assert pip.endswith("-r .venv/requirements.txt -c .venv/constraints.txt")
    assert (
        machine.handed_to_pip("constraints.txt")
        == (PROJECT_ROOT / "setup/constraints.txt").read_text().splitlines()
    )
    assert any(line.startswith("torch>=2.6") for line in machine.handed_to_pip("requirements.txt"))
    assert machine.calls[-1] == "python test_setup.py --config configs/demo.yaml"
    assert (machine.folder / "data").is_dir() and (machine.folder / "results").is_dir()


def test_with_a_gpu_and_no_pytorch_it_is_not_pinned(machine: Machine) -> None:
    machine.add_gpu()
    assert machine.run().returncode == 0
    pins = machine.handed_to_pip("constraints.txt")
    assert not [line for line in pins if line.startswith("torch==")]
    assert [line for line in pins if line.startswith("transformers==")]


def test_the_second_run_changes_nothing(machine: Machine) -> None:
    assert machine.run().returncode == 0
    calls = machine.calls
    done = machine.run()
    assert done.returncode == 0
    assert done.stdout.startswith("The environment is up to date")
    assert machine.calls == calls


def test_development_tools_serve_both(machine: Machine) -> None:
    assert machine.run("--dev").returncode == 0
    calls = machine.calls
    assert "-r setup/requirements-dev.txt" in next(call for call in calls if " pip " in call)
    for words in ((), ("--dev",)):
        machine.run(*words)
    assert machine.calls == calls


def test_development_tools_are_added_later(machine: Machine) -> None:
    machine.run()
    machine.run("--dev")
    assert sum(" venv " in call for call in machine.calls) == 1
    assert sum(" pip " in call for call in machine.calls) == 2


def test_changed_requirements_are_installed_into_the_same_environment(machine: Machine) -> None:
    machine.run()
    with (machine.folder / "setup" / "requirements.txt").open("a") as file:
        file.write("tabulate>=0.9\n")
    machine.run()
    assert sum(" venv " in call for call in machine.calls) == 1
    assert sum(" pip " in call for call in machine.calls) == 2


@pytest.mark.parametrize("probe", ["3.12.1 - -", POD])
def test_another_python_or_pytorch_means_a_new_environment(machine: Machine, probe: str) -> None:
    machine.run()
    machine.run(probe=probe)
    assert sum(" venv " in call for call in machine.calls) == 2


def test_a_gpu_that_came_later_means_a_new_environment(machine: Machine) -> None:
    machine.run()
    machine.add_gpu()
    machine.run()
    assert sum(" venv " in call for call in machine.calls) == 2


def test_a_failed_installation_is_reported_and_continues(machine: Machine) -> None:
    done = machine.run(STAND_IN_PIP="1")
    assert done.returncode == 1
    assert "run ./setup_environment.sh again" in done.stderr
    assert "Ready" not in done.stdout
    assert machine.run().returncode == 0
    assert sum(" venv " in call for call in machine.calls) == 1
    assert sum(" pip " in call for call in machine.calls) == 2


def test_a_folder_that_is_no_environment_is_not_emptied(machine: Machine) -> None:
    kept = machine.folder / ".venv" / "precious"
    kept.parent.mkdir()
    kept.touch()
    done = machine.run()
    assert done.returncode == 2
    assert "no virtual environment" in done.stderr
    assert kept.exists()


@pytest.mark.parametrize("probe", ["3.9.18 - -", "3.14.0 - -", "2.7.18 - -"])
def test_an_unsupported_python_is_refused_by_name(machine: Machine, probe: str) -> None:
    done = machine.run(probe=probe, PYTHON="python3")
    assert done.returncode == 2
    assert f"python3 is {probe.split()[0]}" in done.stderr
    assert "fix:" in done.stderr
    assert machine.calls == []


def test_the_variable_names_the_interpreter(machine: Machine) -> None:
    machine.add("mine", STAND_IN)
    assert f"({machine.bin / 'mine'})" in machine.run("--plan", PYTHON="mine").stdout
    done = machine.run("--plan", PYTHON="nonesuch")
    assert done.returncode == 2
    assert "nonesuch is not there" in done.stderr


def test_an_interpreter_that_was_named_once_is_kept(machine: Machine) -> None:
    machine.add("mine", STAND_IN)
    machine.run(PYTHON="mine")
    assert f"({machine.bin / 'mine'})" in machine.run("--plan").stdout
    assert machine.run().stdout.startswith("The environment is up to date")
    assert f"({machine.bin / 'python3'})" in machine.run("--plan", PYTHON="python3").stdout


def test_an_interpreter_that_is_gone_is_replaced(machine: Machine) -> None:
    machine.add("mine", STAND_IN)
    machine.run(PYTHON="mine")
    (machine.bin / "mine").unlink()
    assert f"({machine.bin / 'python3'})" in machine.run("--plan").stdout


def test_without_a_gpu_the_plan_says_how_to_leave_out_the_cuda_libraries(machine: Machine) -> None:
    machine.add("uname", "#!/bin/sh\necho Linux x86_64\n")
    assert "PIP_EXTRA_INDEX_URL" in machine.run("--plan").stdout
    machine.add_gpu()
    assert "PIP_EXTRA_INDEX_URL" not in machine.run("--plan").stdout


def test_a_cache_that_an_image_names_is_not_taken_for_the_users(machine: Machine) -> None:
    plan = machine.run("--plan", HF_HOME="/runpod-volume/.cache/huggingface/").stdout
    assert "as your environment sets it" not in plan


def test_a_users_own_cache_is_left_alone(machine: Machine) -> None:
    assert "as your environment sets it" in machine.run("--plan", HF_HOME="/somewhere").stdout


def test_an_unknown_option_is_refused(machine: Machine) -> None:
    assert machine.run("--help").returncode == 0
    done = machine.run("--nonesuch")
    assert done.returncode == 2
    assert "--dev" in done.stderr


# The probe itself, run by the real interpreter.


# The files that pip is handed.
