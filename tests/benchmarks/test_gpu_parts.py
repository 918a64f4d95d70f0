"""The parts of the check for a GPU machine: their options, their times, their rows."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import (
    common,
    evaluation_peers,
    gpu_devices,
    known_answers,
    known_times,
    measurement_peers,
    overhead,
    repeatability,
)
from benchmarks.common import MISS, NOT_HERE, PASS, REPORTED
from benchmarks.gpu_parts import part as gpu_part
from benchmarks.gpu_parts import parts, several
from benchmarks.gpu_parts import rows as part_rows
from utils.core.files import PROJECT_ROOT


@pytest.mark.parametrize(("group", "limit_s"), [("quick", 240), ("figures", 540), ("speed", 540)])
def test_the_parts_of_a_call_fit_into_its_time(tmp_path: Path, group: str, limit_s: float) -> None:
    budget_s = parts.BUDGET_S[group]
    assert budget_s <= limit_s - 15, "time for installing and packing is left"
    group_parts = parts.parts_of(group, tmp_path, is_dry_run=False)
    assert gpu_part.SLOW_START_S >= 16
    assert all(part.starts >= 1 and part.work_s > 0 for part in group_parts)
    assert sum(part.seconds for part in group_parts) <= budget_s


def benchmarks_of(group: str, work: Path) -> list[list[str]]:
    """The words of each benchmark that a call runs, in their order."""
    commands = []
    for item in parts.parts_of(group, work, is_dry_run=False):
        if item.command[1].endswith("several.py"):
            commands += several.split_commands(item.command[2:])
    return commands


def names_of(group: str, work: Path) -> set[str]:
    return {part.name for part in parts.parts_of(group, work, is_dry_run=False)}


def test_every_check_is_in_one_of_the_calls(tmp_path: Path) -> None:
    assert names_of("quick", tmp_path) == {"tests/gpu", "pipeline, float32", "pipeline, bfloat16"}
    assert names_of("figures", tmp_path) >= {"pipeline, float32", "tests/gpu, slow ones"}
    names = [words[0] for words in benchmarks_of("figures", tmp_path)]
    assert names == ["known_times", "gpu_devices", "known_answers"]
    names = [words[0] for words in benchmarks_of("speed", tmp_path)]
    expected = ["evaluation_peers", "evaluation_peers", "measurement_peers", "overhead"]
    assert names == [*expected, "repeatability"]


def test_every_benchmark_of_a_call_takes_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only their parsers run: an option that one does not know would end it on the GPU."""
    modules = {
        "evaluation_peers": evaluation_peers,
        "gpu_devices": gpu_devices,
        "known_answers": known_answers,
        "known_times": known_times,
        "measurement_peers": measurement_peers,
        "overhead": overhead,
        "repeatability": repeatability,
    }
    parsed = []

    def measure(args: argparse.Namespace) -> list[common.Row]:
        parsed.append(args)
        return []

    def stop_after_parsing(args: argparse.Namespace, dtype: str) -> None:
        parsed.append(args)
        raise SystemExit(0)

    monkeypatch.setattr(evaluation_peers, "read_config", stop_after_parsing)
    commands = [*benchmarks_of("figures", tmp_path), *benchmarks_of("speed", tmp_path)]
    monkeypatch.setattr(logging, "disable", lambda level: None)
    for name, *options in commands:
        module = modules[name]
        if module is not evaluation_peers:
            monkeypatch.setattr(module, "measure", measure)
        with suppress(SystemExit):
            module.main(options)
    assert len(parsed) == len(commands)
    assert all(args.device == "cuda" for args in parsed)


def test_one_process_runs_several_benchmarks_and_goes_on_after_one_that_fails(
    tmp_path: Path,
) -> None:
    (tmp_path / "benchmarks").mkdir()
    failing = "def main(words):\n    raise ValueError('it broke')\n"
    working = (
        "import sys\n"
        "from pathlib import Path\n"
        "from benchmarks import common\n"
        "def main(words):\n"
        "    rows = [common.reported('speed', sys.argv[-1])]\n"
        "    common.write_rows(Path(words[1]), rows, 'x')\n"
        "    return 0\n"
    )
    for name, code in (("fails", failing), ("works", working)):
        (tmp_path / "benchmarks" / f"{name}.py").write_text(code)
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    words = ["fails", "--json", str(first), "+", "works", "--json", str(second), "--quick"]
    code = (
        "import sys, benchmarks\n"
        "from benchmarks.gpu_parts import several\n"
        f"benchmarks.__path__.append({str(tmp_path / 'benchmarks')!r})\n"
        f"raise SystemExit(several.main({words!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=False)
    assert done.returncode == 1
    (failed,) = part_rows.benchmark_rows("fails", first, 1)
    assert (failed.status, failed.measured) == (MISS, "ValueError: it broke")
    (worked,) = part_rows.benchmark_rows("works", second, 1)
    assert (worked.check, worked.measured) == ("works: speed", "--quick")


def test_only_the_long_float32_pipeline_tries_suggestions(tmp_path: Path) -> None:
    verified = []
    for group in ("quick", "figures"):
        for item in parts.parts_of(group, tmp_path, is_dry_run=False):
            if "--verify" in item.command:
                verified.append((group, item.name))
    assert verified == [("figures", "pipeline, float32")]


def test_the_demo_is_trained_once(tmp_path: Path) -> None:
    """What decides which embedded model is trained is the same for both peers."""
    same = set(parts.embedded_settings(tmp_path))
    embedded = []
    for name, *options in benchmarks_of("speed", tmp_path):
        if name == "evaluation_peers":
            embedded.append({word for word in options if word.startswith("embedded.")})
    assert embedded == [same, same]


def test_the_rows_of_a_benchmark_carry_its_name(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    written = [common.reported("speed", 5.0, "rows/s"), common.not_here("energy", "no CUDA device")]
    common.write_rows(file, written, "x.py")
    rows = part_rows.benchmark_rows("x", file, 0)
    assert [row.check for row in rows] == ["x: speed", "x: energy"]
    assert [row.status for row in rows] == [REPORTED, NOT_HERE]


def test_a_benchmark_that_wrote_no_rows_is_a_miss(tmp_path: Path) -> None:
    rows = part_rows.benchmark_rows("x", tmp_path / "none.json", 0)
    assert [row.status for row in rows] == [MISS]


@pytest.mark.parametrize(
    ("counts", "status"),
    [
        ((5, 0, 0), PASS),
        ((5, 1, 0), MISS),
        ((5, 0, 5), NOT_HERE),
        ((5, 0, 3), PASS),
        ((0, 0, 0), NOT_HERE),
    ],
)
def test_skipped_tests_have_not_passed(
    tmp_path: Path, counts: tuple[int, int, int], status: str
) -> None:
    report = tmp_path / "tests.xml"
    total, failed, skipped = counts
    report.write_text(
        f'<testsuites><testsuite tests="{total}" failures="{failed}" errors="0" '
        f'skipped="{skipped}"/></testsuites>'
    )
    assert [
        row.status for row in part_rows.rows_of_tests(report, 0, tmp_path / "x.log", "tests/gpu")
    ] == [status]


def test_tests_that_were_killed_keep_what_they_had_shown(tmp_path: Path) -> None:
    log = tmp_path / "tests_gpu.log"
    log.write_text(
        "tests/gpu/test_a.py::test_one PASSED      [ 33%]\n"
        "tests/gpu/test_a.py::test_two[cuda 0] FAILED      [ 66%]\n"
        "tests/gpu/test_a.py::test_three "
    )
    (row,) = part_rows.rows_of_tests(tmp_path / "none.xml", -9, log, "tests/gpu")
    assert (row.status, row.measured) == (MISS, "exit code -9, 1 passed, 1 failed")


@pytest.mark.parametrize(
    "module", [known_answers, known_times, overhead, measurement_peers, repeatability, gpu_devices]
)
def test_every_benchmark_has_help_with_an_example(
    module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    assert f"python benchmarks/{Path(module.__file__ or '').name}" in capsys.readouterr().out


def test_nothing_is_timed_in_a_process_in_which_a_benchmark_has_traced(tmp_path: Path) -> None:
    """On CUDA a trace slows later launches."""
    tracing = {"known_answers", "evaluation_peers", "overhead"}
    for group in ("figures", "speed"):
        for item in parts.parts_of(group, tmp_path, is_dry_run=False):
            if item.command[1].endswith("several.py"):
                names = [words[0] for words in several.split_commands(item.command[2:])]
                assert not tracing.intersection(names[:-1])
