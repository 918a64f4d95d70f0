"""Later steps measure only the data set that their own configuration asks for; nothing of the
user's is overwritten."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests import support
from utils.config_loader import Config, load_config, with_override
from utils.core.errors import DataError, UserError
from utils.core.files import PROJECT_ROOT, sha256_file
from utils.data import writer
from utils.data.dataset_settings import DatasetSettings
from utils.data.labels import ModelLabels
from utils.data.prepared import check_prepared_data, known_hashes
from utils.data.sources import DatasetSource

MODEL = ModelLabels(names=("b", "a"), num_labels=2, source="id2label")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Of a CSV file whose data set step 01 has written."""
    pd.DataFrame({"text": ["one", "two"], "label": ["a", "b"]}).to_csv(
        tmp_path / "in.csv", index=False
    )
    settings = [
        f"dataset.hf_name={tmp_path / 'in.csv'}",
        f"dataset.local_path={tmp_path / 'data' / 'val_df.csv'}",
    ]
    made = load_config("configs/config.yaml", settings)
    write(made)
    return made


def write(config: Config, model: ModelLabels = MODEL) -> None:
    """What step 01 does."""
    settings = DatasetSettings.of(config)
    writer.check_target(settings)
    preparation = writer.prepare(settings, support.read_configured_source(config), model)
    writer.write_dataset(settings, preparation)


def record_of(config: Config) -> dict[str, object]:
    content: dict[str, object] = json.loads(
        (config.data_file.parent / "dataset_info.json").read_text()
    )
    return content


def test_the_data_set_of_the_configuration_is_taken(config: Config) -> None:
    prepared = check_prepared_data(DatasetSettings.of(config), MODEL)
    assert prepared.mapping.names == ("b", "a")
    assert (prepared.info.name, prepared.info.num_rows) == (config.dataset.hf_name, 2)
    assert (prepared.info.source_text_column, prepared.info.source_label_column) == (
        "text",
        "label",
    )
    assert prepared.info.sha256 == sha256_file(config.data_file)
    assert prepared.info.label_mapping_confidence == "certain"


def test_a_source_that_was_changed_since_step_01_is_warned_about(
    config: Config, tmp_path: Path
) -> None:
    settings = DatasetSettings.of(config)
    assert check_prepared_data(settings, MODEL).info.warnings == ()
    later = settings.info_file.stat().st_mtime + 1
    os.utime(tmp_path / "in.csv", (later, later))
    [warning] = check_prepared_data(settings, MODEL).info.warnings
    assert "in.csv was changed after step 01 read it" in warning
    (tmp_path / "in.csv").unlink()
    assert check_prepared_data(settings, MODEL).info.warnings == ()


def test_the_same_file_by_another_name_is_the_same(config: Config, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "in.csv")
    for name in (tmp_path / "link.csv", tmp_path / "data" / ".." / "in.csv"):
        check_prepared_data(
            DatasetSettings.of(with_override(config, f"dataset.hf_name={name}")), MODEL
        )


@pytest.mark.parametrize(
    "override",
    [
        "dataset.split=train",
        "dataset.revision=abc",
        "dataset.sample_sizes=[1]",
        "model.dtype=float16",
    ],
)
def test_settings_that_change_nothing_about_a_file_are_free(config: Config, override: str) -> None:
    check_prepared_data(DatasetSettings.of(with_override(config, override)), MODEL)


@pytest.mark.parametrize(
    "override",
    [
        "dataset.hf_name=someone/some_data",
        "dataset.hf_name=embedded",
        "dataset.text_column=words",
        "dataset.label_column=null",
        "dataset.label_map={a: b}",
        "evaluation.unknown_labels=skip",
    ],
)
def test_a_setting_that_differs_is_named_with_both_values(config: Config, override: str) -> None:
    key, _, value = override.partition("=")
    with pytest.raises(DataError, match="another configuration") as caught:
        check_prepared_data(DatasetSettings.of(with_override(config, override)), MODEL)
    settings: Any = record_of(config)["settings"]
    assert f"{key}: then {settings[key]!r}, now " in caught.value.what
    assert "01_download_data.py" in str(caught.value.fix)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (replace(MODEL, names=("a", "b")), "the model's labels: then b, a, now a, b"),
        (ModelLabels(names=None, num_labels=2), "now without names"),
        (ModelLabels(names=("b", "a", "c"), num_labels=3), "number of labels: then 2, now 3"),
    ],
)
def test_a_model_with_other_labels_is_named(config: Config, model: ModelLabels, words: str) -> None:
    with pytest.raises(DataError, match="another configuration") as caught:
        check_prepared_data(DatasetSettings.of(config), model)
    assert words in caught.value.what


def test_revision_split_and_configuration_of_the_hub_count(tmp_path: Path) -> None:
    """The rows come from the test itself: only what is recorded of the hub's settings matters
    here."""
    target = f"dataset.local_path={tmp_path / 'val_df.csv'}"
    hub = load_config("configs/config.yaml", ["dataset.hf_name=someone/some_data", target])
    source = DatasetSource(rows=lambda: iter([("one", "a")]), revision="c0ffee")
    settings = DatasetSettings.of(hub)
    writer.write_dataset(settings, writer.prepare(settings, source, MODEL))
    info = check_prepared_data(settings, MODEL).info
    assert (info.revision, info.split, info.settings["dataset.revision"]) == (
        "c0ffee",
        "test",
        None,
    )
    for override in (
        "dataset.split=train",
        "dataset.revision=abc",
        "dataset.config=other",
        "dataset.hf_name=someone/else",
    ):
        with pytest.raises(DataError, match=override.partition("=")[0]):
            check_prepared_data(DatasetSettings.of(with_override(hub, override)), MODEL)


def test_a_data_set_that_was_changed_is_refused(config: Config) -> None:
    config.data_file.write_text(config.data_file.read_text() + '"three","a",1\n')
    with pytest.raises(DataError, match="changed after step 01"):
        check_prepared_data(DatasetSettings.of(config), MODEL)


def test_label_mappings_that_were_changed_are_refused(config: Config) -> None:
    content = {"label2id": {"a": 0, "b": 1}, "id2label": {"0": "a", "1": "b"}, "num_labels": 2}
    config.label_mappings_file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="label mappings were changed"):
        check_prepared_data(DatasetSettings.of(config), MODEL)


@pytest.mark.parametrize(
    "content", [None, "{", '{"name": "x", "sha256": "0"}', '{"record_version": 1}']
)
def test_a_record_that_is_missing_or_of_another_form_is_refused(
    config: Config, content: str | None
) -> None:
    file = config.data_file.parent / "dataset_info.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(DataError, match="not recorded") as caught:
        check_prepared_data(DatasetSettings.of(config), MODEL)
    assert "01_download_data.py" in str(caught.value.fix)


def test_a_data_set_that_is_missing_names_step_01(config: Config) -> None:
    config.data_file.unlink()
    with pytest.raises(UserError, match="01_download_data"):
        check_prepared_data(DatasetSettings.of(config), MODEL)


def test_several_data_sets_may_lie_in_one_folder_but_only_the_last_is_described(
    config: Config,
) -> None:
    other = with_override(
        config, f"dataset.local_path={config.data_file.with_name('other.parquet')}"
    )
    write(other)
    check_prepared_data(DatasetSettings.of(other), MODEL)
    with pytest.raises(DataError, match=r"describes other\.parquet"):
        check_prepared_data(DatasetSettings.of(config), MODEL)
    write(config)
    check_prepared_data(DatasetSettings.of(config), MODEL)


def test_step_01_replaces_only_what_it_wrote(config: Config) -> None:
    write(config)
    config.data_file.write_text("text,labels,label_id\nmine,a,0\n")
    with pytest.raises(DataError, match="not written by step 01") as caught:
        write(config)
    assert "dataset.local_path" in str(caught.value.fix)
    assert config.data_file.read_text() == "text,labels,label_id\nmine,a,0\n"


@pytest.mark.parametrize("name", ["val_df.csv", "label_mappings.json", "dataset_info.json"])
def test_files_that_the_user_brought_are_kept(tmp_path: Path, config: Config, name: str) -> None:
    target = tmp_path / "mine" / "val_df.csv"
    target.parent.mkdir()
    target.with_name(name).write_text('{"features": {}}')
    with pytest.raises(DataError, match="not written by step 01"):
        write(with_override(config, f"dataset.local_path={target}"))
    assert [path.name for path in target.parent.iterdir()] == [name]
    assert target.with_name(name).read_text() == '{"features": {}}'


def test_a_data_set_of_an_earlier_version_may_be_replaced(config: Config) -> None:
    record = {
        "name": "x",
        "label_mapping_source": "model",
        "sha256": sha256_file(config.data_file),
        "warnings": [],
    }
    (config.data_file.parent / "dataset_info.json").write_text(json.dumps(record))
    write(config)
    check_prepared_data(DatasetSettings.of(config), MODEL)


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4, 5])
def test_an_interruption_between_two_files_locks_nobody_out(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    """Files move into place in turn; the process ends before each of these moves."""
    pd.DataFrame({"text": ["three"], "label": ["a"]}).to_csv(tmp_path / "in.csv", index=False)
    moves = 0
    replace_file = Path.replace

    def stop(source: Path, target: Path) -> Path:
        nonlocal moves
        moves += 1
        if moves == stop_after:
            raise KeyboardInterrupt
        return replace_file(source, target)

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write(config)
    monkeypatch.undo()
    try:  # what later steps see is complete: the old data set or none
        assert check_prepared_data(DatasetSettings.of(config), MODEL).info.num_rows == 2
        assert len(pd.read_csv(config.data_file)) == 2
    except DataError as error:
        assert "01_download_data.py" in str(error)
    assert sha256_file(config.data_file) in known_hashes(DatasetSettings.of(config))["val_df.csv"]
    write(config)
    assert check_prepared_data(DatasetSettings.of(config), MODEL).info.num_rows == 1


def test_names_of_hub_data_sets_are_not_taken_for_paths() -> None:
    assert not (PROJECT_ROOT / "someone").exists()
    hub = load_config("configs/config.yaml", ["dataset.hf_name=someone/data.v2"])
    assert writer.origin_of(hub.dataset.hf_name) == "hub"
