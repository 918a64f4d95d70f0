"""The check for a GPU machine.

It goes on after failures, keeps to its time, and counts nothing that did not run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from benchmarks import (
    common,
    gpu_check,
    gpu_devices,
    known_answers,
    known_times,
    measurement_peers,
    overhead,
    repeatability,
)
from benchmarks.common import MISS, NOT_HERE, PASS, REPORTED
from benchmarks.gpu_parts import parts
from benchmarks.gpu_parts import rows as part_rows
from benchmarks.gpu_parts.parts import BATCH_SIZES, Part
from utils.core.files import PROJECT_ROOT


def part(name: str, code: str, seconds: float = 30, needs: Path | None = None) -> Part:
    def rows(exit_code: int) -> list[common.Row]:
        return [common.checked(name, exit_code == 0, measured=f"exit code {exit_code}")]

    return Part(
        name=name, command=[sys.executable, "-c", code], seconds=seconds, rows=rows, needs=needs
    )


def statuses(items: list[Part], work: Path, budget_s: float) -> dict[str, list[str]]:
    """The statuses of each part's rows, by the part's name."""
    results = gpu_check.run_parts(items, work, budget_s)
    return {result.part.name: [row.status for row in result.rows] for result in results}


def test_it_goes_on_after_a_failure_and_after_a_part_that_hangs(tmp_path: Path) -> None:
    items = [
        part("fails", "raise SystemExit(3)"),
        part("hangs", "import time; time.sleep(60)", seconds=2.0),
        part("absent", "", needs=PROJECT_ROOT / "benchmarks" / "no_such.py"),
        part("works", "print('done')"),
    ]
    assert statuses(items, tmp_path, budget_s=60) == {
        "fails": [MISS],
        "hangs": [MISS, MISS],
        "absent": [NOT_HERE],
        "works": [PASS],
    }
    assert b"done" in (tmp_path / "works.log").read_bytes()


def ends_soon(process_id: int) -> bool:
    """Whether a process that is no child of this one ends within seconds."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_what_a_hanging_part_has_started_ends_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    child = f"import time, pathlib; pathlib.Path({str(mark)!r}).touch(); time.sleep(60)"
    code = (
        "import subprocess, sys\n"
        f"words = [sys.executable, '-c', {child!r}]\n"
        "other = subprocess.Popen(words, start_new_session=True)\n"
        "print(other.pid, flush=True)\n"
        "other.wait()\n"
    )
    log = tmp_path / "x.log"
    gpu_check.run_process([sys.executable, "-c", code], 3.0, log, {})
    assert mark.exists(), "it had started"
    assert ends_soon(int(log.read_text()))


def test_a_benchmark_that_is_killed_keeps_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    code = (
        "import sys, time\n"
        "from benchmarks import common\n"
        "def measure(args):\n"
        "    yield common.reported('first', 1.0)\n"
        "    time.sleep(60)\n"
        "    yield common.reported('second', 2.0)\n"
        "parser = common.make_parser('', '')\n"
        f"common.run(parser, measure, ['--device', 'cpu', '--json', {str(file)!r}])\n"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, cwd=PROJECT_ROOT)
    try:
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    assert [row.check for row in part_rows.benchmark_rows("x", file, -9)] == ["x: first"]


def test_without_time_left_a_part_has_not_run(tmp_path: Path) -> None:
    assert statuses([part("late", "")], tmp_path, budget_s=1.0) == {"late": [NOT_HERE]}


@pytest.mark.parametrize(("group", "limit_s"), [("quick", 240), ("figures", 540), ("speed", 540)])
def test_the_parts_of_a_call_fit_into_its_time(tmp_path: Path, group: str, limit_s: float) -> None:
    budget_s = parts.BUDGET_S[group]
    assert budget_s <= limit_s - 15, "time for installing and packing is left"
    group_parts = parts.parts_of(group, tmp_path, is_dry_run=False)
    assert sum(part.seconds for part in group_parts) <= budget_s


def names_of(group: str, work: Path) -> set[str]:
    return {part.name for part in parts.parts_of(group, work, is_dry_run=False)}


def test_every_check_is_in_one_of_the_calls(tmp_path: Path) -> None:
    assert names_of("quick", tmp_path) == {"tests/gpu", "pipeline, float32", "pipeline, bfloat16"}
    assert names_of("figures", tmp_path) >= {"known_times", "known_answers", "gpu_devices"}
    assert names_of("speed", tmp_path) >= {"evaluation_peers", "overhead", "repeatability"}


def test_only_the_long_float32_pipeline_tries_suggestions(tmp_path: Path) -> None:
    verified = []
    for group in ("quick", "figures"):
        for item in parts.parts_of(group, tmp_path, is_dry_run=False):
            if "--verify" in item.command:
                verified.append((group, item.name))
    assert verified == [("figures", "pipeline, float32")]


def test_a_part_may_use_what_earlier_ones_have_left(tmp_path: Path) -> None:
    items = [
        part("quick", "", seconds=10),
        part("slow", "import time; time.sleep(1)", seconds=0.1),
        part("last", "", seconds=10),
    ]
    expected = {"quick": [PASS], "slow": [PASS], "last": [PASS]}
    assert statuses(items, tmp_path, budget_s=40) == expected


def test_the_demo_is_trained_once_and_tokenising_may_use_all_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What decides which embedded model is trained is the same for both peers."""
    commands = {
        part.name: part.command for part in parts.parts_of("speed", tmp_path, is_dry_run=False)
    }
    embedded = {
        name: {word for word in words if word.startswith("embedded.")}
        for name, words in commands.items()
    }
    same = set(parts.embedded_settings(tmp_path))
    assert embedded["evaluation_peers"] == embedded["evaluation_peers, float32"] == same
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    code = "import os; raise SystemExit('TOKENIZERS_PARALLELISM' in os.environ)"
    assert statuses([part("tokenises", code)], tmp_path, budget_s=60) == {"tokenises": [PASS]}


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


def test_one_folder_with_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    for dtype in BATCH_SIZES:
        (work / dtype / "predictions").mkdir(parents=True)
        (work / dtype / "profiler_traces").mkdir()
        (work / dtype / "baseline_metrics.json").write_text("{}")
        (work / dtype / "profiler_traces" / "trace.json").write_text("{}")
    (work / "x.log").write_bytes(b"a" * 10 * gpu_check.LOG_BYTES_A_PART)
    common.write_rows(work / "x.json", [common.reported("speed", 5.0)], "x.py")
    rows = [common.reported("speed", 5.0), common.not_here("energy", "no CUDA device")]
    for dtype in BATCH_SIZES:
        pipeline = parts.pipeline_part(work, dtype, 30, is_dry_run=False)
        gpu_check.collect(out, work, [gpu_check.PartResult(part=pipeline, rows=rows)])
    files = sorted(file.name for file in out.iterdir())
    assert files == [
        "log.txt",
        "pipeline-bfloat16.tar.gz",
        "pipeline-float32.tar.gz",
        "results.json",
        "table.txt",
    ]
    assert (out / "log.txt").stat().st_size < 2 * gpu_check.LOG_BYTES_A_PART
    assert "not here: no CUDA device" in (out / "table.txt").read_text()
    assert json.loads((out / "results.json").read_text())["environment"]["python"]
    with tarfile.open(out / "pipeline-float32.tar.gz") as tar:
        names = tar.getnames()
    assert "float32/profiler_traces/trace.json" in names
    assert not any("predictions" in name for name in names)
    monkeypatch.setattr(gpu_check, "ARCHIVE_BYTES", 10)
    gpu_check.archive(work / "float32", out / "small.tar.gz")
    with tarfile.open(out / "small.tar.gz") as tar:
        assert not any("trace" in name for name in tar.getnames())


def test_only_wheels_that_are_missing_are_installed(tmp_path: Path) -> None:
    for name in ("torch-2.6.0-py3-none-any.whl", "no_such_package-1.0-py3-none-any.whl"):
        (tmp_path / name).touch()
    assert gpu_check.missing_wheels(tmp_path) == [
        str(tmp_path / "no_such_package-1.0-py3-none-any.whl")
    ]


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


@pytest.mark.parametrize(
    ("beside", "alone", "num_listed", "expected"),
    [
        (["shared: 2"], [], 2, [PASS, PASS]),
        ([], [], 2, [MISS, PASS]),
        (["shared: 2"], ["shared: 2"], 3, [PASS, MISS]),
        ([], [], 1, [NOT_HERE, NOT_HERE]),
        ([], [], 0, [NOT_HERE, NOT_HERE]),
        ([], [], None, [NOT_HERE, NOT_HERE]),
        (["shared: busy"], [], 0, [PASS, PASS]),
    ],
)
def test_a_container_that_hides_processes_decides_nothing(
    beside: list[str], alone: list[str], num_listed: int | None, expected: list[str]
) -> None:
    rows = gpu_devices.compare_warnings(beside, alone, num_listed)
    assert [row.status for row in rows] == expected


def test_warnings_of_sharing_are_distinguished_from_others() -> None:
    row = {
        "warnings": [
            "shared: NVML lists 2 compute processes on this GPU, this process is one of them",
            "drift: the last third",
        ]
    }
    assert len(gpu_devices.shared_warnings(row)) == 1
