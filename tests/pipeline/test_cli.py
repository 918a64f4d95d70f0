"""Exit codes, messages and signals of every script."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import time
from pathlib import Path

import pytest

from tests import support
from utils.config_loader import Config
from utils.core.errors import UserError
from utils.pipeline import cli

SCRIPTS = sorted(
    str(file.relative_to(support.PROJECT_ROOT))
    for file in [
        *(support.PROJECT_ROOT / "scripts").glob("*.py"),
        *support.PROJECT_ROOT.glob("*.py"),
    ]
    if file.name != "setup.py"
)
REQUIRED_ARGUMENTS = {
    "scripts/05_compare_runs.py": ("before", "--with", "after"),
    "scripts/06_measure_change.py": ("--set", "profiling.seed=1"),
}
"""Arguments that a script cannot do without."""


@pytest.fixture(autouse=True)
def _handlers_restored() -> object:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    root = list(logging.getLogger().handlers)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    logging.getLogger().handlers[:] = root


def run(folder: Path, main: cli.Main, *words: str) -> int:
    parser = cli.make_parser("A test.", "python test.py")
    return cli.run_script(
        parser, main, ["--set", f"output.results_dir={folder / 'results'}", *words]
    )


def test_done_is_0_and_leaves_a_log(tmp_path: Path) -> None:
    assert run(tmp_path, lambda config, args: logging.getLogger("x").info("measured")) == 0
    (log,) = (tmp_path / "results" / "logs").glob("*.log")
    assert "measured" in log.read_text()
    assert " took " in log.read_text()


def test_a_user_error_is_2_in_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(config: Config, args: argparse.Namespace) -> None:
        raise UserError("No such thing.", where="here", fix="bring one")

    assert run(tmp_path, main) == 2
    assert capsys.readouterr().err == "Error: No such thing.\n  where: here\n  fix:   bring one\n"


def test_a_failure_inside_is_1_with_the_traceback_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, lambda config, args: 1 / 0) == 1  # type: ignore[arg-type, return-value]
    message = capsys.readouterr().err
    assert "ZeroDivisionError" in message
    assert "Traceback" not in message
    (log,) = (tmp_path / "results" / "logs").glob("*.log")
    assert str(log) in message
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_run_cleanups_and_give_their_codes(tmp_path: Path, number: int, code: int) -> None:
    cleaned = []

    def main(config: Config, args: argparse.Namespace) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            cleaned.append(True)

    assert run(tmp_path, main) == code
    assert cleaned == [True]


def test_bad_settings_are_2_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(tmp_path, lambda config, args: pytest.fail("ran"), "--set", "model.dtyp=float32") == 2
    )
    assert "did you mean model.dtype?" in capsys.readouterr().err


def test_a_results_folder_that_cannot_be_written_is_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").write_text("in the way")
    assert run(tmp_path, lambda config, args: pytest.fail("ran")) == 2
    assert "output.results_dir" in capsys.readouterr().err


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_helps_with_an_example(script: str) -> None:
    done = support.run_script(script, "--help")
    assert done.returncode == 0, done.stderr
    for words in ("--config", "--set", "--log-level", "example:", f"python {script}"):
        assert words in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_refuses_a_bad_config_with_2(script: str, tmp_path: Path) -> None:
    arguments = REQUIRED_ARGUMENTS.get(script, ())
    done = support.run_script(script, *arguments, "--config", str(tmp_path / "none.yaml"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "No such config file" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_an_integer_that_the_work_returns_is_the_exit_code(tmp_path: Path) -> None:
    assert run(tmp_path, lambda config, args: cli.GATE_VIOLATED) == 3
