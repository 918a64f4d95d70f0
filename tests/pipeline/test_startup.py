"""Effects on the process: the hub's cache on a persistent volume, variables, evaluation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.core.files import PROJECT_ROOT
from utils.pipeline import startup
from utils.pipeline.startup import (
    IMAGE_CACHE,
    USER_CACHE_VARIABLES,
    quiet_libraries,
    use_persistent_hub_cache,
)


def test_caches_lie_on_the_volume(tmp_path: Path) -> None:
    variables: dict[str, str] = {}
    folder = use_persistent_hub_cache(tmp_path, variables)
    assert folder == tmp_path / ".cache" / "huggingface"
    assert variables == {
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_DATASETS_CACHE": str(folder / "datasets"),
    }


@pytest.mark.parametrize("name", USER_CACHE_VARIABLES)
def test_a_cache_of_the_users_own_is_kept(tmp_path: Path, name: str) -> None:
    variables = {name: "/somewhere"}
    assert use_persistent_hub_cache(tmp_path, variables) is None
    assert variables == {name: "/somewhere"}


def test_a_data_set_cache_of_the_users_own_is_kept(tmp_path: Path) -> None:
    variables = {"HF_DATASETS_CACHE": "/somewhere"}
    use_persistent_hub_cache(tmp_path, variables)
    assert variables["HF_DATASETS_CACHE"] == "/somewhere"


def test_a_cache_that_an_image_puts_into_the_container_moves_to_the_volume(tmp_path: Path) -> None:
    in_container = str(IMAGE_CACHE / ".cache" / "huggingface")
    variables = {"HF_HOME": in_container, "HF_DATASETS_CACHE": f"{in_container}/datasets"}
    folder = use_persistent_hub_cache(tmp_path, variables)
    assert folder is not None
    assert variables == {
        "HF_HOME": in_container,
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_DATASETS_CACHE": str(folder / "datasets"),
    }


def test_a_cache_on_a_mounted_volume_of_an_image_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path == IMAGE_CACHE)
    variables = {"HF_HOME": str(IMAGE_CACHE / ".cache" / "huggingface")}
    assert use_persistent_hub_cache(tmp_path, variables) is None


def test_no_volume_changes_nothing(tmp_path: Path) -> None:
    variables: dict[str, str] = {}
    assert use_persistent_hub_cache(tmp_path / "none", variables) is None
    (tmp_path / "file").touch()
    assert use_persistent_hub_cache(tmp_path / "file", variables) is None
    assert variables == {}


def test_a_variable_that_the_hubs_library_only_warns_of_is_removed() -> None:
    variables = {"HF_HUB_ENABLE_HF_TRANSFER": "1"}
    quiet_libraries(variables)
    assert "HF_HUB_ENABLE_HF_TRANSFER" not in variables


def test_a_volume_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    variables: dict[str, str] = {}
    assert use_persistent_hub_cache(tmp_path, variables) is None
    assert variables == {}


@pytest.mark.parametrize("script", sorted((PROJECT_ROOT / "scripts").glob("*.py")))
def test_scripts_prepare_the_process_before_they_import_libraries(script: Path) -> None:
    code = (
        "import runpy, sys\n"
        "from utils.pipeline import startup\n"
        "def stop():\n"
        "    heavy = {'huggingface_hub', 'datasets', 'torch', 'transformers'} & set(sys.modules)\n"
        "    raise SystemExit(f'too late, imported: {heavy}' if heavy else 'in time')\n"
        "startup.prepare_process = stop\n"
        "runpy.run_path(sys.argv[1], run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code, str(script)]
    process = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert process.stderr == "in time\n"


def test_importing_the_library_changes_no_variables() -> None:
    code = (
        "import os\n"
        "before = dict(os.environ)\n"
        "import utils.pipeline.startup, utils.pipeline.cli, utils.pipeline.steps\n"
        "raise SystemExit(before != dict(os.environ))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT).returncode == 0


def test_variables_that_the_user_has_set_stay() -> None:
    variables = {"TRANSFORMERS_VERBOSITY": "debug"}
    startup.quiet_libraries(variables)
    assert variables["TRANSFORMERS_VERBOSITY"] == "debug"
    assert variables["KINETO_LOG_LEVEL"] == "6"


def test_transformers_takes_the_level_from_its_variable() -> None:
    code = (
        "from utils.pipeline import startup\n"
        "startup.quiet_libraries()\n"
        "from transformers.utils import logging\n"
        "print(logging.get_verbosity() == logging.ERROR, logging.is_progress_bar_enabled())\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    assert process.stdout.split() == ["True", "False"], process.stderr


def test_the_hub_library_takes_it(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from utils.pipeline.startup import use_persistent_hub_cache as use; "
        "use(pathlib.Path(sys.argv[1])); "
        "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    )
    kept = {name: value for name, value in os.environ.items() if name not in USER_CACHE_VARIABLES}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=kept, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / ".cache" / "huggingface" / "hub"), done.stderr


@pytest.mark.parametrize("script", sorted((PROJECT_ROOT / "scripts").glob("*.py")))
def test_help_needs_none_of_the_heavy_libraries(script: Path) -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = [sys.argv[1], '--help']\n"
        "try:\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    heavy = {'torch', 'transformers', 'sklearn', 'pandas', 'scipy', 'numpy', 'pyarrow'}\n"
        "    print('code', end.code, 'heavy', sorted(heavy & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code, str(script)]
    process = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert "--config PATH" in process.stdout
    assert process.stdout.endswith("code 0 heavy []\n"), process.stdout + process.stderr


@pytest.mark.parametrize("script", ["04_visualize_results.py", "05_compare_runs.py"])
def test_steps_that_read_files_alone_import_no_model_libraries(script: str) -> None:
    code = (
        "import runpy, sys\n"
        "runpy.run_path(sys.argv[1], run_name='imported')\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'sklearn'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code, str(PROJECT_ROOT / "scripts" / script)]
    process = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert process.stdout == "[]\n", process.stderr


def test_an_interruption_that_python_ignores_is_raised_again() -> None:
    code = (
        "import signal, time\n"
        "from utils.core.errors import Interrupted\n"
        "from utils.pipeline import startup\n"
        "class Deleted:\n"
        "    def __del__(self):\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "        print('never reached')\n"
        "startup.raise_on_signals()\n"
        "Deleted()\n"
        "try:\n"
        "    time.sleep(20)\n"
        "except Interrupted as error:\n"
        "    print('interrupted', error.exit_code)\n"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert process.stdout == "interrupted 143\n", process.stdout + process.stderr
    assert process.stderr == ""
