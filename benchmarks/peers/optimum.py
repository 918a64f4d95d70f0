"""optimum-benchmark, in an environment of its own: it needs another version of transformers."""

from __future__ import annotations

import json
import subprocess
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks import common
from benchmarks.common import Row
from utils.core.files import PROJECT_ROOT

OPTIMUM_TRANSFORMERS = "transformers==4.57.*"
OPTIMUM_PEER = PROJECT_ROOT / "benchmarks" / "optimum_peer.py"
LAUNCHERS = ("inline", "process")
TIMEOUT_S = 600


def optimum_rows(
    model_dir: Path | None, device: torch.device, num_tokens: int, own_ms: dict[int, float]
) -> Iterator[Row]:
    """optimum-benchmark inline and in a process of its own; it makes up its inputs.

    Args:
        model_dir: folder of the embedded model; None where it is not built.
        num_tokens: length of each row.
        own_ms: the forward by the sweep at this shape, by batch size.
    """
    reason = ""
    python = None
    if model_dir is None:
        reason = "needs the embedded model: python scripts/build_demo_assets.py"
    else:
        try:
            python = make_environment()
        except subprocess.CalledProcessError as error:
            reason = f"its environment cannot be made: {str(error.stderr)[-200:]}"
    for launcher in LAUNCHERS:
        for size, sweep_ms in own_ms.items():
            check = f"batches of {size}, forward: optimum-benchmark, {launcher}"
            if python is None or model_dir is None:
                yield common.not_here(check, reason)
                continue
            words = [launcher, str(model_dir), str(size), str(num_tokens), device.type]
            yield optimum_row(check, python, words, sweep_ms)


def optimum_row(check: str, python: Path, words: Sequence[str], sweep_ms: float) -> Row:
    """One measurement by optimum-benchmark beside the sweep's.

    Args:
        words: the arguments of ``optimum_peer.py``.
    """
    done = subprocess.run(
        [str(python), str(OPTIMUM_PEER), *words],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        # It leaves a log file where it runs.
        cwd=words[1],
    )
    if done.returncode:
        return common.not_here(check, f"it failed: {done.stderr.strip().splitlines()[-1:]}")
    peer_ms = json.loads(done.stdout.splitlines()[-1])["latency_ms"]
    return common.reported(
        check,
        peer_ms,
        "ms",
        "expected is the sweep's forward at its shape",
        expected=sweep_ms,
        error=f"{peer_ms / sweep_ms - 1:+.1%}",
    )


def make_environment() -> Path:
    """The interpreter of ``.bench-env``, which is made where it is missing."""
    folder = PROJECT_ROOT / ".bench-env"
    python = folder / "bin" / "python"
    if (folder / "ready").exists():
        return python
    venv.create(folder, with_pip=True, clear=True)
    torch_version = f"torch=={torch.__version__.split('+')[0]}"
    packages = [torch_version, "optimum-benchmark", OPTIMUM_TRANSFORMERS]
    command = [str(python), "-m", "pip", "install", "--quiet", *packages]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (folder / "ready").touch()
    return python
