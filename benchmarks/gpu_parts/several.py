#!/usr/bin/env python
"""Runs several benchmarks one after another in one process, which imports PyTorch only once.

The arguments are those of the benchmarks, with ``+`` between two of them. Where one fails the next
one runs nevertheless.
"""

from __future__ import annotations

import gc
import importlib
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import common

SEPARATOR = "+"


def split_commands(words: Iterable[str]) -> list[list[str]]:
    """The words of each benchmark: its name, then its options."""
    commands: list[list[str]] = [[]]
    for word in words:
        if word == SEPARATOR:
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def run_benchmark(name: str, options: Sequence[str]) -> int:
    """Run one benchmark of this folder in this process; its exit code."""
    script = ROOT / "benchmarks" / f"{name}.py"
    # Benchmarks name themselves and their command by it.
    sys.argv = [str(script), *options]
    try:
        return int(importlib.import_module(f"benchmarks.{name}").main(list(options)))
    except SystemExit as error:
        return int(bool(error.code))
    except Exception as error:  # noqa: BLE001 - whatever ends one benchmark does not end the next
        traceback.print_exc()
        add_failure(Path(options[options.index("--json") + 1]), error)
        return 1


def add_failure(file: Path, error: Exception) -> None:
    """Add to the rows that a benchmark has written that it ended with an error."""
    rows = common.read_rows(file) if file.exists() else []
    first_line = str(error).partition("\n")[0]
    measured = f"{type(error).__name__}: {first_line[:160]}"
    rows.append(
        common.checked(
            "runs to its end", False, expected="no error", measured=measured, note="see log.txt"
        )
    )
    common.write_rows(file, rows, file.stem)


def release_memory() -> None:
    """Free what the benchmark before has left, on the device too."""
    # Each benchmark excludes what exists when it starts from the collector.
    gc.unfreeze()
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def main(words: Sequence[str]) -> int:
    """Run all benchmarks; the highest exit code."""
    exit_codes = []
    for name, *options in split_commands(words):
        print(f"== {name} {' '.join(options)}", flush=True)
        exit_codes.append(run_benchmark(name, options))
        release_memory()
    return max(exit_codes)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
