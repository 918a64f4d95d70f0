#!/usr/bin/env python
"""Profile operators and layers, and say what the bottleneck is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# PyTorch reads it when it is imported; its profiler warns of memory that it did not see allocated.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from utils.analysis.runner import analyse
from utils.config_loader import Config
from utils.core import cli, console, steps
from utils.model_utils import check_max_length, load_model


def body(config: Config) -> None:
    loaded = load_model(config)
    check_max_length(config.profiling.max_length, loaded.model)
    found = analyse(loaded, config)
    for warning in found["warnings"]:
        console.warn(warning)
    lines = [found["main_bottleneck"]]
    for number, win in enumerate(found["wins"], start=1):
        setting = f" (--set {win['setting']})" if win["setting"] else ""
        lines.append(f"{number}. {win['title']}: up to {win['win_ms']:.3g} ms, {win['win_pct']:.0f}% of the batch time")
        lines.append(f"   {win['evidence']}; try: {win['try']}{setting}")
    console.block("BOTTLENECK ANALYSIS", lines)
    console.say(f"Details: {config.files.bottlenecks}, {config.files.traces_dir}")
    steps.record_finished(steps.step("03"), config)


if __name__ == "__main__":
    raise SystemExit(cli.run_file(body, __doc__, alone=True))
