"""What the outside sees of a run and of the command lines, as plain values that can be compared."""

from __future__ import annotations

import csv
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.golden.small_run import SmallRun
from utils.config_loader import load_config
from utils.metrics import MetricsCollector
from utils.model_utils import load_model_and_tokenizer
from utils.profiler import InferenceProfiler

PROJECT_ROOT = Path(__file__).resolve().parents[2]
CONSOLE_RULE = "=" * 70
REPORT_RULE = "=" * 80
BUSY_MACHINE = ("The machine was too busy: ", "Too few or too short runs: ")
"""Begins the sentence that stands first where no batch size is stable."""
# Their lines are sentences or paths, which differ from run to run: only their titles are compared.
PROSE_BLOCKS = ("BOTTLENECK ANALYSIS", "REPORT")
PROSE_SECTIONS = ("Main bottleneck", "Warnings")
TABLES = (
    "detailed_metrics.csv",
    "profiler_traces/operators.csv",
    "profiler_traces/layers.csv",
    "profiler_traces/memory.csv",
)

# Runs every script with --help in one process, so that PyTorch is imported once.
HELP_OF_ALL_SCRIPTS = """
import contextlib, io, json, runpy, sys

pages = {}
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    page = io.StringIO()
    with contextlib.redirect_stdout(page):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            assert not end.code, (script, end.code)
    pages[script] = page.getvalue()
print(json.dumps(pages))
"""


def columns_of_tables(run: SmallRun) -> dict[str, list[str]]:
    """The header of each table of a run, in order; the Parquet columns with their types."""
    columns = {}
    for name in TABLES:
        with (run.results / name).open(encoding="utf-8", newline="") as source:
            columns[name] = next(csv.reader(source))
    first_file = min((run.results / "predictions").glob("*.parquet"))
    schema = pq.read_schema(first_file)
    columns["predictions/*.parquet"] = [f"{field.name}: {field.type}" for field in schema]
    with (run.folder / "data" / "val_df.csv").open(encoding="utf-8", newline="") as source:
        columns["data/val_df.csv"] = next(csv.reader(source))
    return columns


def file_names(run: SmallRun) -> list[str]:
    """The files of a run below ``data`` and ``results``; words stand for times, ids and sizes.

    ``results/.state`` is what the steps remember between runs, which nobody else relies on.
    """
    names = set()
    for top in ("data", "results"):
        for path in (run.folder / top).rglob("*"):
            name = path.relative_to(run.folder).as_posix()
            if path.is_file() and not name.startswith("results/.state/"):
                names.add(_without_data(name))
    return sorted(names)


def _without_data(name: str) -> str:
    name = re.sub(r"/\d{8}-\d{6}-(\w+)-\d+\.log$", r"/TIME-\1-PID.log", name)
    name = re.sub(r"/rows-\d{12}-\d{12}-[0-9a-f]{12}\.parquet$", "/rows-START-END-ID.parquet", name)
    return re.sub(r"/batch_\d+/", "/batch_SIZE/", name)


def console_outline(output: str) -> list[str]:
    """Rules, titles and labels of what a run prints to standard output, in order.

    A block is an empty line, its title, a rule, lines with labels, and mostly a rule at its end.
    Lines outside of blocks are not part of the outline.
    """
    lines = ["", *output.splitlines(), ""]
    outline = []
    block = ""
    for number in range(1, len(lines) - 1):
        line = lines[number]
        before = lines[number - 1]
        label = re.match(r" {0,2}[A-Z][^:?]*[:?](?= |$)", line)
        if line.startswith(BUSY_MACHINE):
            continue
        if line == CONSOLE_RULE:
            outline.append(line)
            block = block if before == block else ""
        elif lines[number + 1] == CONSOLE_RULE and before in ("", CONSOLE_RULE):
            outline.append(line)
            block = line if before == "" else ""
        elif label and block and block not in PROSE_BLOCKS:
            outline.append(label[0])
    return outline


def report_outline(report: str) -> list[str]:
    """Rules, section titles, table headers and labels of the text report, in order."""
    lines = ["", *_without_noise_paragraph(report.splitlines()), ""]
    outline = []
    section = ""
    for number in range(1, len(lines) - 1):
        line = lines[number]
        following = lines[number + 1]
        is_above_rule = following != "" and following.strip("-") == ""
        label = re.match(r"[A-Za-z][^:]*:(?= |$)", line)
        if line == REPORT_RULE:
            outline.append(line)
        elif is_above_rule and lines[number - 1] == "":
            section = line
            outline += ["", line, following]
        elif is_above_rule:
            outline.append("  ".join(re.split(r" {2,}", line)))
        elif label and section not in PROSE_SECTIONS:
            outline.append(label[0])
    return outline


def _without_noise_paragraph(lines: list[str]) -> list[str]:
    """The lines without the paragraph that is there only where no batch size is stable."""
    kept = []
    is_inside = False
    for line in lines:
        starts = line.startswith(BUSY_MACHINE)
        is_inside = starts or (is_inside and line != "")
        if not is_inside:
            kept.append(line)
    return kept


def script_names() -> list[str]:
    """Every Python script that a user starts, relative to the project's root."""
    root_scripts = [path for path in PROJECT_ROOT.glob("*.py") if path.name != "setup.py"]
    scripts = [*root_scripts, *(PROJECT_ROOT / "scripts").glob("*.py")]
    return sorted(path.relative_to(PROJECT_ROOT).as_posix() for path in scripts)


def command_lines() -> dict[str, list[str]]:
    """The arguments of each script, as ``--help`` shows them, and the targets of ``make``."""
    done = subprocess.run(
        [sys.executable, "-c", HELP_OF_ALL_SCRIPTS, *script_names()],
        cwd=PROJECT_ROOT,
        env={**os.environ, "COLUMNS": "200", "PYTHONPATH": str(PROJECT_ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    pages = json.loads(done.stdout.splitlines()[-1])
    arguments = {script: arguments_of_help(page) for script, page in pages.items()}
    return {**arguments, "make": make_targets()}


def arguments_of_help(page: str) -> list[str]:
    """Positional arguments and options, with placeholders, of a page that ``argparse`` printed.

    They start after two spaces; what follows after two or more further spaces is the description.
    """
    arguments = []
    is_list = False
    for line in page.splitlines():
        if re.match(r"(positional arguments|options):$", line):
            is_list = True
        elif line and not line.startswith(" "):
            is_list = False
        elif is_list and re.match(r"  \S", line):
            arguments.append(re.split(r" {2,}", line.strip())[0])
    return arguments


def make_targets() -> list[str]:
    """The targets that ``make help`` lists."""
    done = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [line.split()[0] for line in done.stdout.splitlines()]


def parameters_of(function: Callable[..., Any]) -> list[str]:
    """The parameters of a function with their defaults, without annotations.

    A default that is a function itself is shown as ``...``: its name is nobody's concern.
    """
    shown = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        bare = parameter.replace(annotation=inspect.Parameter.empty)
        if callable(parameter.default) and parameter.default is not inspect.Parameter.empty:
            shown.append(f"{parameter.name}=...")
        else:
            shown.append(str(bare))
    return shown


def python_interface() -> dict[str, list[str]]:
    """Parameters of the functions and methods that user code calls, by their full names."""
    config = load_config("configs/demo.yaml")
    functions: dict[str, Callable[..., Any]] = {
        "utils.config_loader.load_config": load_config,
        "utils.config_loader.load_config(...).get": config.get,
        "utils.model_utils.load_model_and_tokenizer": load_model_and_tokenizer,
        "utils.profiler.InferenceProfiler": InferenceProfiler,
        "utils.profiler.InferenceProfiler.profile_multiple_batch_sizes": (
            InferenceProfiler.profile_multiple_batch_sizes
        ),
        "utils.metrics.MetricsCollector": MetricsCollector,
        "utils.metrics.MetricsCollector.start_measurement": MetricsCollector.start_measurement,
        "utils.metrics.MetricsCollector.end_measurement": MetricsCollector.end_measurement,
    }
    return {name: parameters_of(function) for name, function in functions.items()}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_report(run: SmallRun) -> str:
    return (run.results / "baseline_summary_report.txt").read_text(encoding="utf-8")
