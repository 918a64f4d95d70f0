"""The code that a script runs: its own file, the modules it imports, and the files those read.

Import statements are read from the syntax trees and nothing is executed, so no heavy library is
loaded. Statements inside functions and branches count, because any of them may run. Imports for
type checkers alone (``if TYPE_CHECKING:``) do not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from utils.core.files import sha256_file

NESTED_STATEMENTS = ("body", "orelse", "finalbody", "handlers", "cases")
"""The fields of a syntax node that contain further statements."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportStatement:
    """``import module`` or ``from module import names``.

    Args:
        module: dotted name; empty in ``from . import name``.
        names: what is imported from the module; it may be modules or other names.
        level: the number of leading dots of a relative import.
    """

    module: str
    names: tuple[str, ...] = ()
    level: int = 0


def hash_code(script: Path, root: Path) -> dict[str, str]:
    """SHA-256 of every file that decides what ``script`` does, by its path below ``root``.

    The bytes count, also those of comments: running a step again for a comment costs some minutes,
    while skipping a step whose code has changed gives a wrong result.
    """
    hashes = {}
    for file in code_files(script, root):
        hashes[file.relative_to(root).as_posix()] = sha256_file(file)
    return hashes


def code_files(script: Path, root: Path) -> list[Path]:
    """The script, all modules below ``root`` that it imports, directly or not, and their data.

    Importing a module also runs the ``__init__`` modules of its packages, so these belong to it.
    """
    files: set[Path] = set()
    waiting = [script]
    while waiting:
        module = waiting.pop()
        if module in files:
            continue
        source = module.read_bytes()
        files.add(module)
        files.update(_data_files(module, source))
        for statement in find_imports(source):
            waiting += _imported_files(statement, module, root)
    return sorted(files)


# The four steps import many of the same modules.
@cache
def find_imports(source: bytes) -> tuple[ImportStatement, ...]:
    """The import statements of a module, at any depth."""
    return tuple(_imports_among(ast.parse(source).body))


def _imports_among(nodes: Iterable[ast.AST]) -> Iterator[ImportStatement]:
    """The import statements among syntax nodes and the statements inside them."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield ImportStatement(module=alias.name)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            yield ImportStatement(module=node.module or "", names=names, level=node.level)
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            yield from _imports_among(node.orelse)
        else:
            for field in NESTED_STATEMENTS:
                nested = getattr(node, field, None)
                # The ``body`` of a lambda or of a conditional expression is no list of statements.
                if isinstance(nested, list):
                    yield from _imports_among(nested)


def _is_type_checking(test: ast.expr) -> bool:
    if isinstance(test, ast.Attribute):
        return test.attr == "TYPE_CHECKING"
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _imported_files(statement: ImportStatement, importer: Path, root: Path) -> Iterator[Path]:
    """The files below ``root`` that an import statement runs; none for a library."""
    base = statement.module
    if statement.level:
        package = importer.parents[statement.level - 1].relative_to(root).parts
        base = ".".join((*package, *base.split("."))).rstrip(".")
    parts = base.split(".")
    for end in range(1, len(parts) + 1):
        yield from _module_file(root, parts[:end])
    for name in statement.names:
        yield from _module_file(root, [*parts, name])


def _module_file(root: Path, parts: list[str]) -> Iterator[Path]:
    """The file of the module with this dotted name, where it exists below ``root``."""
    path = root.joinpath(*parts)
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            yield file


def _data_files(module: Path, source: bytes) -> Iterator[Path]:
    """Files of the module's package that are not code and whose name, or whose folder's name, the
    module has in quotes: it reads them.
    """
    for entry in module.parent.iterdir():
        is_code = entry.suffix == ".py" or (entry / "__init__.py").exists()
        if is_code or f'"{entry.name}"'.encode() not in source:
            continue
        if entry.is_file():
            yield entry
        else:
            yield from (file for file in entry.rglob("*") if file.is_file())
