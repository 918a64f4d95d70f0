"""Step 05 in a process of its own: what it prints and writes, its exit codes, bad input."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import support
from tests.comparison.builders import write_process, write_processes
from utils.core.files import PROJECT_ROOT
from utils.pipeline.lock import run_lock
from utils.schema.comparison import load_comparison

SCRIPT = "scripts/05_compare_runs.py"
MAX_START_S = 2.0
"""Time of the processor from the start to the help."""


def run(folder: Path, *words: str | Path, **options: str) -> subprocess.CompletedProcess[str]:
    """Run the script; its log and results are below ``folder``."""
    flags = support.set_flags([f"output.results_dir={folder / 'out'}"])
    return support.run_script(SCRIPT, *map(str, words), *flags, **options)


def test_two_folders_are_compared(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before")
    after = write_process(tmp_path, "after")
    done = run(tmp_path, before, "--with", after)
    assert done.returncode == 0, done.stderr
    assert "equivalent at batch sizes 1, 4, 8, 16, 32, 64" in " ".join(done.stdout.split())
    assert (tmp_path / "out" / "comparison.html").exists()
    comparison = load_comparison(tmp_path / "out" / "comparison.json")
    assert {item.verdict for item in comparison.metrics} <= {None, "equivalent", "inconclusive"}


def test_several_processes_a_side_are_given_as_words(tmp_path: Path) -> None:
    before = write_processes(tmp_path, "before", [1.0, 1.01, 0.99])
    after = write_processes(tmp_path, "after", [0.7, 0.71, 0.72])
    folder = tmp_path / "elsewhere"
    done = run(tmp_path, *before, "--with", *after, "--output", folder, "--margin", "3%")
    assert done.returncode == 0, done.stderr
    comparison = load_comparison(folder / "comparison.json")
    assert comparison.margin == pytest.approx(0.03)
    assert (len(comparison.baseline.runs), len(comparison.candidate.runs)) == (3, 3)
    assert "faster at batch sizes" in done.stdout


def test_markdown_alone_is_printed_for_a_pull_request(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before")
    after = write_process(tmp_path, "after")
    done = run(tmp_path, before, "--with", after, "--format", "markdown", "--price", "2.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("## Inference compared with the baseline")
    assert "| batch 8 |" in done.stdout
    assert "Details:" not in done.stdout
    assert "<summary>Cost</summary>" in done.stdout


@pytest.mark.parametrize(
    ("gates", "flags", "code"),
    [
        (["throughput<-50%"], [], 0),
        (["throughput<-50%", "throughput<-5%"], [], 3),
        (["throughput<-20%"], [], 4),
        (["accuracy<-0.5pp"], ["--inconclusive=pass"], 0),
    ],
)
def test_gates_give_the_exit_code(
    tmp_path: Path, gates: list[str], flags: list[str], code: int
) -> None:
    before = write_processes(tmp_path, "before", [1.0, 1.01, 0.99])
    after = write_processes(tmp_path, "after", [1.25, 1.26, 1.24])
    words = [word for gate in gates for word in ("--fail-if", gate)]
    done = run(tmp_path, *before, "--with", *after, *words, *flags)
    assert done.returncode == code, done.stdout + done.stderr
    assert len(load_comparison(tmp_path / "out" / "comparison.json").gates) == len(gates)


def truncate(results: Path) -> None:
    file = results / "baseline_metrics.json"
    file.write_text(file.read_text()[:999])


def write_newer(results: Path) -> None:
    file = results / "baseline_metrics.json"
    file.write_text(file.read_text().replace('"schema_version": 3', '"schema_version": 4', 1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "is not valid JSON"),
        (write_newer, "was written by a later version"),
    ],
)
def test_results_that_cannot_be_used_are_one_message(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    before = write_process(tmp_path, "before")
    after = write_process(tmp_path, "after")
    damage(after)
    done = run(tmp_path, before, "--with", after)
    assert done.returncode == 2
    assert message in done.stderr
    assert str(after) in done.stderr
    assert done.stderr.count("Error:") == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "comparison.json").exists()


def test_results_that_are_still_being_written_are_refused(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before")
    after = write_process(tmp_path, "after")
    with run_lock(after / ".state" / "lock"):
        done = run(tmp_path, before, "--with", after)
    assert done.returncode == 2
    assert f"still writing to this results folder: pid {os.getpid()}" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--with", "after"], "There are no such results"),
        (["before", "--with", "before"], "are given as baseline and as candidate"),
        (["before", "--with", "after", "--fail-if", "speed<5%"], "names no metric"),
        (["before", "--with", "after", "--margin", "2"], "is not a share such as 2% or 0.02"),
    ],
)
def test_a_command_that_cannot_be_followed_is_one_message(
    tmp_path: Path, words: list[str], message: str
) -> None:
    for name in ("before", "after"):
        write_process(tmp_path, name)
    names = [str(tmp_path / word) if word in ("before", "after") else word for word in words]
    done = run(tmp_path, *names)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_names_are_looked_up_in_the_working_directory(tmp_path: Path) -> None:
    for name in ("before", "after"):
        write_process(tmp_path, name)
    done = subprocess.run(
        [sys.executable, PROJECT_ROOT / SCRIPT, "before", "--with", "after", "--output", "here"]
        + support.set_flags([f"output.results_dir={tmp_path / 'out'}"]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here" / "comparison.json").exists()


def test_the_script_starts_quickly_and_without_pytorch() -> None:
    code = (
        "import runpy, sys\n"
        "try:\n"
        f"    runpy.run_path({SCRIPT!r}, run_name='__main__')\n"
        "except SystemExit:\n"
        "    loaded = {'torch', 'transformers', 'matplotlib'} & set(sys.modules)\n"
        "    print('LOADED', sorted(loaded))\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "LOADED []" in done.stdout, done.stderr
    assert "exit codes:" in done.stdout
    assert after.ru_utime - before.ru_utime < MAX_START_S
