"""Runs a step's script with one module of the model slowed down.

python benchmarks/comparison_parts/planted_step.py MODULE SHARE SCRIPT [ARGUMENT ...]

Each call of MODULE (its path in the model) takes longer by SHARE of the time that the forward pass
has taken until then. With a share of 0 nothing takes longer, but the same hooks run, so that both
sides of a comparison differ by the slow-down alone.
"""

from __future__ import annotations

import runpy
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules import module as torch_module

PROJECT_ROOT = Path(__file__).resolve().parents[2]


class SlowDown:
    """Makes a module sleep after its forward.

    Sleeping is one call: a loop would be millions of calls in a trace with call stacks.

    Args:
        path: of the module in the model that contains it.
        share: of the time of the forward pass until then.
    """

    def __init__(self, path: str, share: float) -> None:
        self.path = path
        self.share = share
        self._model: torch.nn.Module | None = None
        self._slowed: torch.nn.Module | None = None
        self._started_s = 0.0

    def before(self, module: torch.nn.Module, inputs: Any) -> None:
        """Remember when the model that contains the module began."""
        if self._model is None:
            self._find_slowed(module)
        if module is self._model:
            self._started_s = time.perf_counter()

    def _find_slowed(self, module: torch.nn.Module) -> None:
        with suppress(AttributeError):
            self._slowed = module.get_submodule(self.path)
            self._model = module

    def after(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        """Take as long as planned, once the module has its result."""
        if module is not self._slowed:
            return
        elapsed_s = time.perf_counter() - self._started_s
        time.sleep(self.share * elapsed_s)


def main() -> None:
    path, share, script, *arguments = sys.argv[1:]
    slow_down = SlowDown(path, float(share))
    # For all modules: the model is loaded by the step. They run inside the ranges that step 03
    # names modules by, because hooks of a module itself come after those of all.
    torch_module.register_module_forward_pre_hook(slow_down.before)
    torch_module.register_module_forward_hook(slow_down.after)
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(PROJECT_ROOT))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
