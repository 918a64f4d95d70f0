"""Runs checks of a GPU machine in turn within a time budget, and leaves one folder of results.

There are three groups of checks, one a call: ``quick``, ``figures`` and ``speed``. Results are
written after each part, so that a call that is killed keeps what it has; it goes on after a
failure. Started by gpu_check.sh, which installs missing packages first, so this module and
``gpu_parts`` import nothing but the standard library.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import common
from benchmarks.common import Row
from benchmarks.gpu_parts.parts import BUDGET_S, Part, parts_of

# A dry run may take longer than a GPU: it runs on two shared cores.
DRY_RUN_SLACK = 4.0
MIN_PART_S = 5.0
LOG_BYTES_A_PART = 200_000
ARCHIVE_BYTES = 15_000_000
NOT_ARCHIVED = ("predictions", ".state")


@dataclass(frozen=True, kw_only=True, slots=True)
class PartResult:
    """What one part has left: its rows, and how many seconds it took."""

    part: Part
    rows: list[Row]
    seconds: float = 0.0


def run_parts(
    parts: Sequence[Part], work: Path, budget_s: float, slack: float = 1.0
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
            yield run_part(part, work, limit_s)


def run_part(part: Part, work: Path, limit_s: float) -> PartResult:
    """Run one part, with its output in a log, and read its rows."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    started = time.monotonic()
    log = work / part.log_name
    code, is_late = run_process(part.command, limit_s, log, environment)
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
    command: Sequence[str], limit_s: float, log: Path, environment: dict[str, str]
) -> tuple[int, bool]:
    """Run one process and wait, asleep, until it ends or its time is over.

    Returns:
        Its exit code, and whether it was ended because its time was over.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=environment
        )
        try:
            return process.wait(timeout=limit_s), False
        except subprocess.TimeoutExpired:
            return kill_family(process), True
        except BaseException:
            kill_family(process)
            raise


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


def collect(out: Path, work: Path, results: Sequence[PartResult]) -> None:
    """Leave the table, the rows, one log and, if the last part has a results folder, its archive.

    Called after each part: with two pipelines it leaves five files at most.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = all_rows(results)
    seconds = {result.part.name: result.seconds for result in results}
    lines = [common.table(rows), "", common.tally(rows), ""]
    lines += [f"{part_s:6.1f} s  {name}" for name, part_s in seconds.items()]
    (out / "table.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    payload = {
        "rows": [asdict(row) for row in rows],
        "seconds": seconds,
        "environment": read_environment(work),
    }
    (out / "results.json").write_text(json.dumps(payload, indent=1) + "\n", encoding="utf-8")
    with (out / "log.txt").open("wb") as log:
        for file in sorted(work.glob("*.log")):
            end = file.read_bytes()[-LOG_BYTES_A_PART:]
            log.write(f"== {file.stem}\n".encode() + end + b"\n")
    results_folder = results[-1].part.results_folder
    if results_folder is not None and results_folder.is_dir():
        archive(results_folder, out / f"pipeline-{results_folder.name}.tar.gz")


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
    for left_out in (
        NOT_ARCHIVED,
        (*NOT_ARCHIVED, "trace.json", "trace.json.gz"),
        (*NOT_ARCHIVED, "profiler_traces"),
    ):
        with tarfile.open(target, "w:gz") as tar:
            tar.add(folder, arcname=folder.name, filter=partial(_unless_named, left_out))
        if target.stat().st_size <= ARCHIVE_BYTES:
            return


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


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    if args.missing_wheels:
        print("\n".join(missing_wheels(args.missing_wheels)))
        return 0
    out = args.out or default_folder(args.group)
    results: list[PartResult] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        parts = parts_of(args.group, work, is_dry_run=args.dry_run)
        slack = DRY_RUN_SLACK if args.dry_run else 1.0
        for result in run_parts(parts, work, BUDGET_S[args.group], slack):
            results.append(result)
            collect(out, work, results)
            tally = common.tally(result.rows)
            print(f"{result.seconds:6.1f} s  {result.part.name}: {tally}", flush=True)
    rows = all_rows(results)
    print(f"\n{common.table(rows)}\n\n{common.tally(rows)}; the results are in {out}")
    return common.exit_code(rows)


if __name__ == "__main__":
    raise SystemExit(main())
