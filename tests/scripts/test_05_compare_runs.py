"""Step 05 in a process of its own: what it prints and writes, its exit codes, bad input."""

from __future__ import annotations

from pathlib import Path

from tests import support
from tests.reporting.builders import Scenario, write_results
from utils.schema.comparison import load_comparison

SCRIPT = "scripts/05_compare_runs.py"


def write_run(folder: Path, name: str) -> Path:
    """Made-up results of one process, with a run id of their own."""
    results = folder / name
    results.mkdir(parents=True)
    write_results(results, Scenario(sections={"run": {"id": name}}))
    return results


def test_two_folders_are_compared(tmp_path: Path) -> None:
    before = write_run(tmp_path, "before")
    after = write_run(tmp_path, "after")
    flags = support.set_flags([f"output.results_dir={tmp_path / 'out'}"])
    done = support.run_script(SCRIPT, str(before), "--with", str(after), *flags)
    assert done.returncode == 0, done.stderr
    assert "equivalent at batch sizes 1, 4, 8, 16, 32, 64" in done.stdout
    assert (tmp_path / "out" / "comparison.html").exists()
    comparison = load_comparison(tmp_path / "out" / "comparison.json")
    assert {item.verdict for item in comparison.metrics} <= {None, "equivalent"}
