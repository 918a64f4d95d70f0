"""The embedded corpus: docstrings of installed libraries, labelled with their library."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from utils.core.errors import DataError

# Import names. All of them come with Python or with setup/requirements.txt; none is optional.
LIBRARIES = (
    "PIL",
    "datasets",
    "fontTools",
    "fsspec",
    "huggingface_hub",
    "jinja2",
    "joblib",
    "matplotlib",
    "mpmath",
    "networkx",
    "numpy",
    "pandas",
    "pip",
    "psutil",
    "pyarrow",
    "pydantic",
    "python",
    "scipy",
    "seaborn",
    "sklearn",
    "sympy",
    "torch",
    "transformers",
)
STANDARD_LIBRARY = "python"
SKIPPED_PARTS = {
    "tests",
    "test",
    "testing",
    "site-packages",
    "_vendor",
    "__pycache__",
    "idlelib",
    "lib2to3",
    "ensurepip",
}
MAX_PER_LIBRARY = 1000
"""Texts of a library, so that the large ones do not outweigh the small ones."""
MIN_CHARACTERS = 12
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def collect_corpus() -> pd.DataFrame:
    """Read the docstrings without importing the libraries.

    Returns:
        Columns ``text`` and ``labels``; every text once, in an order that depends on the texts
        alone.

    Raises:
        DataError: a library is not installed.
    """
    owners: dict[str, str] = {}
    shared: set[str] = set()
    for library in LIBRARIES:
        for text in _library_docstrings(library):
            if owners.setdefault(text, library) != library:
                shared.add(text)
    # A text that two libraries share (a vendored module) has no right label.
    rows = [(text, owner) for text, owner in owners.items() if text not in shared]
    return _ranked(pd.DataFrame(rows, columns=["text", "labels"]), 0)


def split_corpus(
    corpus: pd.DataFrame, training_rows: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training part and evaluation part.

    No text is in both parts, because every text is in the corpus once.
    """
    order = _ranked(corpus, seed)
    return order.iloc[:training_rows], order.iloc[training_rows:].reset_index(drop=True)


def _ranked(corpus: pd.DataFrame, seed: int) -> pd.DataFrame:
    ranks = corpus["text"].map(lambda text: _rank(text, seed))
    order = ranks.argsort(kind="stable").to_numpy()
    return corpus.iloc[order].reset_index(drop=True)


def _rank(text: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{text}".encode()).hexdigest()


def _library_docstrings(library: str) -> list[str]:
    """The first docstrings of a library, each once.

    The order of the files mixes the library's packages, and is the same on every machine.
    """
    root = _root(library)
    files = []
    for path in root.rglob("*.py"):
        file = path.relative_to(root)
        if not SKIPPED_PARTS & set(file.parts):
            files.append(file)
    texts: dict[str, None] = {}
    for file in sorted(files, key=lambda file: _rank(file.as_posix(), 0)):
        texts.update(dict.fromkeys(_docstrings(root / file)))
        if len(texts) >= MAX_PER_LIBRARY:
            break
    return list(texts)[:MAX_PER_LIBRARY]


def _root(library: str) -> Path:
    if library == STANDARD_LIBRARY:
        return Path(sysconfig.get_path("stdlib"))
    spec = importlib.util.find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"The embedded corpus needs the library {library!r}, which is not installed.",
            fix="install the requirements: ./setup_environment.sh",
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _docstrings(file: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            # Other people's sources have invalid escapes.
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        # Templates, and sources for other versions of Python.
        return
    for node in ast.walk(tree):
        if not isinstance(node, DEFINITIONS):
            continue
        docstring = ast.get_docstring(node, clean=False) or ""
        text = inspect.cleandoc(docstring).strip()
        if len(text) >= MIN_CHARACTERS and "\0" not in text:
            yield text.encode("utf-8", "replace").decode("utf-8")
