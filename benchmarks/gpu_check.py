"""Runs every check in turn within a time budget, goes on after a failure, and leaves one folder with the results.

Started by gpu_check.sh, which puts missing packages in place first: so this module imports nothing but the standard library.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import common
from benchmarks.common import Row

BUDGET_S = 520.0
"""For all parts together; what is left to nine minutes is for installing, packing and the last part's end."""
DRY_RUN_SLACK = 4
"""A dry run is not held to the GPU's clock: two shared cores take longer over it."""
LEAST_S = 5.0
PREDICTED_WITHIN = 0.15
LOG_BYTES_A_PART = 200_000
ARCHIVE_BYTES = 15_000_000
ARCHITECTURE = ROOT / "configs" / "architectures" / "qwen2.5-0.5b.json"
NOT_ARCHIVED = ("predictions", "logs", ".state")
GPU_PEERS = ("plain loop", "pipeline", "Trainer.predict", "this evaluator, compiled")
BATCH_SIZES = {"float32": [1, 4, 8, 16, 32, 64, 256], "bfloat16": [1, 4, 8, 16, 32, 64, 256, 1024]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One process of the check.

    Args:
        seconds: what it may take even where every other part takes its own. It is ended, with all that it has started, when
            it has used up these and those that earlier parts have left.
        rows: what to read from what it left, given its exit code.
        needs: a file without which it is not here.
    """

    name: str
    command: list[str]
    seconds: float
    rows: Callable[[int], list[Row]]
    needs: Path | None = None


def parts(work: Path, dry_run: bool) -> list[Part]:
    """All checks, the cheapest first, so that a slow one at the end cannot cost the others."""
    device = "cpu" if dry_run else "cuda"
    python = sys.executable

    def benchmark(name: str, seconds: float, *options: str, part: str | None = None) -> Part:
        part = part or name
        file, out = ROOT / "benchmarks" / f"{name}.py", work / f"{_file_name(part)}.json"
        command = [
            python,
            str(file),
            "--device",
            device,
            "--json",
            str(out),
            *options,
            *(["--quick"] if dry_run else []),
        ]
        return Part(
            name=part,
            command=command,
            seconds=seconds,
            needs=file,
            rows=lambda code: benchmark_rows(part, out, code),
        )

    peers = [
        "--architecture",
        str(ARCHITECTURE),
        *(word for setting in embedded_settings(work) for word in ("--set", setting)),
    ]
    bfloat16 = [
        *peers,
        "--dtype",
        "bfloat16",
        "--rows",
        "4096",
        "--rounds",
        "3",
        "--peers",
        *GPU_PEERS,
    ]
    float32 = [
        *peers,
        "--dtype",
        "float32",
        "--tf32",
        "--rows",
        "1024",
        "--rounds",
        "1",
        "--peers",
        "plain loop",
    ]
    tests = ROOT / "tests" / "gpu"
    report = work / "tests.xml"
    pytest = [
        python,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
        str(tests),
    ]
    return [
        benchmark("known_times", 30),
        benchmark("known_answers", 40, "--quick"),
        benchmark("gpu_devices", 25),
        benchmark("overhead", 30, "--quick", "--rounds", "5"),
        benchmark("measurement_peers", 30, "--quick", "--rounds", "5"),
        Part(
            name="tests/gpu",
            command=pytest,
            seconds=40,
            needs=tests,
            rows=lambda code: test_rows(report, code),
        ),
        *(pipeline(work, dtype, dry_run) for dtype in ("float32", "bfloat16")),
        benchmark("evaluation_peers", 95, *([] if dry_run else bfloat16)),
        benchmark(
            "evaluation_peers",
            45,
            *(["--peers", "plain loop"] if dry_run else float32),
            part="evaluation_peers, float32",
        ),
        benchmark("repeatability", 30, "--processes", "3", "--runs", "10"),
    ]


def pipeline(work: Path, dtype: str, dry_run: bool) -> Part:
    """All four steps on the 0.5B architecture with random weights and the embedded corpus."""
    results, settings = work / dtype, pipeline_settings(work, dtype, dry_run)
    command = [
        sys.executable,
        str(ROOT / "run_week1.py"),
        "--config",
        "configs/demo.yaml",
        *(["--verify"] if dtype == "float32" else []),
    ]
    command += [word for setting in settings for word in ("--set", setting)]
    return Part(
        name=f"pipeline, {dtype}",
        command=command,
        seconds=110 if dtype == "float32" else 45,
        rows=lambda code: pipeline_rows(results, dtype, code, gpu=not dry_run),
    )


def embedded_settings(work: Path) -> list[str]:
    """The corpus and its tokenizer: one list for all parts, else each would train a model of its own."""
    return [f"embedded.dir={work / 'demo'}", "embedded.training_rows=2000", "embedded.epochs=1"]


def pipeline_settings(work: Path, dtype: str, dry_run: bool) -> list[str]:
    """What differs from ``configs/demo.yaml``."""
    architecture, sizes, rows, runs, evaluated = ARCHITECTURE, BATCH_SIZES[dtype], 64, 5, 5000
    if dry_run:
        architecture, sizes, rows, runs, evaluated = small_architecture(work), [1, 4], 8, 3, 40
    return [
        f"model.name={architecture}",
        "model.load_format=dummy",
        "model.tokenizer=embedded",
        f"model.device={'cpu' if dry_run else 'cuda'}",
        f"model.dtype={dtype}",
        "model.matmul_precision=highest",
        *embedded_settings(work),
        f"dataset.local_path={work / 'data' / 'val_df.csv'}",
        f"dataset.sample_sizes=[{rows}]",
        f"profiling.batch_sizes={sizes}",
        f"profiling.num_measurement_runs={runs}",
        "profiling.max_length=512",
        f"evaluation.max_samples={evaluated}",
        f"output.results_dir={work / dtype}",
    ]


def small_architecture(work: Path) -> Path:
    """The same kind of model, small enough for a CPU."""
    changes = {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "vocab_size": 9000,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    path = work / "small.json"
    path.write_text(
        json.dumps({**json.loads(ARCHITECTURE.read_text(encoding="utf-8")), **changes}),
        encoding="utf-8",
    )
    return path


def benchmark_rows(name: str, file: Path, code: int) -> list[Row]:
    """What a benchmark wrote, in either form; one miss where it wrote nothing."""
    written = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    rows = (
        [_verdict(item) for item in written]
        if isinstance(written, list)
        else common.read_rows(file)
    )
    if not rows:
        return [
            common.judged(
                name, False, expected="its rows", measured=f"exit code {code}", note="see log.txt"
            )
        ]
    return [Row(**{**asdict(row), "check": f"{name}: {row.check}"}) for row in rows]


def _verdict(item: dict[str, Any]) -> Row:
    """A line with ``name``, ``expected``, ``measured`` and ``passed``; None has not passed."""
    status = (
        common.REPORTED
        if item["passed"] is None
        else common.PASS
        if item["passed"]
        else common.MISS
    )
    return Row(
        check=item["name"], expected=item["expected"], measured=item["measured"], status=status
    )


def test_rows(report: Path, code: int) -> list[Row]:
    """Passed, failed and skipped; skipped tests have not passed."""
    if not report.exists():
        return [
            common.judged(
                "tests/gpu",
                False,
                expected="all pass",
                measured=f"exit code {code}",
                note="see log.txt",
            )
        ]
    suites = list(ElementTree.parse(report).iter("testsuite"))
    total, failed, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites for name in names)
        for names in (("tests",), ("failures", "errors"), ("skipped",))
    )
    passed = total - failed - skipped
    if failed:
        said = f"{passed} passed, {failed} failed, {skipped} skipped"
        return [common.judged("tests/gpu", False, expected="all pass", measured=said)]
    if not passed:
        return [
            common.not_here("tests/gpu", f"{skipped} tests, all skipped" if skipped else "no tests")
        ]
    return [
        common.judged(
            "tests/gpu", True, expected="all pass", measured=f"{passed} passed, {skipped} skipped"
        )
    ]


def pipeline_rows(results: Path, dtype: str, code: int, *, gpu: bool) -> list[Row]:
    """What the metrics file shows: finished, every batch size measured, phases that add up, GPU figures that are there."""
    file, name = results / "baseline_metrics.json", f"pipeline, {dtype}"
    rows = [
        common.judged(
            f"{name}: all four steps",
            code == 0,
            expected="exit code 0",
            measured=f"exit code {code}",
        )
    ]
    if not file.exists():
        return [*rows, common.not_here(f"{name}: figures", "no baseline_metrics.json; see log.txt")]
    payload = json.loads(file.read_text(encoding="utf-8"))
    sweep, evaluation = payload["batch_size_profiling"], payload["full_dataset_metrics"]
    statuses = ", ".join(f"{row['batch_size']} {row['status']}" for row in sweep)
    measured = [row for row in sweep if row["status"] == "ok"]
    rows.append(
        common.judged(
            f"{name}: batch sizes", bool(measured), expected="ok, or oom", measured=statuses
        )
    )
    if not measured:
        return rows
    gaps = [text for row in measured for text in row["warnings"] if text.startswith("phases")]
    rows.append(
        common.judged(
            f"{name}: phases add up",
            not gaps,
            expected="within 3%",
            measured="; ".join(gaps) or "within 3%",
        )
    )
    missing = [str(row["batch_size"]) for row in measured if row["gpu_util_pct_mean"] is None]
    if gpu:
        rows.append(
            common.judged(
                f"{name}: GPU utilisation",
                not missing,
                expected="at every batch size",
                measured=f"null at {', '.join(missing)}" if missing else "at every batch size",
            )
        )
    else:
        rows.append(common.not_here(f"{name}: GPU utilisation", "dry run on the CPU"))
    dummy = evaluation["accuracy"] is None
    rows.append(
        common.judged(
            f"{name}: accuracy of random weights",
            dummy,
            expected="null",
            measured=str(evaluation["accuracy"]),
        )
    )
    best = max(measured, key=lambda row: row["throughput_samples_per_sec_mean"])
    rate = best["throughput_samples_per_sec_mean"]
    rows.append(
        common.reported(f"{name}: best of the sweep, at {best['batch_size']}", rate, "samples/s")
    )
    rows.append(
        common.reported(
            f"{name}: whole data set", evaluation["throughput_samples_per_sec"], "samples/s"
        )
    )
    if best["achieved_tflops"] is not None:
        rows.append(
            common.reported(
                f"{name}: executed FLOPs at {best['batch_size']}",
                best["achieved_tflops"],
                "TFLOP/s",
            )
        )
    return [*rows, *diagnosis_rows(results / "bottlenecks.json", name)]


def diagnosis_rows(file: Path, name: str) -> list[Row]:
    """The verdicts, the kernels' busy share, and each suggestion's predicted and measured speed-up."""
    if not file.exists():
        return [common.not_here(f"{name}: diagnosis", "no bottlenecks.json; see log.txt")]
    diagnosis = json.loads(file.read_text(encoding="utf-8"))
    verdicts = ", ".join(
        f"{row['batch_size']} {row['verdict']}" for row in diagnosis["batch_sizes"]
    )
    rows = [
        common.judged(
            f"{name}: verdicts", bool(verdicts), expected="one a batch size", measured=verdicts
        )
    ]
    if diagnosis["kernels"]:
        rows += _kernel_rows(diagnosis, name)
    for suggestion in (*diagnosis["suggestions"], *diagnosis["further_suggestions"]):
        if suggestion["setting"] is not None and suggestion["verification"] is not None:
            rows.append(_suggestion_row(suggestion, name))
    return rows


def _kernel_rows(diagnosis: Mapping[str, Any], name: str) -> list[Row]:
    kernels = diagnosis["kernels"]
    place = f"in the traced steps, at {diagnosis['detail_batch_size']}"
    busy_pct = 100 * kernels["busy_ms"] / kernels["span_ms"]
    rows = [common.reported(f"{name}: device busy {place}", busy_pct, "%")]
    for what, parts in (
        ("kernels by category", kernels["by_category_ms"]),
        ("idle by cause", kernels["idle_by_cause_ms"]),
    ):
        total_ms = sum(parts.values()) or 1.0
        longest_first = sorted(parts.items(), key=lambda item: -item[1])
        shares = ", ".join(f"{kind} {ms / total_ms:.0%}" for kind, ms in longest_first)
        check = f"{name}: {what} {place}"
        rows.append(Row(check=check, expected="", measured=shares, status=common.REPORTED))
    return rows


def _suggestion_row(suggestion: Mapping[str, Any], name: str) -> Row:
    check = f"{name}: {suggestion['title']}, {suggestion['setting']}"
    verified, predicted = suggestion["verification"], suggestion["predicted_speedup"]
    if verified["reason"]:
        return common.judged(check, False, expected="tried", measured=verified["reason"])
    measured = verified["measured_speedup"]
    if suggestion["prediction"] == "estimate":
        return common.within(check, measured, predicted, "times", relative=PREDICTED_WITHIN)
    bound = f"predicted: at most {predicted or math.inf:.2f}"
    return common.reported(check, measured, "times", bound)


def run_part(
    part: Part, seconds: float, log: Path, environment: dict[str, str]
) -> tuple[int, bool]:
    """Run one process and wait, asleep, until it ends or its time is over.

    Returns:
        Its exit code, and whether it was ended because its time was over.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(
            part.command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=environment
        )
        try:
            return process.wait(timeout=seconds), False
        except subprocess.TimeoutExpired:
            return _end(process), True
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen[bytes]) -> int:
    """End it with all that it has started: steps run in groups of their own, which no signal to its group would reach."""
    import psutil

    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    return process.wait()


def check(
    items: Sequence[Part], work: Path, budget_s: float, slack: float = 1
) -> Iterator[tuple[Part, list[Row], float]]:
    """Each part's rows and seconds; a part that is not there, or for which no time is left, says so.

    Args:
        budget_s: for all parts together.
        slack: by which all times are multiplied.
    """
    started = time.monotonic()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    for number, part in enumerate(items):
        later = slack * sum(item.seconds for item in items[number + 1 :])
        left = slack * budget_s - (time.monotonic() - started)
        if part.needs is not None and not part.needs.exists():
            yield part, [common.not_here(part.name, f"no {part.needs.relative_to(ROOT)}")], 0.0
        elif left < LEAST_S:
            yield (
                part,
                [common.not_here(part.name, f"no time left of {slack * budget_s:.0f} s")],
                0.0,
            )
        else:
            began, seconds = time.monotonic(), min(max(slack * part.seconds, left - later), left)
            code, late = run_part(part, seconds, work / f"{_file_name(part.name)}.log", environment)
            ended = common.judged(
                part.name,
                False,
                expected=f"<= {seconds:.0f} s",
                measured="ended",
                note="its time was over",
            )
            yield part, [*([ended] if late else []), *part.rows(code)], time.monotonic() - began


def _file_name(name: str) -> str:
    return re.sub(r"\W+", "_", name)


def collect(out: Path, work: Path, rows: Sequence[Row], times: dict[str, float]) -> None:
    """Leave the table, the rows, one log and an archive of each pipeline: at most five files."""
    out.mkdir(parents=True, exist_ok=True)
    lines = [
        common.table(rows),
        "",
        common.tally(rows),
        "",
        *(f"{seconds:6.1f} s  {name}" for name, seconds in times.items()),
    ]
    (out / "table.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    written = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(work.glob("*.json"))]
    machine = next(
        (
            payload["environment"]
            for payload in written
            if isinstance(payload, dict) and "environment" in payload
        ),
        None,
    )
    payload = {"rows": [asdict(row) for row in rows], "seconds": times, "environment": machine}
    (out / "results.json").write_text(json.dumps(payload, indent=1) + "\n", encoding="utf-8")
    with (out / "log.txt").open("wb") as log:
        for file in sorted(work.glob("*.log")):
            log.write(f"== {file.stem}\n".encode() + file.read_bytes()[-LOG_BYTES_A_PART:] + b"\n")
    for dtype in BATCH_SIZES:
        if (work / dtype).is_dir():
            archive(work / dtype, out / f"pipeline-{dtype}.tar.gz")


def archive(folder: Path, target: Path) -> None:
    """The small results; the trace only where the archive stays small with it."""
    for left_out in (
        NOT_ARCHIVED,
        (*NOT_ARCHIVED, "trace.json", "trace.json.gz"),
        (*NOT_ARCHIVED, "profiler_traces"),
    ):
        with tarfile.open(target, "w:gz") as tar:
            tar.add(folder, arcname=folder.name, filter=partial(_unless, left_out))
        if target.stat().st_size <= ARCHIVE_BYTES:
            return


def _unless(names: Sequence[str], item: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(item.name).name in names else item


def missing_wheels(folder: Path) -> list[str]:
    """Wheels of distributions that are not installed."""
    found = []
    for wheel in sorted(folder.glob("*.whl")):
        try:
            importlib.metadata.distribution(wheel.name.split("-")[0])
        except importlib.metadata.PackageNotFoundError:
            found.append(str(wheel))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Every check on a GPU, in under nine minutes, without a network.",
        epilog="example:\n  benchmarks/gpu_check.sh /tmp/gpu_check",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "out",
        nargs="?",
        type=Path,
        default=Path(os.environ.get("OUT") or ROOT / "results" / "gpu_check"),
        help="folder of the results (default: $OUT, else results/gpu_check)",
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
    args = parser.parse_args(argv)
    if args.missing_wheels:
        print("\n".join(missing_wheels(args.missing_wheels)))
        return 0
    rows: list[Row] = []
    times: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        slack = DRY_RUN_SLACK if args.dry_run else 1
        for part, found, seconds in check(parts(work, args.dry_run), work, BUDGET_S, slack):
            rows += found
            times[part.name] = seconds
            print(f"{seconds:6.1f} s  {part.name}: {common.tally(found)}", flush=True)
        collect(args.out, work, rows, times)
    print(f"\n{common.table(rows)}\n\n{common.tally(rows)}; the results are in {args.out}")
    return common.exit_code(rows)


if __name__ == "__main__":
    raise SystemExit(main())
