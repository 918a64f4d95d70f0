"""The check for a GPU machine.

It goes on after failures, keeps to its time, and counts nothing that did not run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import psutil
import pytest

from benchmarks import (
    common,
    gpu_check,
    gpu_devices,
)
from benchmarks.common import MISS, NOT_HERE, PASS
from benchmarks.gpu_parts import pipelines
from benchmarks.gpu_parts import rows as part_rows
from benchmarks.gpu_parts.part import Part
from utils.core.files import PROJECT_ROOT

DTYPES = ("float32", "bfloat16")


def part(name: str, code: str, seconds: float = 30, needs: Path | None = None) -> Part:
    def rows(exit_code: int | None) -> list[common.Row]:
        if exit_code is None:
            return [common.not_here(name, "it runs")]
        return [common.checked(name, exit_code == 0, measured=f"exit code {exit_code}")]

    return Part(
        name=name, command=[sys.executable, "-c", code], work_s=seconds, rows=rows, needs=needs
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


HANGING_CHECK = """
import sys
from pathlib import Path
from benchmarks import common, gpu_check
from benchmarks.gpu_parts import part, rows

script, out = sys.argv[1:3]

def parts_of(group, work, is_dry_run):
    file = work / "rows.json"
    return [
        part.Part(name="done", command=["true"], work_s=60,
                  rows=lambda code: [common.checked("done", code == 0)]),
        part.Part(name="hangs", command=[sys.executable, script, str(file)], work_s=60,
                  rows=lambda code: rows.benchmark_rows("hangs", file, code)),
    ]

gpu_check.parts_of = parts_of
gpu_check.SAVE_EVERY_S = 0.2
gpu_check.end_on_signals()
gpu_check.main(["quick", out])
"""


HANGING_PART = """
import os, sys, time
from pathlib import Path
from benchmarks import common
print(os.getpid(), flush=True)
common.write_rows(Path(sys.argv[1]), [common.reported("first", 1.0)], "x")
time.sleep(100)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_check_that_is_killed_keeps_the_rows_of_the_running_part(
    tmp_path: Path, number: signal.Signals
) -> None:
    script, out = tmp_path / "hanging.py", tmp_path / "out"
    script.write_text(HANGING_PART)
    out.mkdir()
    (out / "pipeline-float32.tar.gz").write_text("of an earlier call")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    command = [sys.executable, "-c", HANGING_CHECK, str(script), str(out)]
    process = subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment)
    table = out / "table.txt"
    running = None
    try:
        deadline = time.monotonic() + 90
        while not (table.exists() and "hangs: first" in table.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running = psutil.Process(int((out / "log.txt").read_text().split()[-1]))
        process.send_signal(number)
        process.wait(timeout=20)
        if number == signal.SIGTERM:
            assert ends_soon(running.pid), "what the check has started ends with it"
    finally:
        process.kill()
        process.wait()
        if running is not None and running.is_running():
            running.kill()
    rows = json.loads((out / "results.json").read_text())["rows"]
    assert [row["check"] for row in rows] == ["done", "hangs: first"]
    assert sorted(file.name for file in out.iterdir()) == ["log.txt", "results.json", "table.txt"]


def test_results_of_finished_steps_are_archived_while_a_pipeline_runs(tmp_path: Path) -> None:
    folder, target = tmp_path / "float32", tmp_path / "out.tar.gz"
    (folder / "profiler_traces").mkdir(parents=True)
    (folder / "baseline_metrics.json").write_text("{}")
    gpu_check.archive_finished_steps(folder, target)
    with tarfile.open(target) as tar:
        assert "float32/baseline_metrics.json" in tar.getnames()
        assert "float32/profiler_traces" not in tar.getnames()
    first_s = target.stat().st_mtime_ns
    gpu_check.archive_finished_steps(folder, target)
    assert target.stat().st_mtime_ns == first_s, "nothing new"
    later_s = target.stat().st_mtime + 5
    (folder / "bottlenecks.json").write_text("{}")
    os.utime(folder / "bottlenecks.json", (later_s, later_s))
    gpu_check.archive_finished_steps(folder, target)
    with tarfile.open(target) as tar:
        assert "float32/bottlenecks.json" in tar.getnames()


def test_without_time_left_a_part_has_not_run(tmp_path: Path) -> None:
    assert statuses([part("late", "")], tmp_path, budget_s=1.0) == {"late": [NOT_HERE]}


def test_a_part_may_use_what_earlier_ones_have_left(tmp_path: Path) -> None:
    items = [
        part("quick", "", seconds=10),
        part("slow", "import time; time.sleep(1)", seconds=0.1),
        part("last", "", seconds=10),
    ]
    expected = {"quick": [PASS], "slow": [PASS], "last": [PASS]}
    assert statuses(items, tmp_path, budget_s=40) == expected


def test_one_folder_with_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    for dtype in DTYPES:
        (work / dtype / "predictions").mkdir(parents=True)
        (work / dtype / "profiler_traces").mkdir()
        (work / dtype / "baseline_metrics.json").write_text("{}")
        (work / dtype / "profiler_traces" / "trace.json").write_text("{}")
    (work / "x.log").write_bytes(b"a" * 10 * gpu_check.LOG_BYTES_A_PART)
    common.write_rows(work / "x.json", [common.reported("speed", 5.0)], "x.py")
    rows = [common.reported("speed", 5.0), common.not_here("energy", "no CUDA device")]
    for dtype in DTYPES:
        settings = pipelines.Pipeline(dtype=dtype, batch_sizes=(1, 8), num_runs=3, max_samples=100)
        pipeline = pipelines.pipeline_part(work, settings, starts=3, work_s=30, is_dry_run=False)
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


def test_tokenising_may_use_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    code = "import os; raise SystemExit('TOKENIZERS_PARALLELISM' in os.environ)"
    assert statuses([part("tokenises", code)], tmp_path, budget_s=60) == {"tokenises": [PASS]}
