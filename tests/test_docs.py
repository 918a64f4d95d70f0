"""The documents: commands run, links lead somewhere, named files, flags and settings exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests import support
from utils.config_loader import Config, load_config
from utils.core.files import PROJECT_ROOT
from utils.pipeline.steps import STEPS

PAGES = (
    PROJECT_ROOT / "README.md",
    PROJECT_ROOT / "CONTRIBUTING.md",
    *sorted((PROJECT_ROOT / "docs").rglob("*.md")),
)
PROSE_PAGES = (*PAGES, PROJECT_ROOT / "CHANGELOG.md")
# Hidden folders hold environments, which may have several GB.
NOT_COPIED = (".*", "data", "results", "__pycache__")
MAKE_DEMO = "python run_week1.py --config configs/demo.yaml"
ACTIVATE = "source .venv/bin/activate"
MAX_COLUMNS = 120
MAX_PARAGRAPH_LINES = 6
README_LINES = 100
"""Two screens."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE_NAME = re.compile(
    r"`((?:utils|scripts|tests|configs|setup|docs|benchmarks)/[\w./-]+\.(?:py|yaml|json|txt|sh|md))`"
)
ROOM_NAME = re.compile(r"`((?:utils|tests)/[\w/-]+/)`")
DEFINED_IN = re.compile(r"`((?:utils|scripts|tests)/[\w/]+\.py)`\s\(`(\w+)`\)")
"""A file with the name of a function or class in it, as in ARCHITECTURE.md."""
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
SETTING = re.compile(
    rf"(?<![\w./])((?:{'|'.join(Config.model_fields)})\.[a-z_]+)(?![\w(*/.])", re.MULTILINE
)
FILE_ENDINGS = ("csv", "json", "parquet", "py", "txt", "md")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def fenced_lines(page: Path, language: str) -> Iterator[str]:
    """Commands in the fences of one language, without comments."""
    for name, body in FENCE.findall(text_of(page)):
        if name != language:
            continue
        for line in body.replace("\\\n", "").splitlines():
            command = " ".join(line.partition(" #")[0].split())
            if command and not command.startswith("#"):
                yield command


def bash_commands() -> list[str]:
    """The commands that are run here, each once, in the order of reading."""
    commands: dict[str, None] = {}
    for page in PAGES:
        for command in fenced_lines(page, "bash"):
            commands[command] = None
    return list(commands)


def python_commands() -> list[tuple[str, str]]:
    """Every command in a fence that starts Python, with the name of its page."""
    commands = []
    for page in PAGES:
        for language in ("bash", "console"):
            for command in fenced_lines(page, language):
                if command.startswith("python "):
                    commands.append((page.name, command))
    return commands


def runs_here(command: str) -> bool:
    return not command.startswith("make ") and command != ACTIVATE


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with a demo of few rows, run once as ``make demo`` runs it."""
    folder = tmp_path_factory.mktemp("docs") / "project"
    shutil.copytree(PROJECT_ROOT, folder, ignore=shutil.ignore_patterns(*NOT_COPIED))
    # The pattern "data" left out utils/data and tests/data too.
    for name in ("utils/data", "tests/data"):
        shutil.copytree(
            PROJECT_ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    file = folder / "configs" / "demo.yaml"
    settings = yaml.safe_load(file.read_text())
    settings["embedded"] = {"training_rows": 1500, "epochs": 1}
    settings["dataset"]["sample_sizes"] = [4]
    settings["profiling"] |= {"batch_sizes": [1, 4], "num_measurement_runs": 2, "max_length": 64}
    settings["profiling"]["trace_steps"] = 1
    settings["evaluation"]["max_samples"] = 100
    file.write_text(yaml.safe_dump(settings))
    done = run(MAKE_DEMO, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of a page in the project at ``folder``; scripts in forked processes."""
    words = shlex.split(command)
    if words[0] == "python" and words[1] != "-m":
        started = support.start_script(str(folder / words[1]), *words[2:], folder=folder)
        stdout, stderr = started.communicate(timeout=550)
        assert started.returncode is not None
        return subprocess.CompletedProcess(words, started.returncode, stdout, stderr)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=550,
        env={**os.environ, "PATH": path},
    )


@pytest.mark.parametrize("command", [line for line in bash_commands() if runs_here(line)])
def test_the_command_works(project: Path, command: str) -> None:
    done = run(command, project)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "target", sorted({line.split()[1] for line in bash_commands() if line.startswith("make ")})
)
def test_the_make_target_exists(target: str) -> None:
    planned = subprocess.run(
        ["make", "-n", target], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert planned
    if target == "demo":
        assert MAKE_DEMO.removeprefix("python ") in planned


@pytest.mark.parametrize(("page", "command"), python_commands())
def test_the_script_exists_and_has_the_flags(page: str, command: str) -> None:
    script, flags = _script_and_flags(command)
    if script is None:
        return
    file = PROJECT_ROOT / script
    assert file.exists(), f"{page}: {command}"
    assert flags <= _flags_of(file), f"{page}: {command}"


@pytest.mark.parametrize(("page", "command"), python_commands())
def test_the_settings_of_the_command_are_valid(page: str, command: str) -> None:
    words = shlex.split(command)
    overrides = []
    for flag, value in zip(words, words[1:], strict=False):
        if flag == "--set" and not value.isupper():
            overrides.append(value)
    load_config(PROJECT_ROOT / "configs" / "demo.yaml", overrides=overrides)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_settings_exist(page: Path) -> None:
    unknown = []
    for name in SETTING.findall(text_of(page)):
        section, _, key = name.partition(".")
        if key in FILE_ENDINGS:
            continue
        fields = type(Config.model_fields[section].default).model_fields
        if key not in fields:
            unknown.append(name)
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(text_of(page)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_and_packages_exist(page: Path) -> None:
    text = text_of(page)
    names = [*FILE_NAME.findall(text), *ROOM_NAME.findall(text)]
    assert [name for name in names if not (PROJECT_ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_functions_are_where_the_page_says(page: Path) -> None:
    missing = []
    for file, name in DEFINED_IN.findall(text_of(page)):
        code = (PROJECT_ROOT / file).read_text(encoding="utf-8")
        if not re.search(rf"^(?:def|class) {name}\b", code, re.MULTILINE):
            missing.append(f"{file}: {name}")
    assert missing == []


def test_named_constants_exist() -> None:
    """Those that ARCHITECTURE.md names."""
    page = text_of(PROJECT_ROOT / "docs" / "ARCHITECTURE.md")
    files = [*PROJECT_ROOT.glob("*.py"), *PROJECT_ROOT.glob("utils/**/*.py")]
    files += PROJECT_ROOT.glob("tests/data/*.py")
    code = "".join(file.read_text(encoding="utf-8") for file in files)
    names = re.findall(r"`([A-Z][A-Z_]{3,})`", page)
    assert len(names) > 5
    assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []


def test_architecture_lists_the_packages_in_the_order_of_their_imports() -> None:
    contract = (PROJECT_ROOT / ".importlinter").read_text(encoding="utf-8")
    layers = contract.partition("layers =\n")[2].partition("containers")[0].split()
    page = text_of(PROJECT_ROOT / "docs" / "ARCHITECTURE.md")
    table = page.partition("## Packages")[2].partition("## ")[0]
    listed = re.findall(r"^\| `(\w+)(?:/|\.py)`", table, re.MULTILINE)
    assert listed == layers


@pytest.mark.parametrize("page", PROSE_PAGES, ids=lambda page: page.name)
def test_no_line_is_too_wide(page: Path) -> None:
    """Tables may be wider."""
    wide = []
    for number, line in enumerate(text_of(page).splitlines(), start=1):
        if len(line) > MAX_COLUMNS and not line.startswith("|"):
            wide.append(number)
    assert wide == []


@pytest.mark.parametrize("page", PROSE_PAGES, ids=lambda page: page.name)
def test_no_paragraph_is_too_long(page: Path) -> None:
    long = [lines[0] for lines in _paragraphs(page) if len(lines) > MAX_PARAGRAPH_LINES]
    assert long == []


def test_explained_messages_exist() -> None:
    """The longest fixed part of each message in the tables of messages stands in the code."""
    code = _message_sources()
    missing = []
    for message in _explained_messages():
        fragment = max(message.split("…"), key=len).strip(" .")
        if fragment not in code:
            missing.append(message)
    assert missing == []


def test_readme_fits_two_screens() -> None:
    assert len(text_of(PROJECT_ROOT / "README.md").splitlines()) <= README_LINES


def _script_and_flags(command: str) -> tuple[str | None, set[str]]:
    """The project's script that a command starts, and its flags; None for ``python -m``."""
    words = shlex.split(command)[1:]
    script = words[0]
    if script.startswith("-"):
        return None, set()
    return script, {word for word in words if word.startswith("--")}


def _flags_of(script: Path) -> set[str]:
    """Every flag that the script and the command line that all scripts share define."""
    sources = [
        script,
        PROJECT_ROOT / "utils/pipeline/cli.py",
        PROJECT_ROOT / "utils/comparison/command_line.py",
        PROJECT_ROOT / "benchmarks/common.py",
    ]
    flags: set[str] = set()
    for source in sources:
        flags.update(FLAG.findall(source.read_text(encoding="utf-8")))
    for step in STEPS:
        flags.add("--" + step.skip_flag.replace("_", "-"))
    return flags


def _explained_messages() -> Iterator[str]:
    """Messages in the first column of the tables whose header is ``message``."""
    in_table = False
    for line in text_of(PROJECT_ROOT / "docs" / "TROUBLESHOOTING.md").splitlines():
        if not line.startswith("|"):
            in_table = False
            continue
        cell = line.split("|")[1]
        if cell.strip() == "message":
            in_table = True
        elif in_table:
            yield from re.findall("`([^`]+)`", cell)


def _message_sources() -> str:
    """The code that prints messages, with string literals of several lines joined."""
    files = [*(PROJECT_ROOT / "utils").rglob("*.py"), *PROJECT_ROOT.glob("setup/*.py")]
    files.append(PROJECT_ROOT / "setup_environment.sh")
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    return re.sub(r'"\s*\n\s*f?"', "", text)


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    anchors = set()
    for line in FENCE.sub("", text_of(page)).splitlines():
        if line.startswith("#"):
            heading = line.lstrip("#").strip().lower()
            anchors.add(re.sub(r"[^\w\- ]", "", heading).replace(" ", "-"))
    return anchors


def _paragraphs(page: Path) -> Iterator[list[str]]:
    """Lines that belong together: each list item is a paragraph; tables and fences are none."""
    lines: list[str] = []
    for line in FENCE.sub("", text_of(page)).splitlines():
        begins_item = re.match(r"\s*([-*]|\d+\.)\s", line) is not None
        is_prose = bool(line.strip()) and not line.startswith(("#", "|"))
        if lines and (begins_item or not is_prose):
            yield lines
            lines = []
        if is_prose:
            lines.append(line)
    if lines:
        yield lines
