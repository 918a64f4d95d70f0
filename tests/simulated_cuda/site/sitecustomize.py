"""Simulates CUDA in a process once it has imported torch.

Python imports this file at its start if its folder is on the path. A process that never imports
torch is left as it is.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from pathlib import Path
from types import ModuleType

PROJECT_ROOT = Path(__file__).resolve().parents[3]


class AfterTorch(importlib.abc.MetaPathFinder):
    """Finds torch as the other finders do, and turns the simulation on after its import."""

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            _run_after(spec.loader)
        return spec


def _run_after(loader) -> None:  # type: ignore[no-untyped-def]
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        from tests.simulated_cuda.simulate import simulate_process

        simulate_process()

    loader.exec_module = exec_module


if "SIMULATED_CUDA" in os.environ:
    sys.path.append(str(PROJECT_ROOT))
    sys.meta_path.insert(0, AfterTorch())
