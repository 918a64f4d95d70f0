"""Ctrl-C while a script still imports its libraries: one line and exit code 130, no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from utils.core.files import PROJECT_ROOT


# A module that the script imports early among the libraries, after it has prepared the process.
@pytest.mark.parametrize(
    ("script", "module"),
    [("scripts/02_baseline_inference.py", "numpy.version"), ("run_week1.py", "yaml.error")],
)
def test_interrupted_while_importing(script: str, module: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", str(PROJECT_ROOT / script), "--config", "none.yaml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:  # each import is reported as it ends
        if line.rstrip().endswith(f" {module}"):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "Interrupted before anything was done." in errors
