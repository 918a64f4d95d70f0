"""Paths that settings and the command line name: where they start, and whether they exist."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from utils.core.files import PROJECT_ROOT


def project_path(value: str | Path) -> Path:
    """An absolute path; relative ones start at the project's root."""
    return (PROJECT_ROOT / Path(value).expanduser()).resolve()


def working_directory() -> Path:
    """The directory that the user works in; the project's root if it has been removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return PROJECT_ROOT


def works_in_project_root() -> bool:
    """Whether relative paths mean the same on the command line and in a configuration file."""
    return working_directory().resolve() == PROJECT_ROOT


def tried_places(name: str | Path) -> str:
    """The places where a local path was looked for, for the ``where`` of an error.

    Returns:
        One absolute path, or two, as ``/first/place/name and /second/place/name``.
    """
    in_project = project_path(name)
    in_working_directory = (working_directory() / Path(name).expanduser()).resolve()
    if in_working_directory == in_project:
        return str(in_project)
    return f"{in_working_directory} and {in_project}"


def matches_something(path: Path) -> bool:
    """Whether a path exists, or a pattern matches a file or folder."""
    return path.exists() or bool(glob.glob(str(path), recursive=True))


def find_in_working_directory(name: str) -> Path | None:
    """The absolute path of a name or pattern in the working directory; None without a match."""
    path = Path(os.path.abspath(working_directory() / Path(name).expanduser()))
    if matches_something(path):
        return path
    return None


def source_files(name: str) -> list[Path]:
    """The local files that ``dataset.hf_name`` stands for.

    They are the file itself, all files of the folder, or all files that the pattern matches.
    """
    path = project_path(name)
    if path.is_file():
        return [path]
    if path.is_dir():
        candidates = sorted(path.rglob("*"))
    else:
        candidates = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    return [file for file in candidates if file.is_file()]
