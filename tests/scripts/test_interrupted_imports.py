"""Ctrl-C while a script still imports its libraries: one line and exit code 130, no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from utils.core.files import PROJECT_ROOT


@pytest.mark.parametrize("script", ["scripts/02_baseline_inference.py", "run_week1.py"])
def test_interrupted_while_importing(script: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", str(PROJECT_ROOT / script), "--config", "none.yaml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:  # each import is reported as it ends
        if "utils.pipeline.startup" in line:
            break
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "Interrupted before anything was done." in errors
