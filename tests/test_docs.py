"""Every command that README and guides give in a ```bash fence is run, in a copy of the project; every link leads somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from utils.core.files import PROJECT_ROOT

PAGES = (PROJECT_ROOT / "README.md", *sorted((PROJECT_ROOT / "docs").glob("*.md")))
LEFT_OUT = (".venv", ".git", "data", "results", "__pycache__", ".*_cache", ".hypothesis")
MAKE_DEMO = "python run_week1.py --config configs/demo.yaml"
ACTIVATE = "source .venv/bin/activate"


def commands() -> list[str]:
    """Each once, in reading order; ``make demo`` first, as on a fresh machine."""
    found = [
        line.strip()
        for page in PAGES
        for fence in re.findall(
            r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
        for line in fence.splitlines()
        if line.strip() and not line.startswith("#")
    ]
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with a demo of few rows, run once as ``make demo`` runs it."""
    folder = tmp_path_factory.mktemp("docs") / "project"
    shutil.copytree(PROJECT_ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    # The pattern "data" left out utils/data and tests/data too.
    for name in ("utils/data", "tests/data"):
        shutil.copytree(
            PROJECT_ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    file = folder / "configs" / "demo.yaml"
    settings = yaml.safe_load(file.read_text())
    settings["embedded"] = {"training_rows": 1500, "epochs": 1}
    settings["dataset"]["sample_sizes"] = [4]
    settings["profiling"] |= {"batch_sizes": [1, 4], "num_measurement_runs": 2, "max_length": 64}
    settings["evaluation"]["max_samples"] = 100
    file.write_text(yaml.safe_dump(settings))
    done = run(MAKE_DEMO, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=550,
        env={**os.environ, "PATH": path},
    )


@pytest.mark.parametrize(
    "command", [line for line in commands() if not line.startswith("make ") and line != ACTIVATE]
)
def test_the_command_works(project: Path, command: str) -> None:
    done = run(command, project)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "target", sorted({line.split()[1] for line in commands() if line.startswith("make ")})
)
def test_the_make_target_is_there(target: str) -> None:
    planned = subprocess.run(
        ["make", "-n", target], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert MAKE_DEMO.removeprefix("python ") in planned if target == "demo" else planned


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    names = re.findall(
        r"`((?:utils|scripts|tests|configs|setup|docs|benchmarks)/[\w./-]+\.(?:py|yaml|json|txt|sh|md))`",
        text,
    )
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [name for name in names if not (PROJECT_ROOT / name).exists()]
    assert missing == []
