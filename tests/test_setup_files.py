"""What set-up reads: the probe of the base interpreter, requirements, pins, make targets."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from utils.core.files import PROJECT_ROOT

SETUP_FILES = (
    "setup_environment.sh",
    "setup/requirements.txt",
    "setup/constraints.txt",
    "setup/requirements-dev.txt",
    "setup/probe_python.py",
)


def probe(*, pythonpath: Path | None = None) -> list[str]:
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if pythonpath:
        variables["PYTHONPATH"] = str(pythonpath)
    command = [sys.executable, str(PROJECT_ROOT / "setup" / "probe_python.py")]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    return done.stdout.split()


def fake_torch(folder: Path, text: str) -> Path:
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text(
        "raise SystemExit('the probe must not import torch')"
    )
    (folder / "torch" / "version.py").write_text(text)
    return folder


def test_the_probe_describes_the_base_interpreter() -> None:
    version, _, _, path = probe()
    assert version == ".".join(map(str, sys.version_info[:3]))
    assert Path(path).resolve() == Path(getattr(sys, "_base_executable", sys.executable)).resolve()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("__version__ = '2.8.0+cu128'\ncuda = '12.8'\n", ["2.8.0+cu128", "12.8"]),
        ("__version__ = '2.13.0+cpu'\ncuda = None\n", ["2.13.0+cpu", "-"]),
        ("__version__ = '2.7.0+rocm6'\ncuda = None\nhip = '6.3'\n", ["2.7.0+rocm6", "-"]),
    ],
)
def test_the_probe_reads_pytorch_without_importing_it(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    assert probe(pythonpath=fake_torch(tmp_path, text))[1:3] == expected


def test_the_probe_survives_a_broken_pytorch(tmp_path: Path) -> None:
    fake_torch(tmp_path, "")
    (tmp_path / "torch" / "version.py").unlink()
    assert probe(pythonpath=tmp_path)[1:3] == ["-", "-"]


def lines(name: str) -> list[str]:
    text = (PROJECT_ROOT / "setup" / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=;\[ ]", name, maxsplit=1)[0]).lower()


def test_every_requirement_is_pinned_in_its_range() -> None:
    from packaging.requirements import Requirement

    pins = [Requirement(line) for line in lines("constraints.txt")]
    for line in lines("requirements.txt") + lines("requirements-dev.txt"):
        wanted = Requirement(line)
        own = [pin for pin in pins if plain(pin.name) == plain(wanted.name)]
        assert own, f"{line} has no pin"
        for pin in own:
            assert wanted.specifier.contains(str(pin.specifier).removeprefix("==")), (
                f"{pin} is not in {line}"
            )


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_no_package_is_pinned_twice_for_one_python(python: str) -> None:
    from packaging.requirements import Requirement

    pins = [Requirement(line) for line in lines("constraints.txt")]
    names = [
        plain(pin.name)
        for pin in pins
        if pin.marker is None or pin.marker.evaluate({"python_version": python})
    ]
    assert len(names) == len(set(names))
    assert "torch" in names


def test_no_registry_is_named() -> None:
    for name in (*SETUP_FILES, "Makefile", "setup.py", "pyproject.toml", ".ci/run"):
        text = (PROJECT_ROOT / name).read_text()
        assert "index-url" not in text and "://" not in text, name


def test_setup_py_hands_over_the_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    handed: dict[str, object] = {}
    stand_in = types.SimpleNamespace(setup=handed.update, find_packages=lambda include: include)
    stand_in.setup = lambda **settings: handed.update(settings)
    monkeypatch.setitem(
        sys.modules, "setuptools", stand_in
    )  # newer Pythons' environments have none
    runpy.run_path(str(PROJECT_ROOT / "setup.py"))
    assert handed["install_requires"] == lines("requirements.txt")
    assert handed["python_requires"] == ">=3.10,<3.14"
    assert set(handed["extras_require"]) == {"dev", "ray"}  # type: ignore[call-overload]


def test_make_offers_every_target() -> None:
    done = subprocess.run(["make"], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for target in ("demo", "test", "run", "lint", "bench", "clean"):
        assert re.search(rf"^{target} ", done.stdout, re.MULTILINE), target


def test_make_clean_keeps_what_was_measured(tmp_path: Path) -> None:
    shutil.copy(PROJECT_ROOT / "Makefile", tmp_path)
    kept = [tmp_path / name / "__pycache__" / "kept" for name in ("data", "results", ".venv")]
    for file in kept:
        file.parent.mkdir(parents=True)
        file.touch()
    cache = tmp_path / "utils" / "__pycache__"
    cache.mkdir(parents=True)
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert all(file.exists() for file in kept)
    assert not cache.exists()


@pytest.mark.parametrize("target", ["lint", "generate"])
def test_checks_and_generators_install_nothing(tmp_path: Path, target: str) -> None:
    shutil.copy(PROJECT_ROOT / "Makefile", tmp_path)
    done = subprocess.run(["make", target], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "fix:   make setup-dev" in done.stderr


def test_make_bench_without_benchmarks_says_so(tmp_path: Path) -> None:
    shutil.copy(PROJECT_ROOT / "Makefile", tmp_path)
    (tmp_path / "setup_environment.sh").write_text("#!/bin/sh\n")
    (tmp_path / "setup_environment.sh").chmod(0o755)
    done = subprocess.run(
        ["make", "bench"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "no benchmark yet" in done.stdout
