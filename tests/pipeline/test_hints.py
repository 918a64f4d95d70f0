"""Hints can be pasted: they carry what the user has typed, and name arguments to Python callers."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import support
from utils.core.errors import ConfigError, ModelError
from utils.core.files import PROJECT_ROOT
from utils.metrics import MetricsCollector
from utils.pipeline import hints

CONFIG = "my settings.yaml"
OVERRIDES = ["model.dtype=float16", "dataset.label_map={a: b}"]
WORDS = [
    "run_week1.py",
    "--config",
    CONFIG,
    "--set",
    OVERRIDES[0],
    f"--set={OVERRIDES[1]}",
    "--resume",
]
FLAGS = f"--config '{CONFIG}' --set model.dtype=float16 --set 'dataset.label_map={{a: b}}'"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user has typed WORDS in the project's root."""
    monkeypatch.chdir(PROJECT_ROOT)
    with hints.command_line(CONFIG, OVERRIDES, WORDS):
        yield


def pasted(fix: str) -> list[list[str]]:
    """The words, as a shell reads them, of each command that is offered below an error."""
    lines = hints.complete_error(ModelError("What.", fix=fix)).splitlines()
    return [
        shlex.split(line.removeprefix("  paste: "))
        for line in lines
        if line.startswith("  paste: ")
    ]


@pytest.mark.usefixtures("typed")
@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        (
            "make it with: python scripts/01_download_data.py",
            f"make it with: python scripts/01_download_data.py {FLAGS}",
        ),
        (
            "python run_week1.py --resume, then wait",
            f"python run_week1.py {FLAGS} --resume, then wait",
        ),
        (
            "python scripts/build_demo_assets.py --config configs/demo.yaml",
            f"python scripts/build_demo_assets.py {FLAGS}",
        ),
        (
            "run again: python scripts/01_download_data.py.",
            f"run again: python scripts/01_download_data.py {FLAGS}",
        ),
        ("python other.py", "python other.py"),
        ("see configs/config.yaml", "see configs/config.yaml"),
    ],
)
def test_commands_carry_the_flags_of_the_user(hint: str, shown: str) -> None:
    assert hints.with_flags(hint) == shown
    assert hints.with_flags(shown) == shown, "a command that is complete stays as it is"


def test_without_flags_a_command_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT_ROOT)
    hint = "python scripts/build_demo_assets.py --config configs/demo.yaml"
    with hints.command_line("configs/config.yaml", [], ["run_week1.py"]):
        assert hints.with_flags(hint) == hint
    assert hints.with_flags(hint) == hint


@pytest.mark.usefixtures("typed")
@pytest.mark.parametrize(
    ("fix", "settings"),
    [
        ("--set model.device=cpu", [["model.device=cpu"]]),
        ("take --set model.device=cpu, or another card.", [["model.device=cpu"]]),
        (
            "--set evaluation.num_workers=1 --set evaluation.ray_address=null",
            [["evaluation.num_workers=1", "evaluation.ray_address=null"]],
        ),
        (
            "--set profiling.max_length=64 or --set profiling.max_length=32",
            [["profiling.max_length=64"], ["profiling.max_length=32"]],
        ),
        ("--set 'profiling.batch_sizes=[1, 4]'", [["profiling.batch_sizes=[1, 4]"]]),
        ("--set profiling.batch_sizes=[1, 4]", [["profiling.batch_sizes=[1, 4]"]]),
        ("--set model.tokenizer=NAME", []),
        ("--set section.key=VALUE", []),
        ("python run_week1.py --set model.device=cpu", []),
        ("nothing to set", []),
    ],
)
def test_a_suggested_setting_comes_with_the_complete_command(
    fix: str, settings: list[list[str]]
) -> None:
    expected = []
    for group in settings:
        command = [
            "python",
            "run_week1.py",
            "--config",
            CONFIG,
            "--set",
            OVERRIDES[0],
            "--set",
            OVERRIDES[1],
            "--resume",
        ]
        for setting in group:
            command += ["--set", setting]
        expected.append(command)
    assert pasted(fix) == expected


@pytest.mark.usefixtures("typed")
def test_a_setting_replaces_the_users_own_of_the_same_key() -> None:
    fix = """--set 'dataset.label_map={"A": "b c"}'"""
    command = ["python", "run_week1.py", "--config", CONFIG, "--set", OVERRIDES[0], "--resume"]
    assert pasted(fix) == [[*command, "--set", 'dataset.label_map={"A": "b c"}']]


@pytest.mark.usefixtures("typed")
def test_the_value_that_was_refused_is_not_offered() -> None:
    assert "paste" not in hints.complete_error(
        ConfigError("No.", where="--set model.device=gpu", fix="cuda or cpu")
    )


def test_a_step_names_the_command_of_its_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT_ROOT)
    with hints.command_line(
        "configs/demo.yaml", [], ["run_week1.py", "--config", "configs/demo.yaml"]
    ):
        handed_on = hints.environment_of_step()[hints.VARIABLE]
    monkeypatch.setenv(hints.VARIABLE, handed_on)
    with hints.command_line(
        "configs/demo.yaml",
        [],
        ["scripts/02_baseline_inference.py", "--config", "configs/demo.yaml"],
    ):
        assert hints.resume_command() == "python run_week1.py --config configs/demo.yaml --resume"
        assert pasted("--set model.device=cpu") == [
            ["python", "run_week1.py", "--config", "configs/demo.yaml", "--set", "model.device=cpu"]
        ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--set model.dtype=bfloat16, or wait", 'dtype="bfloat16", or wait'),
        ("--set profiling.max_length=512", "max_length=512"),
        ("--set model.trust_remote_code=true.", "trust_remote_code=True."),
        (
            "--set evaluation.num_workers=1 --set evaluation.ray_address=null",
            "num_workers=1, ray_address=None",
        ),
        ("name it with --set model.name=NAME", "name it with model_name=NAME"),
        (
            "lower profiling.max_length, model.safetensors stays",
            "lower max_length, model.safetensors stays",
        ),
        ("or without a hub: --config configs/demo.yaml", 'or without a hub: model_name="embedded"'),
        (
            "python run_week1.py --set model.device=cpu",
            "python run_week1.py --set model.device=cpu",
        ),
    ],
)
def test_python_callers_read_arguments(text: str, expected: str) -> None:
    error = hints.for_python(ModelError(f"What: {text}", where="model.dtype", fix=text))
    assert isinstance(error, ModelError)
    assert (error.what, error.where, error.fix) == (f"What: {expected}", "dtype", expected)


def test_a_collector_for_a_device_that_is_not_there_names_its_argument() -> None:
    with pytest.raises(ModelError) as caught:
        MetricsCollector(device="cuda:99")
    assert 'device="cpu"' in str(caught.value)
    assert "--set" not in str(caught.value)


def test_a_refusal_of_a_real_run_can_be_pasted(tmp_path: Path, tiny_model: Path) -> None:
    """The command below the error is run as it stands, from the same folder, and works."""
    support.write_dataset(tmp_path / "data")
    script = "scripts/00_test_model_loading.py"
    settings = [*support.small_overrides(tmp_path, tiny_model), "profiling.max_length=100000"]
    failed = support.start_script(script, *support.set_flags(settings), folder=tmp_path)
    _, errors = failed.communicate(timeout=300)
    assert failed.returncode == 2, errors
    (command,) = [
        line.removeprefix("  paste: ")
        for line in errors.splitlines()
        if line.startswith("  paste: ")
    ]
    assert "profiling.max_length=100000" not in command
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        shell=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_missing_data_set_names_step_01_with_the_users_flags(
    tmp_path: Path, tiny_model: Path
) -> None:
    flags = support.set_flags(support.small_overrides(tmp_path, tiny_model))
    done = support.run_script("run_week1.py", *flags, "--skip-download")
    assert done.returncode == 2
    assert f"python scripts/01_download_data.py {shlex.join(flags)}" in done.stderr


def test_a_setting_for_a_script_that_measures_two_sides_is_offered_for_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(PROJECT_ROOT)
    words = ["scripts/06_measure_change.py", "--both=model.seed=1", "--set", "model.dtype=float16"]
    with hints.command_line(CONFIG, [], words):
        (cpu,) = pasted("--set model.device=cpu")
        (dtype,) = pasted("--set model.dtype=float32")
    assert cpu[2:] == ["--both", "model.seed=1", "--set", "model.dtype=float16"] + [
        "--both",
        "model.device=cpu",
    ]
    assert dtype[2:] == ["--both", "model.seed=1", "--set", "model.dtype=float32"]
