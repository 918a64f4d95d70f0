"""Which lines of the program run only on a CUDA device, and which of them a test has run."""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from utils.core.files import PROJECT_ROOT

CUDA_NAMES = ("on_cuda", "_on_cuda", "is_cuda", "on_device")
Line = tuple[str, int]
"""A file relative to the project's root, and a line's number."""


def find_cuda_lines(folder: Path = PROJECT_ROOT / "utils") -> frozenset[Line]:
    """First lines of the statements that run only where a condition names CUDA.

    These are the branches of ``if`` and of conditional expressions for CUDA, what follows an early
    return for other devices, and statements that call ``torch.cuda``.
    """
    lines: set[Line] = set()
    for file in sorted(folder.rglob("*.py")):
        name = file.relative_to(PROJECT_ROOT).as_posix()
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            for number in _lines_of(node):
                lines.add((name, number))
    return frozenset(lines)


def _lines_of(node: ast.AST) -> Iterator[int]:
    if isinstance(node, ast.If):
        wanted = _asks_for_cuda(node.test)
        if wanted is True:
            yield from _statements(node.body)
        elif wanted is False:
            yield from _statements(node.orelse)
    elif isinstance(node, (ast.FunctionDef, ast.Module)):
        yield from _after_early_return(node.body)
    elif isinstance(node, (ast.Expr, ast.Assign, ast.AnnAssign, ast.Return)) and _calls_cuda(node):
        yield node.lineno


def _after_early_return(body: list[ast.stmt]) -> Iterator[int]:
    """The statements after ``if device.type != "cuda": return``."""
    for index, statement in enumerate(body):
        if not isinstance(statement, ast.If) or statement.orelse:
            continue
        ends = isinstance(statement.body[-1], (ast.Return, ast.Raise))
        if ends and _asks_for_cuda(statement.test) is False:
            yield from _statements(body[index + 1 :])


def _statements(body: list[ast.stmt]) -> Iterator[int]:
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            continue
        yield statement.lineno
        for name in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, name, []))


def _asks_for_cuda(test: ast.expr) -> bool | None:
    """True where the condition holds on CUDA alone, False where on other devices alone, or None."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = _asks_for_cuda(test.operand)
        return None if inner is None else not inner
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return True if any(_asks_for_cuda(value) is True for value in test.values) else None
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        names_cuda = any(
            isinstance(value, ast.Constant) and value.value == "cuda" for value in test.comparators
        )
        if names_cuda and isinstance(test.ops[0], ast.Eq):
            return True
        if names_cuda and isinstance(test.ops[0], ast.NotEq):
            return False
        return None
    name = getattr(test, "attr", getattr(test, "id", ""))
    if name in CUDA_NAMES:
        return True
    if isinstance(test, ast.Call) and getattr(test.func, "attr", "") == "startswith":
        argument = test.args[0]
        return isinstance(argument, ast.Constant) and argument.value == "cuda" or None
    return None


def _calls_cuda(node: ast.AST) -> bool:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and ast.unparse(inner.func).startswith("torch.cuda."):
            return ast.unparse(inner.func) != "torch.cuda.is_available"
    return False


class LineRecorder:
    """Records which lines of ``find_cuda_lines`` run, in all threads that start while it records.

    A function is traced until each such line of it has run; all others run at their usual speed.
    """

    def missing(self) -> list[tuple[str, int, str]]:
        """File, number and text of the lines that have not run."""
        result = []
        for name, numbers in sorted(self._missing_numbers.items()):
            lines = (PROJECT_ROOT / name).read_text(encoding="utf-8").splitlines()
            result += [(name, number, lines[number - 1].strip()) for number in sorted(numbers)]
        return result

    @cached_property
    def _missing_numbers(self) -> dict[str, set[int]]:
        """Of each file that has some."""
        numbers: dict[str, set[int]] = {}
        for name, number in find_cuda_lines():
            numbers.setdefault(name, set()).add(number)
        return numbers

    @cached_property
    def _names(self) -> dict[str, str]:
        """By the path of a file its name relative to the project's root."""
        return {str(PROJECT_ROOT / name): name for name in self._missing_numbers}

    @contextmanager
    def recording(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self._trace_call)
        threading.settrace(self._trace_call)
        try:
            yield
        finally:
            sys.settrace(before)
            threading.settrace(before)  # type: ignore[arg-type]

    def _trace_call(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = self._names.get(frame.f_code.co_filename)
        if name is None or not self._numbers_in(frame.f_code, name):
            return None
        return self._trace_line

    def _numbers_in(self, code: CodeType, name: str) -> set[int]:
        """The lines of a function that have not run."""
        missing = self._missing_numbers[name]
        if not missing:
            return missing
        return missing.intersection(number for _, _, number in code.co_lines())

    def _trace_line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            name = self._names[frame.f_code.co_filename]
            self._missing_numbers[name].discard(frame.f_lineno)
        return self._trace_line
