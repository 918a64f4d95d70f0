"""The hub's cache goes to a pod's persistent volume, unless the user has chosen one."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import utils
from utils.core.files import PROJECT_ROOT
from utils.system import pod
from utils.system.pod import OWN_CACHE_VARIABLES, use_persistent_hub_cache


def test_caches_lie_on_the_volume(tmp_path: Path) -> None:
    variables: dict[str, str] = {}
    folder = use_persistent_hub_cache(tmp_path, variables)
    assert folder == tmp_path / ".cache" / "huggingface"
    assert variables == {
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_DATASETS_CACHE": str(folder / "datasets"),
    }


@pytest.mark.parametrize("name", OWN_CACHE_VARIABLES)
def test_a_cache_of_the_users_own_is_kept(tmp_path: Path, name: str) -> None:
    variables = {name: "/somewhere"}
    assert use_persistent_hub_cache(tmp_path, variables) is None
    assert variables == {name: "/somewhere"}


def test_a_data_set_cache_of_the_users_own_is_kept(tmp_path: Path) -> None:
    variables = {"HF_DATASETS_CACHE": "/somewhere"}
    use_persistent_hub_cache(tmp_path, variables)
    assert variables["HF_DATASETS_CACHE"] == "/somewhere"


def test_no_volume_changes_nothing(tmp_path: Path) -> None:
    variables: dict[str, str] = {}
    assert use_persistent_hub_cache(tmp_path / "none", variables) is None
    (tmp_path / "file").touch()
    assert use_persistent_hub_cache(tmp_path / "file", variables) is None
    assert variables == {}


def test_a_volume_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    variables: dict[str, str] = {}
    assert use_persistent_hub_cache(tmp_path, variables) is None
    assert variables == {}


def test_importing_the_package_does_it_before_the_hub_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called = []
    with monkeypatch.context() as patch:
        patch.setattr(pod, "use_persistent_hub_cache", lambda: called.append(True))
        importlib.reload(utils)
    importlib.reload(utils)
    assert called == [True]
    code = "import sys, utils; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT).returncode == 0


def test_the_hub_library_takes_it(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from utils.system.pod import use_persistent_hub_cache as use; "
        "use(pathlib.Path(sys.argv[1])); "
        "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    )
    kept = {name: value for name, value in os.environ.items() if name not in OWN_CACHE_VARIABLES}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=kept, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / ".cache" / "huggingface" / "hub"), done.stderr
