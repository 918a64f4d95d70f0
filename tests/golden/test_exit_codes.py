"""The exit code of each kind of mistake and of an interruption, in real processes.

0 and 1 are tested on the shared run (``test_small_run.py``). The codes are those of
``docs/week1_instructions.md``.
"""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests import support
from tests.golden import small_run

USER_MUST_CHANGE = 2
LIMIT_S = 300


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with the model and the data that step 01 writes, and the flags of a run there."""
    folder = tmp_path_factory.mktemp("exit_codes")
    model = small_run.build_golden_model(folder / "model")
    support.write_dataset(folder / "data")
    return folder, support.set_flags(support.small_overrides(folder, model))


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One message says what is wrong, where, and how to fix it."""
    assert done.returncode == USER_MUST_CHANGE, done.stdout + done.stderr
    for word in (*words, "where:", "fix:"):
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert "COMPLETE" not in done.stdout


def test_an_unknown_setting_ends_with_2() -> None:
    done = support.run_script("run_week1.py", "--set", "model.nmae=tiny")
    assert_refused(done, "model.nmae", "model.name")


def test_an_unknown_flag_ends_with_2() -> None:
    done = support.run_script("run_week1.py", "--no-such-flag")
    assert done.returncode == USER_MUST_CHANGE
    assert "--no-such-flag" in done.stderr


def test_a_config_that_is_not_there_ends_with_2(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.yaml"
    done = support.run_script("run_week1.py", "--config", str(missing))
    assert_refused(done, "nowhere.yaml")


def test_a_model_that_is_not_there_ends_with_2(tmp_path: Path) -> None:
    missing = tmp_path / "no model"
    results = f"output.results_dir={tmp_path / 'results'}"
    done = support.run_script(
        "scripts/00_test_model_loading.py", *support.set_flags([f"model.name={missing}", results])
    )
    assert_refused(done, str(missing))


def test_data_of_another_configuration_ends_with_2(prepared: tuple[Path, list[str]]) -> None:
    _, flags = prepared
    other = ["--set", "dataset.hf_name=another/dataset"]
    done = support.run_script("scripts/02_baseline_inference.py", *flags, *other)
    assert_refused(done, "another/dataset", "01_download_data.py")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_an_interrupted_run_ends_with_the_code_of_its_signal(
    prepared: tuple[Path, list[str]], number: signal.Signals, code: int
) -> None:
    """Sent to the runner while step 02 measures; the message has the command that resumes it.

    What step 01 has written stays, and step 02 leaves no results of half a measurement.
    """
    folder, flags = prepared
    results = folder / number.name / "results"
    data_file = folder / number.name / "data" / "val_df.csv"
    changed = support.set_flags(
        [
            "profiling.num_measurement_runs=1000000",
            f"output.results_dir={results}",
            f"dataset.hf_name={small_run.DATASET}",
            f"dataset.local_path={data_file}",
        ]
    )
    process = support.start_script("run_week1.py", *flags, *changed, OMP_NUM_THREADS="1")
    waiting_since = time.monotonic()
    while not process.has_printed("\nProfiling batch size"):
        assert process.poll() is None and time.monotonic() - waiting_since < LIMIT_S
        time.sleep(0.02)
    process.send_signal(number)
    output, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == code, output + errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert "COMPLETE" not in output
    assert data_file.exists()
    assert not (results / "baseline_metrics.json").exists()
