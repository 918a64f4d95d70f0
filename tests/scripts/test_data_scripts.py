"""The scripts around the data set, run for real: step 01, the build, the check."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests import support
from tests.hub_server import HubServer, closed_port, hub_env
from utils.config_loader import load_config
from utils.core.files import sha256_tree
from utils.demo import assets as demo_assets
from utils.pipeline.steps import get_step, stale_reason

DOWNLOAD = "scripts/01_download_data.py"
CHECK = "scripts/validate_dataset.py"
MODEL_ID, DATA_ID = "codefactory4791/intent-classification-qwen", "codefactory4791/amazon_test"
NAMES = ("music", "books", "games")  # not sorted: ids by sorted names would be wrong


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return support.build_tiny_model(tmp_path_factory.mktemp("model"), NAMES)


@pytest.fixture
def local(tmp_path: Path, model: Path) -> list[str]:
    """Overrides of a run on a CSV file; the data set is not written yet."""
    rows = pd.DataFrame(
        {"query": support.TEXTS, "label": [support.LABELS[i % 3] for i in range(60)]}
    )
    rows.to_csv(tmp_path / "in.csv", index=False)
    return [*support.small_overrides(tmp_path, model), f"dataset.hf_name={tmp_path / 'in.csv'}"]


def test_step_01_writes_the_models_own_ids_and_records_that_it_finished(
    tmp_path: Path, local: list[str]
) -> None:
    done = support.run_script(DOWNLOAD, *support.set_flags(local))
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "data" / "val_df.csv")
    assert list(table["text"]) == list(support.TEXTS)
    assert dict(zip(table["labels"], table["label_id"], strict=True)) == {
        name: i for i, name in enumerate(NAMES)
    }
    mapping = json.loads((tmp_path / "data" / "label_mappings.json").read_text())
    assert mapping["id2label"] == {"0": "music", "1": "books", "2": "games"}
    assert stale_reason(get_step("01"), load_config("configs/config.yaml", local)) is None


def test_labels_that_differ_change_nothing_and_exit_2(tmp_path: Path, local: list[str]) -> None:
    support.write_dataset(tmp_path / "data")
    before = {p.name: p.read_bytes() for p in (tmp_path / "data").iterdir()}
    pd.DataFrame({"text": ["a"], "labels": ["films"]}).to_csv(tmp_path / "in.csv", index=False)
    done = support.run_script(DOWNLOAD, *support.set_flags(local))
    assert done.returncode == 2
    assert "'films'" in done.stderr and "Traceback" not in done.stderr
    assert {p.name: p.read_bytes() for p in (tmp_path / "data").iterdir()} == before


@pytest.fixture
def hub_folders(tmp_path: Path, model: Path) -> tuple[Path, list[str]]:
    data = tmp_path / "served"
    data.mkdir()
    rows = {"query": support.TEXTS[:9], "label": [support.LABELS[i % 3] for i in range(9)]}
    pd.DataFrame(rows).to_parquet(data / "test-00000-of-00001.parquet")
    skipped = ("model.name", "dataset.hf_name")
    return data, [
        word for word in support.small_overrides(tmp_path, model) if not word.startswith(skipped)
    ]


def test_step_01_from_the_hub_records_the_revision(
    tmp_path: Path, model: Path, hub_folders: tuple[Path, list[str]]
) -> None:
    data, overrides = hub_folders
    with HubServer() as hub:
        hub.add_model(MODEL_ID, model)
        repo = hub.add_dataset(DATA_ID, data)
        done = support.run_script(
            DOWNLOAD, *support.set_flags(overrides), **hub.env(tmp_path / "cache")
        )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "data" / "dataset_info.json").read_text())
    assert (record["name"], record["revision"], record["num_rows"]) == (DATA_ID, repo.commit, 9)
    assert list(pd.read_csv(tmp_path / "data" / "val_df.csv")["label_id"][:3]) == [1, 2, 0]


@pytest.mark.parametrize(("status", "words"), [(401, "hf auth login"), (404, "no such data set")])
def test_a_hub_that_refuses_exits_2(
    tmp_path: Path, model: Path, hub_folders: tuple[Path, list[str]], status: int, words: str
) -> None:
    data, overrides = hub_folders
    with HubServer() as hub:
        hub.add_model(MODEL_ID, model)
        hub.add_dataset(DATA_ID, data)
        hub.fail(DATA_ID, status)
        done = support.run_script(
            DOWNLOAD, *support.set_flags(overrides), **hub.env(tmp_path / "cache")
        )
    assert done.returncode == 2, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr


def test_no_hub_at_all_exits_2(tmp_path: Path, hub_folders: tuple[Path, list[str]]) -> None:
    with closed_port() as endpoint:
        done = support.run_script(
            DOWNLOAD, *support.set_flags(hub_folders[1]), **hub_env(endpoint, tmp_path / "cache")
        )
    assert done.returncode == 2, done.stderr
    assert "cannot be reached" in done.stderr
    assert not (tmp_path / "data").exists()


def test_the_check_counts_and_warns(tmp_path: Path, model: Path) -> None:
    support.write_dataset(tmp_path / "data", ("same", "same", "x " * 500), NAMES)
    done = support.run_script(CHECK, *support.set_flags(support.small_overrides(tmp_path, model)))
    assert done.returncode == 0, done.stderr
    assert "Rows: 3\n" in done.stdout and "Truncated at 64 tokens: 1 rows" in done.stdout
    assert "1 texts repeat" in done.stderr


def test_the_check_exits_2_without_a_data_set(tmp_path: Path, model: Path) -> None:
    done = support.run_script(CHECK, *support.set_flags(support.small_overrides(tmp_path, model)))
    assert done.returncode == 2
    assert "01_download_data.py" in done.stderr and "Traceback" not in done.stderr


def test_the_build_script_keeps_what_is_built(tmp_path: Path) -> None:
    words = [f"embedded.dir={tmp_path / 'demo'}", f"output.results_dir={tmp_path / 'results'}"]
    for name in demo_assets.PARTS:
        (tmp_path / "demo" / name).mkdir(parents=True)
    stamp = {
        "built_from": demo_assets.stamp_fingerprint(
            load_config("configs/config.yaml", words).embedded
        )
    }
    (tmp_path / "demo" / "stamp.json").write_text(json.dumps(stamp))
    before = sha256_tree(tmp_path / "demo")
    done = support.run_script("scripts/build_demo_assets.py", *support.set_flags(words))
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "demo") in done.stdout and "Training" not in done.stdout
    assert sha256_tree(tmp_path / "demo") == before


def test_the_build_script_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    words = support.set_flags(
        [f"embedded.dir={tmp_path / 'file' / 'demo'}", f"output.results_dir={tmp_path / 'results'}"]
    )
    done = support.run_script("scripts/build_demo_assets.py", *words)
    assert done.returncode == 2, done.stderr
    assert "Cannot write" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "file").read_text() == "in the way"


def run_ok(script: str, overrides: list[str]) -> None:
    done = support.run_script(script, *support.set_flags(overrides))
    assert done.returncode == 0, done.stderr


def test_a_data_set_without_labels_is_measured_and_its_accuracy_is_null_with_the_reason(
    tmp_path: Path, local: list[str]
) -> None:
    pd.DataFrame({"text": support.TEXTS}).to_csv(tmp_path / "in.csv", index=False)
    run_ok(DOWNLOAD, local)
    run_ok("scripts/02_baseline_inference.py", local)
    payload = json.loads((tmp_path / "results" / "baseline_metrics.json").read_text())
    metrics = payload["full_dataset_metrics"]
    assert (metrics["accuracy"], metrics["f1_macro"], metrics["num_samples"]) == (None, None, 60)
    assert metrics["unavailable"]["accuracy"] == metrics["unavailable"]["f1_macro"]
    assert "no row has a label" in metrics["unavailable"]["accuracy"]
    assert metrics["throughput_samples_per_sec"] > 0
    info = payload["dataset_info"]
    assert (info["label_mapping_source"], info["label_mapping_confidence"]) == ("none", "none")
    assert info["label_names"] == list(NAMES)
    assert info["name"] == str(tmp_path / "in.csv")


@pytest.mark.parametrize(
    "script", ["scripts/02_baseline_inference.py", "scripts/03_detailed_profiling.py", CHECK]
)
def test_the_data_of_another_configuration_is_refused_with_exit_code_2(
    tmp_path: Path, local: list[str], script: str
) -> None:
    run_ok(DOWNLOAD, local)
    pd.DataFrame({"text": ["other"], "label": ["music"]}).to_csv(
        tmp_path / "other.csv", index=False
    )
    done = support.run_script(
        script, *support.set_flags([*local, f"dataset.hf_name={tmp_path / 'other.csv'}"])
    )
    assert done.returncode == 2, done.stderr
    assert f"then '{tmp_path / 'in.csv'}', now '{tmp_path / 'other.csv'}'" in done.stderr
    assert "01_download_data.py" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "results" / "baseline_metrics.json").exists()


@pytest.mark.parametrize("name", ["in.csv", "data/val_df.csv"])
def test_the_users_own_file_is_not_overwritten(tmp_path: Path, local: list[str], name: str) -> None:
    """Be it the source itself, or a file where step 01 would write."""
    before = (tmp_path / "in.csv").read_bytes()
    target = tmp_path / name
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(before)
    done = support.run_script(
        DOWNLOAD, *support.set_flags([*local, f"dataset.local_path={target}"])
    )
    assert done.returncode == 2, done.stderr
    assert "dataset.local_path" in done.stderr and "Traceback" not in done.stderr
    assert target.read_bytes() == before
    assert not list(target.parent.glob("*.json"))


def test_the_setting_that_a_refusal_shows_makes_step_01_succeed(
    tmp_path: Path, local: list[str]
) -> None:
    rows = pd.DataFrame(
        {"text": support.TEXTS, "label": [support.LABELS[i % 3].upper() for i in range(60)]}
    )
    rows.to_csv(tmp_path / "in.csv", index=False)
    refused = support.run_script(DOWNLOAD, *support.set_flags(local))
    assert refused.returncode == 2
    shown = refused.stderr[refused.stderr.index("--set ") :].splitlines()[0]
    done = support.run_script(DOWNLOAD, *support.set_flags(local), *shlex.split(shown))
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "data" / "val_df.csv")
    assert list(table["label_id"]) == [NAMES.index(support.LABELS[i % 3]) for i in range(60)]


def test_label_names_that_change_in_the_model_make_step_01_run_again(
    tmp_path: Path, local: list[str], model: Path
) -> None:
    own = tmp_path / "own_model"
    shutil.copytree(model, own)
    overrides = [*local, f"model.name={own}"]
    run_ok(DOWNLOAD, overrides)
    config = load_config("configs/config.yaml", overrides)
    assert stale_reason(get_step("01"), config) is None
    (own / "config.json").write_text((own / "config.json").read_text().replace("music", "musik"))
    assert "config.json" in str(stale_reason(get_step("01"), config))
