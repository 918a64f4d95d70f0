"""test_setup.py: what it reports where something is missing, and with which exit code."""

from __future__ import annotations

import shutil
import subprocess
import sys
import types
from collections import namedtuple
from pathlib import Path
from typing import NamedTuple

import pytest

import test_setup as script
from tests import support
from utils.config_loader import Config, load_config
from utils.core.files import PROJECT_ROOT


@pytest.fixture
def config(tmp_path: Path) -> Config:
    overrides = [
        f"output.results_dir={tmp_path / 'results'}",
        f"dataset.local_path={tmp_path / 'data' / 'val_df.csv'}",
    ]
    return load_config("configs/demo.yaml", overrides)


def test_the_set_up_for_the_demo_passes_here(tmp_path: Path) -> None:
    flags = ("--config", "configs/demo.yaml", "--set", f"output.results_dir={tmp_path}")
    done = support.run_script("test_setup.py", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("Python", "Packages", "Project", "Config", "CUDA", "NVML", "Folder", "Disk"):
        assert f"] {name}: " in done.stdout
    assert "The set-up is fine" in done.stdout


def test_a_bad_setting_is_refused() -> None:
    flags = ("--log-level", "ERROR", "--config", "configs/demo.yaml", "--set", "model.dtpe=float16")
    done = support.run_script("test_setup.py", *flags)
    assert done.returncode == 2
    assert "model.dtpe" in done.stdout and "model.dtype" in done.stdout
    assert "[  ok   ]" not in done.stdout


def test_help_has_an_example() -> None:
    done = support.run_script("test_setup.py", "--help")
    assert done.returncode == 0
    assert "python test_setup.py" in done.stdout


def test_it_reports_what_is_missing_where_nothing_is_installed(tmp_path: Path) -> None:
    # -S leaves out site-packages: only the standard library is there.
    base = getattr(sys, "_base_executable", sys.executable)
    command = [base, "-S", str(PROJECT_ROOT / "test_setup.py")]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "torch: not installed" in done.stdout
    assert "./setup_environment.sh" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_an_old_python_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    (check,) = script.check_python()
    assert check.state == script.FAILED and "3.9.18" in check.finding


@pytest.mark.parametrize(
    ("version", "limits", "expected"),
    [
        ("2.13.0+cpu", ">=2.6", True),
        ("2.5.1", ">=2.6", False),
        ("2.6", ">=2.6.0", True),
        ("2.6.0a0+nv25.1", ">=2.6", True),
        ("6.0.0", ">=5,<6", False),
        ("5.23.0", ">=5,<6", True),
        ("1.10", ">=1.9", True),
        ("3.0", "", True),
    ],
)
def test_a_version_is_compared_with_its_limits(version: str, limits: str, expected: bool) -> None:
    assert script.in_range(version, limits) is expected


def test_packages_missing_or_out_of_range_are_named(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("# a comment\nno-such-package>=1\npyyaml>=99\nnumpy>=1\n")
    missing, old = script.check_packages(file)
    assert missing.name == "no-such-package" and missing.state == script.FAILED and missing.fix
    assert old.name == "pyyaml" and ">=99" in old.finding


def test_a_requirement_of_another_python_is_not_checked(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(
        'numpy>=1; python_version >= "3.10"\n'
        'numpy>=99; python_version < "3.10"\n'
        'pyyaml>=99; python_version >= "3.10"\n'
    )
    (old,) = script.check_packages(file)
    assert old.name == "pyyaml"


def test_a_package_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        raise OSError("libcudart.so.12: cannot open shared object file")

    file = tmp_path / "requirements.txt"
    file.write_text("numpy>=1\n")
    monkeypatch.setattr(script.importlib, "import_module", broken)
    (check,) = script.check_packages(file)
    assert "libcudart.so.12" in check.finding and "pip install" in check.fix
    (check,) = script.check_project()
    assert check.state == script.FAILED


class Cuda(NamedTuple):
    """The CUDA of a stand-in for PyTorch."""

    build: str | None
    devices: int = 0
    error: str = ""


def stand_in_torch(monkeypatch: pytest.MonkeyPatch, machine: Cuda) -> None:
    def ones(size: int, device: str) -> object:
        if machine.error:
            raise RuntimeError(machine.error)
        return types.SimpleNamespace(sum=lambda: types.SimpleNamespace(item=lambda: size))

    cuda = types.SimpleNamespace(
        is_available=lambda: machine.devices > 0,
        device_count=lambda: machine.devices,
        get_device_name=lambda index: f"GPU {index}",
    )
    fake = types.SimpleNamespace(
        __version__="2.8.0", version=types.SimpleNamespace(cuda=machine.build), cuda=cuda, ones=ones
    )
    monkeypatch.setitem(sys.modules, "torch", fake)


@pytest.mark.parametrize(
    ("machine", "device", "state", "finding"),
    [
        (Cuda(None), "cuda", script.FAILED, "built without CUDA"),
        (Cuda(None), "cpu", script.OK, "not needed"),
        (Cuda("12.8"), "cpu", script.OK, "not needed"),
        (Cuda(None), "auto", script.WARNING, "built without CUDA"),
        (Cuda("12.8"), "cuda:0", script.FAILED, "sees no device"),
        (Cuda("12.8"), "auto", script.WARNING, "sees no device"),
        (Cuda("12.8", devices=2), "cuda", script.OK, "GPU 0, GPU 1"),
        (Cuda("12.8", devices=2), "cuda:2", script.FAILED, "2 devices"),
        (
            Cuda("12.8", devices=1, error="CUDA error: no kernel image is available\nmore"),
            "cuda",
            script.FAILED,
            "no kernel image",
        ),
    ],
)
def test_cuda_fails_only_where_the_device_needs_it(
    monkeypatch: pytest.MonkeyPatch,
    machine: Cuda,
    device: str,
    state: str,
    finding: str,
) -> None:
    stand_in_torch(monkeypatch, machine)
    (check,) = script.check_cuda(device)
    assert check.state == state
    assert finding in check.finding
    assert state == script.OK or "--set model.device=" in check.fix


def test_nvml_that_cannot_be_read_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    (check,) = script.check_nvml()
    assert check.state == script.WARNING and check.fix
    readings = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetCount": 1,
        "nvmlSystemGetDriverVersion": "570",
    }
    for name, reading in readings.items():
        monkeypatch.setattr(pynvml, name, lambda reading=reading: reading)
    (check,) = script.check_nvml()
    assert check.state == script.OK and "570" in check.finding


def test_a_folder_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = load_config(
        "configs/demo.yaml", [f"output.results_dir={tmp_path / 'file' / 'results'}"]
    )
    results = next(iter(script.check_folders(config)))
    assert results.state == script.FAILED
    assert "output.results_dir" in results.fix


def test_folders_are_not_made_by_looking(config: Config, tmp_path: Path) -> None:
    assert [check.state for check in script.check_folders(config)] == [script.OK, script.OK]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_fails(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, 10**6))
    checks = list(script.check_disk(config))
    assert {check.state for check in checks} == {script.FAILED}
    assert all("free some" in check.fix for check in checks)


def test_the_hub_needs_more_disk_than_local_files(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, 2 * 10**9))
    assert script.FAILED in [
        check.state for check in script.check_disk(load_config("configs/config.yaml"))
    ]
    assert script.FAILED not in [
        check.state for check in script.check_disk(load_config("configs/demo.yaml"))
    ]
