"""Files are written completely or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from utils.core import files as artifacts
from utils.core.errors import DataError, UserError


def test_an_error_inside_keeps_the_old_file_and_leaves_no_rubbish(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    artifacts.write_text(file, "old")
    with pytest.raises(ValueError, match="cut"), artifacts.atomic_path(file) as temporary:
        temporary.write_text("half")
        raise ValueError("cut")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    """A file-size limit stands in for a full disk: write(2) fails in the middle."""
    file = tmp_path / "figures.txt"
    artifacts.write_text(file, "old")
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from utils.core.files import write_text\n"
        "from utils.core.errors import DataError, UserError\n"
        "try: write_text(Path(sys.argv[1]), 'x' * 5000)\n"
        "except UserError as error: print(error); sys.exit(2)"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(file)],
        cwd=artifacts.PROJECT_ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, file.read_text()) == (2, "old"), done.stderr
    assert "Cannot write figures.txt" in done.stdout
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_is_a_file_is_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("in the way")
    with pytest.raises(UserError, match="output.results_dir"):
        artifacts.write_text(tmp_path / "results" / "a.txt", "x")


def test_not_a_number_never_reaches_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        artifacts.write_json(tmp_path / "a.json", {"latency": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not valid JSON"), ("{}", "does not match its schema"), (None, "is not there")],
)
def test_reading_says_what_is_wrong_and_what_makes_the_file(
    tmp_path: Path, content: str | None, message: str
) -> None:
    file, schema = tmp_path / "a.json", tmp_path / "schema.json"
    schema.write_text('{"type": "object", "required": ["run"]}')
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError) as caught:
        artifacts.read_json(file, made_by="python scripts/02.py", schema=schema)
    assert message in str(caught.value)
    assert "python scripts/02.py" in str(caught.value)


def test_results_are_readable_by_others_as_the_umask_allows(tmp_path: Path) -> None:
    artifacts.write_text(tmp_path / "a.txt", "x")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_folder_hash_knows_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = artifacts.sha256_tree(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = artifacts.sha256_tree(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, artifacts.sha256_tree(tmp_path)}) == 3
    assert artifacts.sha256_tree(tmp_path / "none") is None


def test_what_would_fill_the_disk_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    free = shutil.disk_usage(tmp_path).free
    artifacts.check_disk_space(folder, 0, "the model a/b", fix="move it")
    with pytest.raises(
        DataError, match=r"Too little disk space: the model a/b needs(.|\n)*or move it"
    ):
        artifacts.check_disk_space(folder, free, "the model a/b", fix="move it", kind=DataError)
