"""Runs checks of a GPU machine in turn within a time budget, and leaves one folder of results.

There are three groups of checks, one a call: ``quick``, ``figures`` and ``speed``. Results are
written after each part and every few seconds while one runs, so that a call that is killed keeps
what it has; it goes on after a failure. Started by gpu_check.sh, which installs missing packages
first, so this module and ``gpu_parts`` import nothing but the standard library.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import common
from benchmarks.common import Row
from benchmarks.gpu_parts.part import Part
from benchmarks.gpu_parts.parts import BUDGET_S, parts_of

# A dry run may take longer than a GPU: it runs on two shared cores.
DRY_RUN_SLACK = 4.0
MIN_PART_S = 5.0
# Between two writings of what a running part has so far.
SAVE_EVERY_S = 10.0
LOG_BYTES_A_PART = 200_000
ARCHIVE_BYTES = 15_000_000
NOT_ARCHIVED = ("predictions", ".state")
NO_LARGE_TRACE = (*NOT_ARCHIVED, "trace.json", "trace.json.gz")
NO_TRACES = (*NOT_ARCHIVED, "profiler_traces")


@dataclass(frozen=True, kw_only=True, slots=True)
class PartResult:
    """What one part has left: its rows, and how many seconds it took."""

    part: Part
    rows: list[Row]
    seconds: float = 0.0


WhileRunning = Callable[[PartResult], object]
"""Receives what a part that still runs has so far."""


def ignore(_: PartResult) -> None: ...


def run_parts(
    parts: Sequence[Part],
    work: Path,
    budget_s: float,
    slack: float = 1.0,
    while_running: WhileRunning = ignore,
) -> Iterator[PartResult]:
    """Run the parts in turn; one that cannot run, or for which no time is left, says so in a row.

    Args:
        budget_s: for all parts together.
        slack: by which all times are multiplied.
    """
    deadline = time.monotonic() + slack * budget_s
    for number, part in enumerate(parts):
        later_s = slack * sum(later.seconds for later in parts[number + 1 :])
        left_s = deadline - time.monotonic()
        if part.needs is not None and not part.needs.exists():
            reason = f"no {part.needs.relative_to(ROOT)}"
            yield PartResult(part=part, rows=[common.not_here(part.name, reason)])
        elif left_s < MIN_PART_S:
            reason = f"no time left of {slack * budget_s:.0f} s"
            yield PartResult(part=part, rows=[common.not_here(part.name, reason)])
        else:
            # What earlier parts have left of their time, this one may use.
            limit_s = min(max(slack * part.seconds, left_s - later_s), left_s)
            yield run_part(part, work, limit_s, while_running)


def run_part(
    part: Part, work: Path, limit_s: float, while_running: WhileRunning = ignore
) -> PartResult:
    """Run one part, with its output in a log, and read its rows."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    started = time.monotonic()
    log = work / part.log_name

    def show_progress() -> None:
        seconds = time.monotonic() - started
        while_running(PartResult(part=part, rows=part.rows(None), seconds=seconds))

    code, is_late = run_process(part.command, limit_s, log, environment, show_progress)
    rows = part.rows(code)
    if is_late:
        late = common.checked(
            part.name,
            False,
            expected=f"<= {limit_s:.0f} s",
            measured="ended",
            note="its time was over",
        )
        rows = [late, *rows]
    return PartResult(part=part, rows=rows, seconds=time.monotonic() - started)


def run_process(
    command: Sequence[str],
    limit_s: float,
    log: Path,
    environment: dict[str, str],
    while_running: Callable[[], object] = lambda: None,
) -> tuple[int, bool]:
    """Run one process and wait, asleep, until it ends or its time is over.

    Args:
        while_running: called every ``SAVE_EVERY_S``.

    Returns:
        Its exit code, and whether it was ended because its time was over.
    """
    deadline = time.monotonic() + limit_s
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while time.monotonic() < deadline:
                left_s = deadline - time.monotonic()
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(timeout=min(SAVE_EVERY_S, left_s)), False
                while_running()
        except BaseException:
            kill_family(process)
            raise
        return kill_family(process), True


def kill_family(process: subprocess.Popen[bytes]) -> int:
    """Kill a process and all that it has started; its exit code.

    The steps run in process groups of their own, which no signal to its group would reach.
    """
    import psutil

    parent = psutil.Process(process.pid)
    for member in [*parent.children(recursive=True), parent]:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    return process.wait()


def delete_earlier_results(out: Path) -> None:
    """Delete what an earlier call has left, so that its results are not taken for this one's."""
    for pattern in ("table.txt", "results.json", "log.txt", "pipeline-*.tar.gz", ".*.part"):
        for file in out.glob(pattern):
            file.unlink()


def collect(
    out: Path, work: Path, results: Sequence[PartResult], *, is_running: bool = False
) -> None:
    """Leave the table, the rows, one log and, if the last part has a results folder, its archive.

    Called again and again: with two pipelines it leaves five files at most.

    Args:
        is_running: the last part has not ended.
    """
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / "log.txt", read_logs(work))
    rows = all_rows(results)
    seconds = {result.part.name: result.seconds for result in results}
    payload = {
        "rows": [asdict(row) for row in rows],
        "seconds": seconds,
        "environment": read_environment(work),
    }
    replace_file(out / "results.json", f"{json.dumps(payload, indent=1)}\n".encode())
    lines = [common.table(rows), "", common.tally(rows), ""]
    lines += [f"{part_s:6.1f} s  {name}" for name, part_s in seconds.items()]
    replace_file(out / "table.txt", "".join(f"{line}\n" for line in lines).encode())
    results_folder = results[-1].part.results_folder
    if results_folder is None or not results_folder.is_dir():
        return
    target = out / f"pipeline-{results_folder.name}.tar.gz"
    if is_running:
        archive_finished_steps(results_folder, target)
    else:
        archive(results_folder, target)


def replace_file(file: Path, content: bytes) -> None:
    """Write a file so that it is complete at any moment, the old one or the new one."""
    unfinished = file.with_name(f".{file.name}.part")
    unfinished.write_bytes(content)
    unfinished.replace(file)


def read_logs(work: Path) -> bytes:
    """The end of each part's output, under its name."""
    ends = []
    for file in sorted(work.glob("*.log")):
        end = file.read_bytes()[-LOG_BYTES_A_PART:]
        ends.append(f"== {file.stem}\n".encode() + end + b"\n")
    return b"".join(ends)


def all_rows(results: Sequence[PartResult]) -> list[Row]:
    rows: list[Row] = []
    for result in results:
        rows += result.rows
    return rows


def read_environment(work: Path) -> Any:
    """The machine's record, which the benchmarks write beside their rows; None without one."""
    for file in sorted(work.glob("*.json")):
        payload = json.loads(file.read_text(encoding="utf-8"))
        if "environment" in payload:
            return payload["environment"]
    return None


def archive(folder: Path, target: Path) -> None:
    """The small results; the trace only where the archive stays small with it."""
    for left_out in (NOT_ARCHIVED, NO_LARGE_TRACE, NO_TRACES):
        write_archive(folder, target, left_out)
        if target.stat().st_size <= ARCHIVE_BYTES:
            return


def archive_finished_steps(folder: Path, target: Path) -> None:
    """What the finished steps of a running pipeline have left, where it is not archived yet.

    A file that the running step renames meanwhile ends the attempt; the next call repeats it.
    """
    written_s = [file.stat().st_mtime for file in folder.glob("*.json")]
    if target.exists() and max(written_s, default=0.0) < target.stat().st_mtime:
        return
    with suppress(OSError):
        write_archive(folder, target, NO_TRACES)


def write_archive(folder: Path, target: Path, left_out: Sequence[str]) -> None:
    """The folder but for what has one of these names, complete at any moment."""
    unfinished = target.with_name(f".{target.name}.part")
    with tarfile.open(unfinished, "w:gz") as tar:
        tar.add(folder, arcname=folder.name, filter=partial(_unless_named, left_out))
    unfinished.replace(target)


def _unless_named(names: Sequence[str], item: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(item.name).name in names else item


def missing_wheels(folder: Path) -> list[str]:
    """The wheels in a folder whose distributions are not installed."""
    missing = []
    for wheel in sorted(folder.glob("*.whl")):
        try:
            importlib.metadata.distribution(wheel.name.split("-")[0])
        except importlib.metadata.PackageNotFoundError:
            missing.append(str(wheel))
    return missing


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Checks on a GPU, without a network.",
        epilog="example:\n  benchmarks/gpu_check.sh quick /tmp/gpu_check",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "group",
        choices=tuple(BUDGET_S),
        help="quick: tests/gpu and a short pipeline, in under 4 minutes; figures: whether the "
        "numbers are right; speed: the evaluator, its peers, the cost of measuring; each in under "
        "9 minutes",
    )
    parser.add_argument(
        "out",
        nargs="?",
        type=Path,
        help="folder of the results (default: a folder of the group's name in $OUT, "
        "else in results/gpu_check)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="walk every check with small stand-ins on the CPU"
    )
    parser.add_argument(
        "--missing-wheels",
        type=Path,
        metavar="FOLDER",
        help="only list the wheels there that are not installed",
    )
    return parser


def default_folder(group: str) -> Path:
    """The results folder of a group where the user names none."""
    return Path(os.environ.get("OUT") or ROOT / "results" / "gpu_check") / group


def end_on_signals() -> None:
    """Let a signal that asks to end raise, so that the running part is ended too."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    if args.missing_wheels:
        print("\n".join(missing_wheels(args.missing_wheels)))
        return 0
    out = args.out or default_folder(args.group)
    results: list[PartResult] = []
    delete_earlier_results(out)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        parts = parts_of(args.group, work, is_dry_run=args.dry_run)
        slack = DRY_RUN_SLACK if args.dry_run else 1.0

        def save_running(running: PartResult) -> None:
            collect(out, work, [*results, running], is_running=True)

        for result in run_parts(parts, work, BUDGET_S[args.group], slack, save_running):
            results.append(result)
            collect(out, work, results)
            tally = common.tally(result.rows)
            print(f"{result.seconds:6.1f} s  {result.part.name}: {tally}", flush=True)
    rows = all_rows(results)
    print(f"\n{common.table(rows)}\n\n{common.tally(rows)}; the results are in {out}")
    return common.exit_code(rows)


if __name__ == "__main__":
    end_on_signals()
    raise SystemExit(main())
