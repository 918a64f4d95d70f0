"""The check for a GPU machine: goes on after failures, keeps to its time, counts nothing that did not run."""

from __future__ import annotations

import json
import sys
import tarfile
import time
from pathlib import Path
from types import ModuleType

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
from benchmarks.gpu_check import Part
from utils.core.files import PROJECT_ROOT


def part(name: str, code: str, seconds: float = 30, needs: Path | None = None) -> Part:
    def rows(exit_code: int) -> list[common.Row]:
        return [common.judged(name, exit_code == 0, measured=f"exit code {exit_code}")]

    return Part(
        name=name, command=[sys.executable, "-c", code], seconds=seconds, rows=rows, needs=needs
    )


def test_it_goes_on_after_a_failure_and_after_a_part_that_hangs(tmp_path: Path) -> None:
    items = [
        part("fails", "raise SystemExit(3)"),
        part("hangs", "import time; time.sleep(60)", seconds=5.5),
        part("absent", "", needs=PROJECT_ROOT / "benchmarks" / "no_such.py"),
        part("works", "print('done')"),
    ]
    began = time.monotonic()
    found = {
        item.name: [row.status for row in rows]
        for item, rows, _ in gpu_check.check(items, tmp_path, 60)
    }
    assert time.monotonic() - began < 30
    assert found == {"fails": [MISS], "hangs": [MISS, MISS], "absent": [NOT_HERE], "works": [PASS]}
    assert b"done" in (tmp_path / "works.log").read_bytes()


def test_what_a_hanging_part_has_started_ends_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(mark)!r}).touch()"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True).wait()"
    gpu_check.run_part(part("starts another", code), 1.0, tmp_path / "x.log", {})
    time.sleep(3)
    assert not mark.exists()


def test_without_time_left_a_part_has_not_run(tmp_path: Path) -> None:
    ((_, rows, _),) = gpu_check.check([part("late", "")], tmp_path, budget_s=1.0)
    assert [row.status for row in rows] == [NOT_HERE]


def test_the_parts_fit_into_nine_minutes(tmp_path: Path) -> None:
    assert gpu_check.BUDGET_S < 540 - 15
    assert (
        sum(part.seconds for part in gpu_check.parts(tmp_path, dry_run=False)) <= gpu_check.BUDGET_S
    )


def test_a_part_may_use_what_earlier_ones_have_left(tmp_path: Path) -> None:
    items = [
        part("quick", "", seconds=10),
        part("slow", "import time; time.sleep(3)", seconds=0.5),
        part("last", "", seconds=10),
    ]
    found = {
        item.name: [row.status for row in rows]
        for item, rows, _ in gpu_check.check(items, tmp_path, 40)
    }
    assert found == {"quick": [PASS], "slow": [PASS], "last": [PASS]}


def test_the_demo_is_trained_once_and_tokenising_is_not_held_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that decides which embedded model a part trains is the same for the pipelines and the evaluator's peers."""
    commands = {part.name: part.command for part in gpu_check.parts(tmp_path, dry_run=False)}
    embedded = {
        name: {word for word in words if word.startswith("embedded.")}
        for name, words in commands.items()
    }
    same = set(gpu_check.embedded_settings(tmp_path))
    assert (
        embedded["evaluation_peers"]
        == embedded["pipeline, float32"]
        == embedded["pipeline, bfloat16"]
        == same
    )
    assert list(commands)[-3:] == ["evaluation_peers", "evaluation_peers, float32", "repeatability"]
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    code = "import os; raise SystemExit('TOKENIZERS_PARALLELISM' in os.environ)"
    ((_, [row], _),) = gpu_check.check([part("tokenises", code)], tmp_path, 60)
    assert row.status == PASS


def test_both_forms_of_rows_are_read(tmp_path: Path) -> None:
    ours, lines = tmp_path / "ours.json", tmp_path / "lines.json"
    common.write_rows(
        ours,
        [common.reported("speed", 5.0, "rows/s"), common.not_here("energy", "no CUDA device")],
        "x.py",
    )
    written = [
        {"name": "a", "expected": "1", "measured": "2", "passed": passed}
        for passed in (True, False, None)
    ]
    lines.write_text(json.dumps(written))
    assert [row.check for row in gpu_check.benchmark_rows("x", ours, 0)] == [
        "x: speed",
        "x: energy",
    ]
    assert [row.status for row in gpu_check.benchmark_rows("x", lines, 0)] == [PASS, MISS, REPORTED]
    assert [row.status for row in gpu_check.benchmark_rows("x", tmp_path / "none.json", 0)] == [
        MISS
    ]


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
        f'<testsuites><testsuite tests="{total}" failures="{failed}" errors="0" skipped="{skipped}"/></testsuites>'
    )
    assert [row.status for row in gpu_check.test_rows(report, 0)] == [status]


def row_of(size: int, **changes: object) -> dict[str, object]:
    return {
        "batch_size": size,
        "status": "ok",
        "warnings": [],
        "gpu_util_pct_mean": 80.0,
        "achieved_tflops": 1.0,
        "throughput_samples_per_sec_mean": 10.0 * size,
        **changes,
    }


def test_the_pipelines_figures_are_judged(tmp_path: Path) -> None:
    doubtful = row_of(
        8, warnings=["phases: 5% of the time lies between them"], gpu_util_pct_mean=None
    )
    payload = {
        "batch_size_profiling": [row_of(1), doubtful],
        "full_dataset_metrics": {"accuracy": None, "throughput_samples_per_sec": 100.0},
    }
    (tmp_path / "baseline_metrics.json").write_text(json.dumps(payload))
    found = {
        row.check.split(": ")[1]: row
        for row in gpu_check.pipeline_rows(tmp_path, "float32", 0, gpu=True)
    }
    assert found["all four steps"].status == PASS
    assert (found["phases add up"].status, found["GPU utilisation"].status) == (MISS, MISS)
    assert found["GPU utilisation"].measured == "null at 8"
    assert found["best of the sweep, at 8"].measured == 80.0
    (tmp_path / "baseline_metrics.json").unlink()
    assert [row.status for row in gpu_check.pipeline_rows(tmp_path, "float32", 1, gpu=True)] == [
        MISS,
        NOT_HERE,
    ]


def test_what_was_predicted_is_held_against_what_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "bottlenecks.json"

    def suggestion(
        title: str, predicted: float | None, measured: float | None, **changes: object
    ) -> dict[str, object]:
        verification = {
            "measured_speedup": measured,
            "reason": None if measured else "out of memory",
        }
        return {
            "title": title,
            "setting": "a=b",
            "prediction": "estimate",
            "predicted_speedup": predicted,
            "verification": verification,
            **changes,
        }

    suggestions = [
        suggestion("near", 1.1, 1.0),
        suggestion("far", 1.2, 1.0),
        suggestion("failed", 2.0, None),
        suggestion("bound", None, 3.0, prediction="upper-bound"),
        suggestion("untried", 2.0, 2.0, verification=None),
    ]
    kernels = {
        "busy_ms": 3.0,
        "span_ms": 4.0,
        "by_category_ms": {"copy": 1.0, "attention": 3.0},
        "idle_by_cause_ms": {"host_wait": 0.0},
    }
    found = {
        "batch_sizes": [{"batch_size": 1, "verdict": "overhead-bound"}],
        "kernels": kernels,
        "detail_batch_size": 8,
        "suggestions": suggestions[:3],
        "further_suggestions": suggestions[3:],
    }
    file.write_text(json.dumps(found))
    rows = {row.check.removeprefix("x: "): row for row in gpu_check.diagnosis_rows(file, "x")}
    assert (
        rows["verdicts"].measured == "1 overhead-bound"
        and rows["device busy in the traced steps, at 8"].measured == 75
    )
    assert (
        rows["kernels by category in the traced steps, at 8"].measured == "attention 75%, copy 25%"
    )
    assert rows["idle by cause in the traced steps, at 8"].measured == "host_wait 0%"
    assert [row.status for name, row in rows.items() if ", a=b" in name] == [
        PASS,
        MISS,
        MISS,
        REPORTED,
    ]
    file.unlink()
    assert [row.status for row in gpu_check.diagnosis_rows(file, "x")] == [NOT_HERE]


def test_one_folder_with_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    for dtype in gpu_check.BATCH_SIZES:
        (work / dtype / "predictions").mkdir(parents=True)
        (work / dtype / "profiler_traces").mkdir()
        (work / dtype / "baseline_metrics.json").write_text("{}")
        (work / dtype / "profiler_traces" / "trace.json").write_text("{}")
    (work / "x.log").write_bytes(b"a" * 10 * gpu_check.LOG_BYTES_A_PART)
    common.write_rows(work / "x.json", [common.reported("speed", 5.0)], "x.py")
    rows = [common.reported("speed", 5.0), common.not_here("energy", "no CUDA device")]
    gpu_check.collect(out, work, rows, {"x": 1.0})
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


def test_warnings_of_sharing_are_told_from_others() -> None:
    row = {
        "warnings": [
            "shared: NVML lists 2 compute processes on this GPU, this process is one of them",
            "drift: the last third",
        ]
    }
    assert len(gpu_devices.shared_warnings(row)) == 1
