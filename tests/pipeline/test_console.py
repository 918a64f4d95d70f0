"""A terminal that cannot print a character, or is closed, does not end a run: real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests import support
from utils.core.files import PROJECT_ROOT

LABELS = ("图书", "games 🎮", "música")
PLAIN = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
SAY = f"""
import sys
sys.path.insert(0, {str(PROJECT_ROOT)!r})
from utils.pipeline import console, startup
startup.escape_unprintable_output()
startup.configure_logging("INFO", None)
console.print_line("label 图书 🎮 \\udce9")
console.warn("warning 图书")
console.print_line("the end")
open(sys.argv[1], "w").write("reached")
"""


def run_code(
    folder: Path, redirection: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    script = folder / "say.py"
    script.write_text(SAY, encoding="utf-8")
    command = f'"$0" "$1" "$2" {redirection}'
    words = ["bash", "-c", command, sys.executable, str(script), str(folder / "mark")]
    return subprocess.run(
        words, capture_output=True, text=True, timeout=100, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    "environment", [PLAIN, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1:strict"}]
)
def test_what_cannot_be_printed_is_shown_as_escapes(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    done = run_code(tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["label \\u56fe\\u4e66 \\U0001f3ae \\udce9", "the end"]
    assert done.stderr == "Warning: warning \\u56fe\\u4e66\n"


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "| head -c 0", ">/dev/full"])
def test_a_closed_or_full_stream_does_not_end_the_run(tmp_path: Path, redirection: str) -> None:
    done = run_code(tmp_path, redirection)
    assert (tmp_path / "mark").read_text() == "reached", done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr


def test_steps_run_with_labels_that_the_terminal_cannot_print(tmp_path: Path) -> None:
    model = support.build_tiny_model(tmp_path / "model", labels=LABELS)
    source = tmp_path / "source.csv"
    rows = [(text, LABELS[i % 3]) for i, text in enumerate(support.TEXTS)]
    pd.DataFrame(rows, columns=["text", "labels"]).to_csv(source, index=False, encoding="utf-8")
    settings = [*support.small_overrides(tmp_path, model), f"dataset.hf_name={source}"]
    environment = {**PLAIN, "PYTHONIOENCODING": "ascii"}
    for script in (
        "00_test_model_loading",
        "01_download_data",
        "02_baseline_inference",
        "04_visualize_results",
    ):
        done = support.run_script(
            f"scripts/{script}.py", *support.set_flags(settings), **environment
        )
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        if script == "02_baseline_inference":
            assert "always answering '\\u56fe\\u4e66' would reach 0.333" in done.stdout
    predictions = pd.concat(
        pd.read_parquet(file)
        for file in sorted((tmp_path / "results" / "predictions").glob("*.parquet"))
    )
    assert predictions.label.tolist() == [LABELS[i % 3] for i in range(60)]
    assert LABELS[0] in (tmp_path / "results" / "report.html").read_text(encoding="utf-8")
