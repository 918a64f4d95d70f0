"""Several workers and machines, with Ray for real: the same bytes as one process, whatever happens
on the way.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from tests import support
from tests.evaluation.distributed_runs import (
    CHUNKS,
    RAY_S,
    SCRIPT,
    TEXTS,
    Cluster,
    Driver,
    configured,
    evaluated,
    finished,
    makers,
    marked_processes,
    overrides,
    same_quality,
    wait_until,
)
from utils.config_loader import Config
from utils.core.errors import ConfigError, ModelError
from utils.core.files import PROJECT_ROOT
from utils.evaluation import distributed, ray_worker, runner
from utils.evaluation.cluster import Placement, fit_workers
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.evaluation.identity import open_store
from utils.model_utils import LoadedModel, load_model
from utils.schema.baseline import load_baseline_metrics
from utils.schema.evaluation import EvaluationMetrics

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray is not installed: pip install -r setup/requirements-dev.txt",
)


@pytest.fixture
def no_ray_left() -> Iterator[None]:
    """Kills what a test that went wrong leaves of Ray."""
    with marked_processes():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So large that every worker is up before the work is done."""
    folder = tmp_path_factory.mktemp("model")
    return support.build_tiny_model(
        folder, hidden_size=160, intermediate_size=640, num_hidden_layers=3
    )


@pytest.fixture(scope="module")
def loaded(model: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(configured(tmp_path_factory.mktemp("config"), model))


@pytest.fixture(scope="module")
def single(
    tmp_path_factory: pytest.TempPathFactory, model: Path, loaded: LoadedModel
) -> tuple[Path, EvaluationMetrics]:
    """One process's results."""
    folder = tmp_path_factory.mktemp("single")
    return folder, runner.evaluate_dataset(loaded, EvaluationSettings.of(configured(folder, model)))


@pytest.mark.parametrize(
    ("nodes", "num_workers", "on_cuda", "expected"),
    [
        ([(2, 0)], 2, False, (2, 1)),
        ([(8, 0)], 2, False, (2, 4)),
        ([(8, 0), (4, 0)], 3, False, (3, 4)),
        ([(1, 0), (1, 0)], 3, False, None),
        ([(128, 8)], 8, True, (8, 16)),
        ([(128, 8), (4, 1)], 9, True, (9, 4)),
        ([(64, 0), (32, 4)], 5, True, None),
        ([], 1, False, None),
        ([(3, 4)], 4, True, None),
    ],
)
def test_workers_get_all_the_cores_that_there_are(
    nodes: list[tuple[float, float]],
    num_workers: int,
    on_cuda: bool,
    expected: tuple[int, int] | None,
) -> None:
    placement = fit_workers(nodes, num_workers, on_cuda=on_cuda)
    assert placement == (Placement(workers=expected[0], cpus=expected[1]) if expected else None)


def test_tasks_are_runs_of_chunks_that_follow_one_another() -> None:
    missing = [(0, 10), (10, 20), (20, 30), (50, 60), (70, 80), (80, 85)]
    tasks = list(distributed._make_tasks(missing, [7, 1, 2, 3, 4, 5, 6, 77, 8], 10, 2))
    assert [(task["start"], task["stop"], task["offset"]) for task in tasks] == [
        (0, 20, 7),
        (20, 30, 2),
        (50, 60, 5),
        (70, 85, 77),
    ]


@pytest.mark.parametrize("setting", ["evaluation.num_workers=2", "evaluation.ray_address=auto"])
def test_without_ray_the_message_says_what_to_install(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setattr(runner, "find_spec", lambda _: None)
    with pytest.raises(
        ConfigError, match=r"not installed(.|\n)*pip install \"ray\[data\]\""
    ) as caught:
        runner.check_workers(configured(tmp_path, model, setting).evaluation)
    assert caught.value.exit_code == 2


def test_the_model_leaves_its_gpu_to_the_workers_and_comes_back() -> None:
    class Moved:
        places: list[str] = []

        def to(self, place: Any) -> None:
            self.places.append(str(place))

    info: Any = None
    with distributed._offloaded_to_cpu(
        LoadedModel(
            model=Moved(), tokenizer=None, info=info, device=torch.device("cuda", 1), inputs=info
        )
    ):
        assert Moved.places == ["cpu"]
    assert Moved.places == ["cpu", "cuda:1"]


def test_results_that_only_the_workers_see_are_an_error(
    tmp_path: Path, model: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(loaded, EvaluationSettings.of(configured(tmp_path, model)), "0" * 64)
    monkeypatch.setattr(distributed, "STORAGE_LAG_S", 0.0)
    with pytest.raises(distributed.UserError, match="none shows here"):
        distributed._find_missing(store, [(0, 100)], wait=True)
    assert distributed._find_missing(store, [(0, 100)], wait=False) == [(0, 100)]


def job_for(loaded: LoadedModel, config: Config, **changes: Any) -> ray_worker.Job:
    settings = EvaluationSettings.of(config)
    store = open_store(loaded, settings, "0" * 64)
    worker = distributed.ChunkWorker(loaded, settings, store, limit=256)
    job = distributed._make_job(worker, loaded, settings, (0, 100))
    return ray_worker.Job(
        **{**{name: getattr(job, name) for name in ray_worker.Job.__slots__}, **changes}
    )


def outcome_of(job: ray_worker.Job) -> Exception | int:
    """What a worker returns for one task, run here."""
    threads = torch.get_num_threads()
    try:
        outcome = ray_worker.TaskRunner(job, 1)(
            {"start": np.array([0]), "stop": np.array([100]), "offset": np.array([0])}
        )
    finally:
        torch.set_num_threads(threads)
    error: Exception | int = (
        pickle.loads(outcome["error"][0]) if outcome["error"][0] else outcome["rows"][0]
    )
    return error


def test_a_worker_refuses_other_data_and_other_settings(
    tmp_path: Path, model: Path, loaded: LoadedModel
) -> None:
    config = configured(tmp_path, model)
    job = job_for(loaded, config)
    assert outcome_of(job) == 100
    assert "does not see the run's data set" in str(
        outcome_of(job_for(loaded, config, data_bytes=1))
    )
    other = outcome_of(job_for(loaded, config, identity={**job.identity, "device": "H100"}))
    assert isinstance(other, ModelError)
    assert "device: H100 -> cpu" in str(other)
    (tmp_path / "data" / "val_df.csv").write_text("text,labels,label_id\na,books,x\n" + " " * 999)
    damaged = outcome_of(job_for(loaded, config))
    assert "damaged" in str(damaged)


@needs_ray
@pytest.mark.slow
@pytest.mark.usefixtures("no_ray_left")
def test_two_workers_give_the_results_of_one_process_and_mention_no_ray(
    tmp_path: Path, model: Path, single: tuple[Path, EvaluationMetrics]
) -> None:
    """The entire step; before it some chunks are there from one process, one of them damaged."""
    support.write_dataset(tmp_path / "data", TEXTS)
    shutil.copytree(single[0] / "results", tmp_path / "results")
    files = sorted((tmp_path / "results" / "predictions").iterdir())
    for file in files[4:]:
        file.unlink()
    content = bytearray(files[1].read_bytes())
    content[len(content) // 2] ^= 1
    files[1].write_bytes(content)
    done = support.run_script(
        SCRIPT,
        *support.set_flags(overrides(tmp_path, model, "evaluation.num_workers=2")),
        in_new_interpreter=True,
        OMP_NUM_THREADS="1",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [
        line
        for line in done.stderr.splitlines()
        if not line.startswith("Warning: ") and "is damaged" not in line
    ] == []
    assert not any(
        word in (done.stdout + done.stderr).lower()
        for word in (" ray", "raylet", "actor", "dashboard")
    )
    assert support.prediction_bytes(tmp_path) == support.prediction_bytes(single[0])
    results = load_baseline_metrics(tmp_path / "results" / "baseline_metrics.json")
    metrics = results.full_dataset_metrics
    assert same_quality(metrics, single[1])
    assert metrics.resumed_rows == 300
    assert metrics.num_workers == len(metrics.workers) == 2
    assert sum(worker.num_samples for worker in metrics.workers) == len(TEXTS) - 300
    busy = sum(worker.busy_s for worker in metrics.workers)
    assert metrics.inference_time_s < busy + single[1].inference_time_s, (
        "they worked at the same time"
    )
    assert metrics.throughput_samples_per_sec == pytest.approx(
        len(TEXTS) / metrics.inference_time_s
    )


@needs_ray
@pytest.mark.slow
@pytest.mark.usefixtures("no_ray_left")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interrupted_workers_stop_and_one_process_goes_on(
    tmp_path: Path,
    model: Path,
    loaded: LoadedModel,
    single: tuple[Path, EvaluationMetrics],
    number: int,
    code: int,
) -> None:
    config = configured(tmp_path, model)
    words = support.set_flags(overrides(tmp_path, model, "evaluation.num_workers=2"))
    process = subprocess.Popen(
        [sys.executable, str(PROJECT_ROOT / SCRIPT), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: finished(tmp_path) >= 2 or process.poll() is not None)
    started = psutil.Process(process.pid).children(recursive=True)
    assert started, "Ray's processes"
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert "Interrupted; everything finished so far is kept" in errors
    _, left = psutil.wait_procs(started, timeout=100)
    assert left == []
    num_kept = finished(tmp_path)
    assert 2 <= num_kept < CHUNKS
    metrics = runner.evaluate_dataset(loaded, EvaluationSettings.of(config))
    assert metrics.resumed_rows == 100 * num_kept
    assert support.prediction_bytes(tmp_path) == support.prediction_bytes(single[0])
    assert same_quality(metrics, single[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Both nodes live until the last test of this module kills one."""
    with marked_processes():
        nodes = Cluster()
        yield nodes
        nodes.process.communicate(timeout=200)


@pytest.fixture(scope="module")
def driver_process(cluster: Cluster) -> Iterator[ProcessPoolExecutor]:
    """A process of its own: Ray ends its driver's process when the cluster is lost."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        yield pool


@pytest.fixture(scope="module")
def driver(driver_process: ProcessPoolExecutor) -> Driver:
    return lambda *arguments: driver_process.submit(evaluated, *arguments).result(timeout=RAY_S)


@needs_ray
@pytest.mark.slow
def test_what_a_worker_or_the_cluster_cannot_do_is_a_message_of_the_project(
    cluster: Cluster, driver: Driver, tmp_path: Path, model: Path
) -> None:
    here = f"evaluation.ray_address={cluster.address}"
    with pytest.raises(ConfigError, match="num_workers is 3; Ray has 2 CPUs on 2 nodes"):
        driver(tmp_path, model, "evaluation.num_workers=3", here)
    broken = tmp_path / "model"
    shutil.copytree(model, broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="The model has no model.safetensors"):
        driver(tmp_path, model, f"model.name={broken}", "evaluation.num_workers=2", here)
    assert json.loads(next((tmp_path / "results").rglob("run.json")).read_text())["limit"] == 256
    with pytest.raises(ConfigError, match=r"No Ray cluster answers at 127\.0\.0\.1:1"):
        driver(tmp_path, model, "evaluation.ray_address=127.0.0.1:1")


@needs_ray
@pytest.mark.slow
def test_ray_is_shut_down_once_its_threads_have_ended(
    cluster: Cluster, driver_process: ProcessPoolExecutor
) -> None:
    from tests.evaluation import slow_executor

    outcome = driver_process.submit(slow_executor.stop_early, cluster.address)
    assert outcome.result(timeout=RAY_S) == 1


@needs_ray
@pytest.mark.slow
def test_a_node_that_dies_takes_nothing_with_it(
    cluster: Cluster,
    driver: Driver,
    tmp_path: Path,
    model: Path,
    single: tuple[Path, EvaluationMetrics],
) -> None:
    made_by: dict[str, int] = {}

    def kill() -> None:
        wait_until(lambda: len(makers(tmp_path)) == 2)
        made_by["before"] = finished(tmp_path)
        cluster.kill_a_node()

    killer = threading.Thread(target=kill)
    killer.start()
    here = f"evaluation.ray_address={cluster.address}"
    metrics = driver(tmp_path, model, "evaluation.num_workers=2", here)
    killer.join()
    assert made_by["before"] < CHUNKS, "it died in the middle"
    assert support.prediction_bytes(tmp_path) == support.prediction_bytes(single[0])
    assert same_quality(metrics, single[1])
    assert metrics.resumed_rows == 0
    assert metrics.num_workers >= 3, "two before, and at least one more on the node that was left"
    assert sum(worker.num_samples for worker in metrics.workers) == len(TEXTS)
