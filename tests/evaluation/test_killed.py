"""Killed for real, at any moment: no row lost, none twice, at most the running chunk computed
again.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests import support
from utils.core.files import PROJECT_ROOT

SCRIPT = "scripts/02_baseline_inference.py"
KILLS = 25
SETTINGS = (
    "evaluation.chunk_rows=10",
    "profiling.num_warmup_runs=0",
    "profiling.num_measurement_runs=1",
)

# Forks an evaluation for each delay, and kills it when it has computed for so long; the last one
# works to its end. Processor time, because a busy machine may give it none for a while.
KILLER = """
import os, signal, sys, time
from utils.config_loader import load_config
# pyarrow imports it at its first array, which each child would wait for.
import pandas
from utils.evaluation import budget_search, chunks, predictor, runner
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.model_utils import load_model

log = sys.argv[1]
delays = [float(word) for word in sys.argv[2].split(",") if word]
overrides = sys.argv[3:]

def note(word, number):
    with open(log, "a") as out:
        out.write(f"{word} {number}\\n")

def has_worked(process, seconds):
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    has_ended = fields[0] == "Z"
    ticks = int(fields[11]) + int(fields[12])
    return has_ended or ticks / os.sysconf("SC_CLK_TCK") >= seconds

def evaluate(begun):
    save = chunks.ChunkStore.save
    launch = predictor.Predictor.launch

    def save_and_note(self, start, *rest):
        save(self, start, *rest)
        note("saved", start)

    def note_and_launch(self, chunk):
        # A chunk has 10 rows; the check of batches against single texts has fewer.
        if len(chunk.ids) == 10:
            note("begun", os.getpid())
        return launch(self, chunk)

    chunks.ChunkStore.save = save_and_note
    predictor.Predictor.launch = note_and_launch
    limit = os.environ.get("LIMIT")
    if limit:
        budget_search.fastest_budget = lambda *_: int(limit)
    os.write(begun, b"!")
    runner.evaluate_dataset(loaded, EvaluationSettings.of(config))
    os._exit(0)

config = load_config(overrides=overrides)
loaded = load_model(config)
for delay in [*delays, None]:
    ready, begun = os.pipe()
    child = os.fork()
    if not child:
        evaluate(begun)
    os.close(begun)
    assert os.read(ready, 1) == b"!"
    os.close(ready)
    if delay is not None:
        while not has_worked(child, delay):
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        note("killed", os.WTERMSIG(status))
    else:
        note("ended", os.WEXITSTATUS(status))
"""


def check_rows(folder: Path, rows: int) -> None:
    tables = [
        pq.read_table(file)
        for file in sorted((folder / "results" / "predictions").glob("*.parquet"))
    ]
    assert np.concatenate([table["row_id"].to_numpy() for table in tables]).tolist() == list(
        range(rows)
    )


def resolved_limit(folder: Path) -> int:
    return int(json.loads(next((folder / "results").rglob("run.json")).read_text())["limit"])


def run_and_kill(
    folder: Path, model: Path, delays: list[float], **variables: str
) -> list[list[str]]:
    """The events of evaluations killed after ``delays`` seconds of work, and of a last one.

    They are forked from a process that has only loaded the model, so a start costs milliseconds.
    """
    log = folder / "log.txt"
    words = [
        str(log),
        ",".join(map(str, delays)),
        *support.small_overrides(folder, model),
        *SETTINGS,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-c", KILLER, *words],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in log.read_text().splitlines()]


@pytest.mark.slow
def test_killed_at_25_random_moments_the_result_is_that_of_an_uninterrupted_run(
    tmp_path: Path, tiny_model: Path
) -> None:
    texts = tuple(f"{text} {i}" for i in range(20) for text in support.TEXTS)
    killed, complete = tmp_path / "killed", tmp_path / "complete"
    for folder in (killed, complete):
        support.write_dataset(folder / "data", texts)
    chance = random.Random(4)
    events = run_and_kill(killed, tiny_model, [chance.uniform(0, 0.12) for _ in range(KILLS)])
    kinds = Counter(event[0] for event in events)
    assert kinds["killed"] == KILLS, "each was at work when it was killed"
    assert events[-1] == ["ended", "0"]
    saved = [int(number) for word, number in events if word == "saved"]
    assert len(set(saved)) == len(saved), "no chunk was computed to its end twice"
    # A kill may fall between a chunk's last write and the note of it.
    unnoted = set(range(0, len(texts), 10)) - set(saved)
    assert len(unnoted) <= 2, "every chunk was computed to its end"
    begun = Counter(number for word, number in events if word == "begun")
    assert kinds["begun"] - len(saved) <= KILLS, "a kill costs at most the running chunk"
    assert len(begun) > 5, "the kills fell into the work"
    limit = str(resolved_limit(killed))
    complete_events = run_and_kill(complete, tiny_model, [], LIMIT=limit)
    assert complete_events[-1] == ["ended", "0"]
    check_rows(killed, len(texts))
    assert support.prediction_bytes(killed) == support.prediction_bytes(complete)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interrupted_it_keeps_what_is_finished_and_says_how_to_go_on(
    tmp_path: Path, tiny_model: Path, number: signal.Signals, code: int
) -> None:
    texts = tuple(f"{text} {i}" for i in range(40) for text in support.TEXTS)
    support.write_dataset(tmp_path / "data", texts)
    words = support.set_flags([*support.small_overrides(tmp_path, tiny_model), *SETTINGS])
    process = support.start_script(SCRIPT, *words)
    waiting_since = time.monotonic()
    while len(list((tmp_path / "results").rglob("rows-*.json"))) < 3:
        assert process.poll() is None and time.monotonic() - waiting_since < 300
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == code, errors
    assert f"Continue with: python {SCRIPT} --set" in errors
    kept = support.prediction_bytes(tmp_path)
    assert 3 <= len(kept) < len(texts) // 10
    assert not list((tmp_path / "results" / "predictions").glob(".*")), (
        "nothing half written is left"
    )
    done = support.run_script(SCRIPT, *words)
    assert done.returncode == 0, done.stderr
    assert "Taking over" in done.stdout
    check_rows(tmp_path, len(texts))
    assert kept.items() <= support.prediction_bytes(tmp_path).items(), (
        "finished chunks were not touched"
    )


FULL = """
set -e
mount -t tmpfs -o size=450k none "$1/results"
shift_to="$1"; shift
status=0; "$@" || status=$?
df -k "$shift_to/results" >&2
mount -o remount,size=32m "$shift_to/results"
ls "$shift_to/results/predictions" > "$shift_to/first.txt"
"$@"
cp -r "$shift_to/results" "$shift_to/kept"
exit $((status + 100))
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("unshare") or os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_is_one_message_and_the_run_goes_on_when_there_is_room(
    tmp_path: Path, tiny_model: Path
) -> None:
    allowed = subprocess.run(["unshare", "-m", "true"], capture_output=True)
    if allowed.returncode:
        pytest.skip("this machine allows no mount")
    texts = tuple(f"{text} {i}" for i in range(30) for text in support.TEXTS)
    support.write_dataset(tmp_path / "data", texts)
    (tmp_path / "results").mkdir()
    words = [
        sys.executable,
        SCRIPT,
        *support.set_flags([*support.small_overrides(tmp_path, tiny_model), *SETTINGS]),
    ]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", FULL, "sh", str(tmp_path), *words],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 102, done.stdout + done.stderr
    assert "Cannot write rows-" in done.stderr and "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert len((tmp_path / "first.txt").read_text().split()) > 1, "chunks that were finished stayed"
    (tmp_path / "kept").rename(tmp_path / "results" / "results")
    check_rows(tmp_path / "results", len(texts))


LIMITED = """
import resource, sys
from utils.config_loader import load_config
from utils.core.errors import UserError
from utils.evaluation import runner
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.model_utils import load_model
# After the imports: torch 2.6 writes a source file when it is imported.
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
config = load_config(overrides=sys.argv[1:])
try:
    runner.evaluate_dataset(load_model(config), EvaluationSettings.of(config))
except UserError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_file_that_may_not_grow_is_one_message_and_nothing_half_written(
    tmp_path: Path, tiny_model: Path
) -> None:
    support.write_dataset(tmp_path / "data")
    words = [*support.small_overrides(tmp_path, tiny_model), "evaluation.max_tokens_per_batch=256"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *words], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    assert (done.returncode, "Cannot write rows-" in done.stdout) == (2, True), (
        done.stdout + done.stderr
    )
    assert list((tmp_path / "results" / "predictions").iterdir()) == []
