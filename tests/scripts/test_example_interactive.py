"""The guided run on few samples."""

from __future__ import annotations

from pathlib import Path

from tests import support
from tests.scripts.test_run_week1 import flags


def test_it_runs_every_step_and_explains_each(tmp_path: Path, tiny_model: Path) -> None:
    process = support.run_script(
        "example_interactive.py", *flags(tmp_path, tiny_model), "--set", "evaluation.max_samples=30"
    )
    assert process.returncode == 0, process.stdout + process.stderr
    for number in ("01", "02", "03", "04"):
        assert f"RESULTS OF STEP {number}" in process.stdout
    assert "On 30 rows:\n  Accuracy: " in process.stdout
    assert "always answering" in process.stdout
    # The user's own --set replaces the settings of the example.
    assert (tmp_path / "results" / "report.html").exists()
