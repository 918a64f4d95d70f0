"""Step 04 in a process of its own, on made-up results: from files alone, without PyTorch."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import support
from tests.reporting.builders import Scenario, write_results
from utils.core.files import PROJECT_ROOT
from utils.pipeline.lock import run_lock

SCRIPT = "scripts/04_visualize_results.py"


def make_flags(folder: Path) -> list[str]:
    return support.set_flags(
        [f"output.results_dir={folder}", f"dataset.local_path={folder / 'data.csv'}"]
    )


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT_ROOT
    )


def test_step_04_lists_its_files_and_records_that_it_finished(tmp_path: Path) -> None:
    files = write_results(tmp_path, Scenario(out_of_memory=(64,))).files
    process = support.run_script(SCRIPT, *make_flags(tmp_path))
    assert process.returncode == 0, process.stderr
    for path in (
        files.summary_report,
        files.html_report,
        files.comparison_plot,
        files.heatmap_plot,
    ):
        assert str(path) in process.stdout
        assert path.stat().st_size > 0
    assert (files.state_dir / "step_04.json").exists()


def test_step_04_never_imports_torch(tmp_path: Path) -> None:
    write_results(tmp_path, Scenario(has_diagnosis=False))
    process = run_python(
        "import runpy, sys\n"
        f"sys.argv = {[SCRIPT, *make_flags(tmp_path)]!r}\n"
        f"try: runpy.run_path({str(PROJECT_ROOT / SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))\n"
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "[]"
    assert "step 03 has not run" in process.stderr


@pytest.mark.parametrize(
    "backend",
    ["module://matplotlib_inline.backend_inline", "module://not_installed.backend", "nonsense"],
)
def test_the_backend_of_a_notebook_does_not_end_the_step(tmp_path: Path, backend: str) -> None:
    files = write_results(tmp_path).files
    # matplotlib reads the variable when it is imported.
    process = support.run_script(
        SCRIPT, *make_flags(tmp_path), in_new_interpreter=True, MPLBACKEND=backend
    )
    assert process.returncode == 0, process.stderr
    assert files.comparison_plot.read_bytes().startswith(b"\x89PNG")
    assert files.html_report.stat().st_size > 100_000


def test_importing_the_report_chooses_no_backend() -> None:
    process = run_python(
        "import matplotlib\n"
        "matplotlib.use('svg')\n"
        "import utils.reporting.report\n"
        "print(matplotlib.get_backend())\n"
    )
    assert process.stdout.strip().lower() == "svg", process.stderr


def test_notes_on_the_terminal_have_the_flags_of_the_user(tmp_path: Path) -> None:
    write_results(tmp_path, Scenario(has_diagnosis=False))
    flags = make_flags(tmp_path)
    process = support.run_script(SCRIPT, *flags)
    assert f"python scripts/03_detailed_profiling.py {shlex.join(flags)}" in process.stderr


def test_warnings_of_the_report_have_no_paths_of_this_machine(tmp_path: Path) -> None:
    files = write_results(tmp_path, Scenario(has_diagnosis=False)).files
    process = support.run_script(SCRIPT, *make_flags(tmp_path))
    assert process.returncode == 0, process.stderr
    report = files.summary_report.read_text()
    warnings = report.split("\nWarnings\n")[1].split("\nWhere the files lie")[0]
    assert "step 03 has not run" in warnings
    assert str(tmp_path) not in warnings


def test_missing_metrics_end_with_2_and_name_step_02(tmp_path: Path) -> None:
    process = support.run_script(SCRIPT, *make_flags(tmp_path))
    assert process.returncode == 2
    assert "scripts/02_baseline_inference.py" in process.stderr
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "report.html").exists()


def test_the_results_of_a_run_that_is_still_going_are_left_alone(tmp_path: Path) -> None:
    files = write_results(tmp_path).files
    with run_lock(files.lock):
        process = support.run_script(SCRIPT, *make_flags(tmp_path))
    assert process.returncode == 2
    assert "Another run" in process.stderr
    assert "Traceback" not in process.stderr
    assert not files.html_report.exists()
