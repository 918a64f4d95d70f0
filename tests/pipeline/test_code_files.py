"""A step's code is what it imports; grimp and Python's own imports judge the list of files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import grimp
import pytest

from utils.core.files import PROJECT_ROOT
from utils.pipeline.code_files import ImportStatement, code_files, find_imports, hash_code
from utils.pipeline.steps import STEPS

SCRIPTS = {step.number: f"scripts/{step.script}" for step in STEPS}
TEMPLATE = "utils/reporting/templates/report.html.j2"
ALL_STEPS = set(SCRIPTS)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code, which tests may change."""
    root = tmp_path_factory.mktemp("tree")
    for folder in ("utils", "scripts", "configs"):
        shutil.copytree(
            PROJECT_ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    return root


@pytest.fixture(scope="module")
def steps_by_file(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Which steps run each file, from grimp's graph of the imports."""
    package = tmp_path_factory.mktemp("judge") / "script_copies"
    package.mkdir()
    (package / "__init__.py").touch()
    for number, script in SCRIPTS.items():
        shutil.copy(tree / script, package / f"step_{number}.py")
    result: dict[str, set[str]] = {script: {number} for number, script in SCRIPTS.items()}
    sys.path.insert(0, str(package.parent))
    try:
        graph = grimp.build_graph(
            package.name, "utils", cache_dir=None, exclude_type_checking_imports=True
        )
    finally:
        sys.path.remove(str(package.parent))
    for number in SCRIPTS:
        for module in _upstream_with_packages(graph, f"{package.name}.step_{number}"):
            if module.startswith("utils"):
                result.setdefault(_file_of(module), set()).add(number)
    return result


def _upstream_with_packages(graph: grimp.ImportGraph, module: str) -> set[str]:
    """The modules that importing ``module`` runs, with the packages around each."""
    reached: set[str] = set()
    waiting = {module}
    while waiting:
        reached |= waiting
        following: set[str] = set()
        for name in waiting:
            following |= graph.find_modules_directly_imported_by(name)
            parent = name.rpartition(".")[0]
            if parent:
                following.add(parent)
        waiting = following - reached
    return reached


def _file_of(module: str) -> str:
    path = Path(*module.split("."))
    if (PROJECT_ROOT / path).is_dir():
        return (path / "__init__.py").as_posix()
    return path.with_suffix(".py").as_posix()


def _hashes(root: Path) -> dict[str, dict[str, str]]:
    return {number: hash_code(root / script, root) for number, script in SCRIPTS.items()}


def _differing(before: Mapping[str, object], after: Mapping[str, object]) -> set[str]:
    return {number for number in before if before[number] != after[number]}


def _run_python(code: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process


def test_a_change_of_any_module_makes_exactly_the_steps_stale_that_import_it(
    tree: Path, steps_by_file: dict[str, set[str]]
) -> None:
    before = _hashes(tree)
    modules = [*tree.glob("utils/**/*.py"), *tree.glob("scripts/0*.py")]
    assert len(modules) > 100
    originals = {file: file.read_bytes() for file in modules}
    for file, original in originals.items():
        file.write_bytes(original + b"\nCHANGED = True\n")
    after = _hashes(tree)
    for file, original in originals.items():
        file.write_bytes(original)
    for file in modules:
        name = file.relative_to(tree).as_posix()
        stale = {
            number for number in SCRIPTS if before[number].get(name) != after[number].get(name)
        }
        assert stale == steps_by_file.get(name, set()), name


@pytest.mark.parametrize(
    ("file", "steps"),
    [
        ("utils/core/files.py", ALL_STEPS),
        ("utils/config_loader.py", ALL_STEPS),
        ("utils/data/reader.py", ALL_STEPS),
        ("utils/data/columns.py", {"01", "02", "03"}),
        ("utils/hub/repository.py", {"01", "02", "03"}),
        ("utils/sweep/bench_stats.py", {"02", "03"}),
        (TEMPLATE, {"04"}),
    ],
)
def test_files_that_a_list_kept_by_hand_missed(tree: Path, file: str, steps: set[str]) -> None:
    using = {number for number, hashes in _hashes(tree).items() if file in hashes}
    assert using == steps


def test_a_comment_counts_as_a_change(tree: Path) -> None:
    before = _hashes(tree)
    file = tree / "utils" / "reporting" / "html_report.py"
    original = file.read_bytes()
    file.write_bytes(b"# A comment.\n" + original)
    stale = _differing(before, _hashes(tree))
    file.write_bytes(original)
    assert stale == {"04"}


def test_a_changed_template_makes_the_report_stale(tree: Path) -> None:
    before = _hashes(tree)
    file = tree / TEMPLATE
    original = file.read_bytes()
    file.write_bytes(original + b"<!-- changed -->")
    stale = _differing(before, _hashes(tree))
    file.write_bytes(original)
    assert stale == {"04"}


def test_every_module_that_python_imports_is_in_the_list() -> None:
    code = (
        "import json, runpy, sys\n"
        "loaded = []\n"
        "for script in sys.argv[1:]:\n"
        "    runpy.run_path(script, run_name='imported')\n"
        "    files = [getattr(m, '__file__', None) for m in list(sys.modules.values())]\n"
        "    loaded.append([file for file in files if file])\n"
        "print(json.dumps(loaded))\n"
    )
    process = _run_python(code, *SCRIPTS.values(), folder=PROJECT_ROOT)
    listed: set[str] = set()
    for script, loaded in zip(SCRIPTS.values(), json.loads(process.stdout), strict=True):
        listed |= {str(file) for file in code_files(PROJECT_ROOT / script, PROJECT_ROOT)}
        own = {file for file in loaded if file.startswith(f"{PROJECT_ROOT}/utils/")}
        assert own
        assert own <= listed


def test_it_is_quick_and_needs_no_torch() -> None:
    code = (
        "import sys, time\n"
        "from utils.core.files import PROJECT_ROOT\n"
        "from utils.pipeline.code_files import hash_code\n"
        "from utils.pipeline.steps import STEPS\n"
        "begin = time.process_time()\n"
        "for step in STEPS:\n"
        "    hash_code(step.path, PROJECT_ROOT)\n"
        "print(time.process_time() - begin, 'torch' in sys.modules)\n"
    )
    process = _run_python(code, folder=PROJECT_ROOT)
    cpu_s, has_torch = process.stdout.split()
    assert float(cpu_s) < 0.5
    assert has_torch == "False"


def test_the_reason_names_the_changed_module_and_no_other(tree: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from utils.config_loader import load_config\n"
        "from utils.pipeline import steps\n"
        "config = load_config('configs/demo.yaml')\n"
        "for step in steps.STEPS:\n"
        "    steps.record_finished(step, config)\n"
        "file = Path('utils/data/columns.py')\n"
        "file.write_text(file.read_text() + '\\nCHANGED = True\\n')\n"
        "for step in steps.STEPS:\n"
        "    print(steps.stale_reason(step, config))\n"
    )
    process = _run_python(code, folder=tree)
    reason = "changed: code utils/data/columns.py"
    assert process.stdout.splitlines() == [reason, reason, reason, "None"]


def test_imports_at_any_depth_count_and_those_for_type_checkers_are_not() -> None:
    source = b"""
import a.b
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import only_types
else:
    import c
try:
    from d import e
except ImportError:
    import f
def function():
    with open("x") as file:
        from . import g
    return [lambda: 0 for _ in file]
match 1:
    case 1:
        import h
text = '''
import not_code
'''
"""
    assert find_imports(source) == (
        ImportStatement(module="a.b"),
        ImportStatement(module="typing", names=("TYPE_CHECKING",)),
        ImportStatement(module="c"),
        ImportStatement(module="d", names=("e",)),
        ImportStatement(module="f"),
        ImportStatement(module="", names=("g",), level=1),
        ImportStatement(module="h"),
    )


def test_relative_imports_and_circles_are_followed(tmp_path: Path) -> None:
    sources = {
        "script.py": "import package.first",
        "package/__init__.py": "",
        "package/first.py": "from . import second",
        "package/second.py": "from .inner.third import name",
        "package/inner/__init__.py": "",
        "package/inner/third.py": "from ..first import something\nimport json",
        "package/unused.py": "",
    }
    for name, source in sources.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    files = code_files(tmp_path / "script.py", tmp_path)
    names = {file.relative_to(tmp_path).as_posix() for file in files}
    assert names == set(sources) - {"package/unused.py"}
