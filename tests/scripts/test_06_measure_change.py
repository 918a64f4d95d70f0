"""Step 06 with real processes on a tiny model: interrupted, killed, continued, refused."""

from __future__ import annotations

import logging
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pytest

from tests import support
from tests.script_server import StartedScript
from utils.core.files import PROJECT_ROOT
from utils.schema.baseline import load_baseline_metrics
from utils.schema.change import load_change
from utils.schema.comparison import load_comparison

SCRIPT = "scripts/06_measure_change.py"
CHANGE = ("--set", "profiling.max_length=16", "--repeats", "1", "--evaluate", "--no-diagnose")
NAME = "profiling.max_length=16"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A change that was measured in three calls: interrupted, killed, finished."""

    folder: Path
    flags: tuple[str, ...]
    interrupted: subprocess.CompletedProcess[str]
    finished: subprocess.CompletedProcess[str]

    @property
    def change(self) -> Path:
        return self.folder / "results" / "changes" / NAME

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The script with the shared settings and these words."""
        return support.run_script(SCRIPT, *self.flags, *words)


def both_flags(folder: Path, model: Path) -> tuple[str, ...]:
    """The small settings for both sides; everything is below ``folder``.

    The data set is a file that step 01 has not read yet.
    """
    source = folder / "source.csv"
    rows = [(text, support.LABELS[number % 3]) for number, text in enumerate(support.TEXTS)]
    pd.DataFrame(rows, columns=["text", "labels"]).to_csv(source, index=False)
    overrides = [
        *support.small_overrides(folder, model),
        f"dataset.hf_name={source}",
        "profiling.num_measurement_runs=2",
    ]
    return tuple(word for override in overrides for word in ("--both", override))


def start(flags: tuple[str, ...]) -> StartedScript:
    return support.start_script(SCRIPT, *flags, OMP_NUM_THREADS="1")


def wait_until(condition: Callable[[], bool], process: StartedScript) -> None:
    waiting_since = time.monotonic()
    while not condition():
        assert process.poll() is None and time.monotonic() - waiting_since < 500
        time.sleep(0.01)


def kill_with_children(process: StartedScript) -> None:
    """As when the machine goes down: nobody has time for anything."""
    running = psutil.Process(process.pid)
    victims = [running, *running.children(recursive=True)]
    for victim in victims:
        victim.kill()
    process.communicate(timeout=60)
    # Only then is the lock of the step, which is not this process's child, given up.
    _, alive = psutil.wait_procs(victims, timeout=60)
    assert alive == []


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Measured:
    folder = tmp_path_factory.mktemp("change")
    flags = both_flags(folder, tiny_model)
    change = folder / "results" / "changes" / NAME
    process = start((*flags, *CHANGE))
    wait_until((change / "01-baseline" / "logs").exists, process)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=300)
    assert process.returncode is not None
    interrupted = subprocess.CompletedProcess(process.args, process.returncode, output, errors)
    process = start((*flags, *CHANGE))
    wait_until((change / "02-candidate" / "logs").exists, process)
    kill_with_children(process)
    (change / "02-candidate" / "of_the_killed_process").touch()
    finished = support.run_script(SCRIPT, *flags, *CHANGE, OMP_NUM_THREADS="1")
    return Measured(folder=folder, flags=flags, interrupted=interrupted, finished=finished)


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """The script in this process; gives its exit code."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    logged = list(logging.getLogger().handlers)

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", [SCRIPT, *words])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(PROJECT_ROOT / SCRIPT), run_name="__main__")
        assert isinstance(end.value.code, int)
        return end.value.code

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    logging.getLogger().handlers[:] = logged


def test_an_interruption_has_its_exit_code_and_the_command_that_continues(
    measured: Measured,
) -> None:
    assert measured.interrupted.returncode == 143, measured.interrupted.stderr
    continued = f"Continue with: python {SCRIPT} --both model.name="
    assert measured.interrupted.stderr.count(continued) == 1
    assert "--set profiling.max_length=16 --repeats 1" in measured.interrupted.stderr


def test_a_missing_data_set_is_prepared_first(measured: Measured) -> None:
    data_file = measured.folder / "data" / "val_df.csv"
    assert f"Download and check the data set: {data_file}" in measured.interrupted.stderr
    assert data_file.exists()
    assert "Download and check" not in measured.finished.stderr


def test_after_a_kill_finished_processes_are_kept_and_the_running_one_is_measured_again(
    measured: Measured,
) -> None:
    assert measured.finished.returncode == 0, measured.finished.stderr
    assert "[1/2] baseline: kept, unchanged since it finished" in measured.finished.stderr
    assert "[2/2] candidate (it has not finished here before): measuring" in (
        measured.finished.stderr
    )
    assert not (measured.change / "02-candidate" / "of_the_killed_process").exists()


def test_each_process_has_the_settings_of_its_side(measured: Measured) -> None:
    lengths = {}
    for name in ("01-baseline", "02-candidate"):
        metrics = load_baseline_metrics(measured.change / name / "baseline_metrics.json")
        lengths[name] = metrics.config["profiling"]["max_length"]
        assert metrics.full_dataset_metrics is not None
        assert metrics.full_dataset_metrics.num_samples == len(support.TEXTS)
    assert lengths == {"01-baseline": 64, "02-candidate": 16}
    (setting,) = load_change(measured.change / "change.json").settings
    assert (setting.key, setting.before, setting.after) == ("profiling.max_length", "64", "16")


def test_the_comparison_is_printed_and_written(measured: Measured) -> None:
    comparison = load_comparison(measured.change / "comparison.json")
    assert [difference.name for difference in comparison.differences] == ["profiling.max_length"]
    assert "profiling.max_length" in measured.finished.stdout
    assert "[1/2]" not in measured.finished.stdout, "progress is on standard error"
    assert (measured.change / "comparison.html").exists()


def test_run_again_it_only_compares_and_gates_decide_the_exit_code(measured: Measured) -> None:
    gate = ("--fail-if", "padding@4<-1%")
    done = measured.run(*CHANGE, *gate)
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("kept, unchanged since it finished") == 2
    assert measured.run(*CHANGE, "--fail-if", "f1_macro=1").returncode == 2


def test_a_dry_run_shows_order_and_reasons_and_runs_nothing(measured: Measured) -> None:
    flags = ("--set", "profiling.max_length=16", "--repeats", "2", "--evaluate", "--dry-run")
    done = measured.run(*flags, "--both", "profiling.num_warmup_runs=2")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    changed = "to be measured (changed: setting profiling.num_warmup_runs)"
    new = "to be measured (it has not finished here before)"
    assert lines[:4] == [
        f"[1/4] 01-baseline: {changed}",
        f"[2/4] 02-candidate: {changed}",
        f"[3/4] 03-candidate: {new}",
        f"[4/4] 04-baseline: {new}",
    ]
    assert lines[4:6] == ["[diagnosis] 01-baseline", "[diagnosis] 02-candidate"]
    assert not (measured.change / "03-candidate").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "profiling.max_lenght=16"), "did you mean profiling.max_length?"),
        (("--set", "profiling.max_length=-1"), "profiling.max_length cannot be -1"),
        (("--set", "profiling.max_length=64"), "profiling.max_length changes nothing: it is 64"),
        (("--set", "output.results_dir=x"), "--both output.results_dir=x"),
        (("--set", "evaluation.chunk_rows=7"), "add --evaluate"),
        (("--set", "evaluation.enabled=true"), "add --evaluate"),
        (("--set", "profiling.seed=1", "--name", "../x"), "cannot be the name of a change"),
        (("--set", "profiling.seed=1", "--name", NAME), "the results of another change"),
        (("--set", "profiling.seed=1", "--name", "foreign"), "something else is in it"),
        (("--set", "profiling.seed=1", "--fail-if", "speed"), "speed"),
        (("--set", "profiling.seed=1", "--repeats", "0"), "'0' is not a number of at least 1"),
        ((), "the following arguments are required: --set"),
    ],
)
def test_what_cannot_be_measured_is_one_message_and_exit_code_2(
    measured: Measured,
    run_here: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    foreign = measured.folder / "results" / "changes" / "foreign"
    foreign.mkdir(exist_ok=True)
    (foreign / "notes.txt").touch()
    assert run_here(*measured.flags, *words) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors
    assert "measuring" not in errors


def test_a_setting_that_a_process_refuses_is_offered_for_both_sides(
    tmp_path: Path, tiny_model: Path
) -> None:
    support.write_dataset(tmp_path / "data")
    flags = [*support.small_overrides(tmp_path, tiny_model), "model.device=cuda:7"]
    flags = [word for override in flags for word in ("--both", override)]
    done = support.run_script(SCRIPT, *flags, "--set", "profiling.max_length=16")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Step 02 (02_baseline_inference.py) ended with exit code 2" in done.stderr
    assert "--both model.device=cpu" in done.stderr
