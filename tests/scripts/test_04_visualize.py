"""Step 04 for real, on made-up results: from files alone, without torch."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import support
from tests.reporting import fixtures
from utils.core.files import PROJECT_ROOT

SCRIPT = "scripts/04_visualize_results.py"


def flags(folder: Path) -> list[str]:
    return support.set_flags(
        [f"output.results_dir={folder}", f"dataset.local_path={folder / 'data.csv'}"]
    )


def test_step_04_says_where_everything_lies_and_records_that_it_finished(tmp_path: Path) -> None:
    files = fixtures.write_results(tmp_path, oom=(64,)).files
    done = support.run_script(SCRIPT, *flags(tmp_path))
    assert done.returncode == 0, done.stderr
    for path in (
        files.summary_report,
        files.html_report,
        files.comparison_plot,
        files.heatmap_plot,
    ):
        assert str(path) in done.stdout and path.stat().st_size > 0
    assert (files.state_dir / "step_04.json").exists()


def test_step_04_never_imports_torch(tmp_path: Path) -> None:
    fixtures.write_results(tmp_path, step_03=False)
    code = (
        "import runpy, sys\n"
        f"sys.argv = {[SCRIPT, *flags(tmp_path)]!r}\n"
        f"try: runpy.run_path({str(PROJECT_ROOT / SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT_ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert "step 03 has not run" in done.stderr


@pytest.mark.parametrize(
    "backend",
    ["module://matplotlib_inline.backend_inline", "module://not_installed.backend", "nonsense"],
)
def test_a_notebooks_backend_does_not_end_the_step(tmp_path: Path, backend: str) -> None:
    files = fixtures.write_results(tmp_path).files
    done = support.run_script(SCRIPT, *flags(tmp_path), MPLBACKEND=backend)
    assert done.returncode == 0, done.stderr
    assert files.comparison_plot.read_bytes().startswith(b"\x89PNG")
    assert files.html_report.stat().st_size > 100_000


def test_importing_the_plots_chooses_no_backend() -> None:
    code = "import matplotlib; matplotlib.use('svg'); import utils.reporting.html; print(matplotlib.get_backend())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT_ROOT
    )
    assert done.stdout.strip().lower() == "svg", done.stderr


def test_notes_carry_the_users_flags(tmp_path: Path) -> None:
    fixtures.write_results(tmp_path, step_03=False)
    done = support.run_script(SCRIPT, *flags(tmp_path))
    assert f"python scripts/03_detailed_profiling.py {shlex.join(flags(tmp_path))}" in done.stderr
    assert (
        str(tmp_path)
        not in (tmp_path / "baseline_summary_report.txt")
        .read_text()
        .split("Warnings")[1]
        .split("Where")[0]
    )


def test_missing_metrics_end_with_2_and_name_step_02(tmp_path: Path) -> None:
    done = support.run_script(SCRIPT, *flags(tmp_path))
    assert done.returncode == 2
    assert "scripts/02_baseline_inference.py" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "report.html").exists()
