"""The default config against a hub on loopback; only the device and the sizes are overridden."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests import support
from tests.hub_server import HubServer, closed_port, hub_env
from utils.core.files import PROJECT_ROOT

MODEL, DATA = "codefactory4791/intent-classification-qwen", "codefactory4791/amazon_test"
SIZES = support.set_flags(
    [
        "model.device=cpu",
        "dataset.sample_sizes=[8]",
        "profiling.batch_sizes=[1, 4]",
        "profiling.num_measurement_runs=3",
        "profiling.trace_steps=1",
    ]
)
PARTS = ("utils", "scripts", "configs", "run_week1.py")


@pytest.fixture
def hub(tiny_model: Path, tmp_path: Path) -> Iterator[HubServer]:
    data = tmp_path / "dataset"
    data.mkdir()
    rows = [(text, support.LABELS[i % 3]) for i, text in enumerate(support.TEXTS)]
    pd.DataFrame(rows, columns=["query", "label"]).to_csv(data / "test.csv", index=False)
    with HubServer() as server:
        server.add_model(MODEL, tiny_model)
        server.add_dataset(DATA, data)
        yield server


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, so that the default paths are not the user's own."""
    folder = tmp_path / "project"
    for name in PARTS:
        source = PROJECT_ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def run(
    project: Path, environment: dict[str, str], script: str = "run_week1.py"
) -> subprocess.CompletedProcess[str]:
    return support.run_script(str(project / script), *SIZES, timeout=400, **environment)


def test_the_default_config_from_the_hub_to_the_report(
    hub: HubServer, project: Path, tmp_path: Path
) -> None:
    done = run(project, hub.env(tmp_path / "cache"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WEEK 1 COMPLETE!" in done.stdout
    metrics = json.loads((project / "results" / "baseline_metrics.json").read_text())
    assert metrics["model_info"]["name"] == MODEL
    assert len(metrics["model_info"]["revision"]) == 40
    assert metrics["dataset_info"]["num_rows"] == len(support.TEXTS)
    assert json.loads((project / "data" / "label_mappings.json").read_text())["label2id"] == {
        "books": 0,
        "games": 1,
        "music": 2,
    }


@pytest.mark.parametrize("status", [401, 404])
def test_a_refusal_is_one_message_and_keeps_what_was_there(
    hub: HubServer, project: Path, tmp_path: Path, status: int
) -> None:
    earlier = support.write_dataset(project / "data")
    before = earlier.read_bytes()
    hub.fail(DATA, status)
    done = run(project, hub.env(tmp_path / "cache"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert str(status) in done.stderr
    assert "Traceback" not in done.stderr
    assert "COMPLETE" not in done.stdout
    assert earlier.read_bytes() == before


def test_no_server_says_how_to_work_without_one(project: Path, tmp_path: Path) -> None:
    with closed_port() as endpoint:
        environment = hub_env(endpoint, tmp_path / "cache")
        done = run(project, environment, "scripts/01_download_data.py")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "configs/demo.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupted_download_continues(hub: HubServer, project: Path, tmp_path: Path) -> None:
    hub.interrupt_downloads(after_bytes=500, times=1)
    environment = hub.env(tmp_path / "cache")
    done = run(project, environment, "scripts/01_download_data.py")
    # A second run must continue where the first was interrupted.
    if done.returncode:
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
        done = run(project, environment, "scripts/01_download_data.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(pd.read_csv(project / "data" / "val_df.csv")) == len(support.TEXTS)
