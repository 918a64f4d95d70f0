"""Settings: what is accepted, what is refused, and with which message."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import yaml

from utils.config_loader import Config, default_config, load_config
from utils.core.errors import ConfigError
from utils.core.files import PROJECT_ROOT
from utils.core.paths import source_files, tried_places
from utils.reporting.target_facts import TARGET_UNITS
from utils.settings import TargetsConfig, all_keys

SOURCES = [*PROJECT_ROOT.glob("utils/**/*.py"), *PROJECT_ROOT.glob("scripts/*.py")]


def test_default_config_is_the_contract() -> None:
    config = load_config()
    assert config.model.name == "codefactory4791/intent-classification-qwen"
    assert config.dataset.hf_name == "codefactory4791/amazon_test"
    assert config.get("profiling.batch_sizes") == [1, 4, 8, 16, 32, 64]
    assert (
        config.get("profiling.num_warmup_runs"),
        config.get("profiling.num_measurement_runs"),
    ) == (3, 10)
    assert config.get("evaluation.batching") == "token_budget"
    assert config.get("no.such.key", 7) == 7


def test_the_file_says_what_the_defaults_say() -> None:
    """A config file that leaves a key out means the same as one that gives the default."""
    # The targets are those of the study; by default there are none.
    config = load_config("configs/config.yaml").model_copy(update={"targets": TargetsConfig()})
    assert config == Config()


def test_overrides_are_yaml_and_the_last_one_applies() -> None:
    config = load_config(
        "configs/demo.yaml",
        ["profiling.batch_sizes=[1, 2]", "model.dtype=float16", "model.dtype=bfloat16"],
    )
    assert config.profiling.batch_sizes == (1, 2)
    assert config.model.dtype == "bfloat16"


def test_a_date_as_a_revision_is_its_text() -> None:
    assert (
        load_config("configs/demo.yaml", ["model.revision=2026-01-31"]).model.revision
        == "2026-01-31"
    )


def test_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config().model.dtype = "float16"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        (
            "profiling.batch_size=[1]",
            ["profiling.batch_size", "did you mean profiling.batch_sizes?"],
        ),
        ("batch_sizes=[1]", ["batch_sizes", "profiling.batch_sizes"]),
        ("model.dtype=fp16", ["model.dtype", "'fp16'", "float32", "bfloat16"]),
        ("model.device=gpu", ["model.device", "'gpu'", "cuda"]),
        ("profiling.batch_sizes=[0]", ["profiling.batch_sizes", "0", "greater than 0"]),
        ("profiling.batch_sizes=[]", ["profiling.batch_sizes", "at least 1"]),
        ("profiling.batch_sizes=[4, 4]", ["profiling.batch_sizes", "repeated: [4]"]),
        ("profiling.max_length=long", ["profiling.max_length", "'long'", "integer"]),
        ("evaluation.max_tokens_per_batch=-5", ["evaluation.max_tokens_per_batch", "-5", "auto"]),
        ("dataset.local_path=data.txt", ["dataset.local_path", ".csv or .parquet"]),
        ("model=qwen", ["model", "qwen"]),
        ("nonsense", ["nonsense", "--set section.key=VALUE"]),
        ("model.name.x=1", ["model.name"]),
    ],
)
def test_refusals_name_path_value_and_what_is_allowed(override: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("configs/config.yaml", [override])
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "content", ["- 1\n- 2\n", "model: [\n", "model: {name: \xe9}".encode("latin-1"), b"\xff\xfe"]
)
def test_unreadable_files_are_refused_with_their_path(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("content", ['model: {name: "\\ud800"}', "model: &a {name: *a}"])
def test_what_no_setting_can_be_is_refused_with_its_path(tmp_path: Path, content: str) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match="Invalid settings") as caught:
        load_config(file)
    assert str(file) in str(caught.value)


def test_missing_file_names_the_ones_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"configs/demo\.yaml"):
        load_config(tmp_path / "none.yaml")


def test_paths_start_at_the_project_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        load_config("configs/config.yaml").files.metrics
        == PROJECT_ROOT / "results" / "baseline_metrics.json"
    )


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user works in a folder of their own, with a model, two data files and a configuration."""
    (tmp_path / "models" / "mine").mkdir(parents=True)
    for name in ("part-1.csv", "part-2.csv"):
        (tmp_path / name).write_text("text,labels\na,b\n")
    (tmp_path / "embedded").mkdir()
    (tmp_path / "own.yaml").write_text(
        "model: {name: ./models/mine}\ndataset: {hf_name: part-1.csv}\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("key", ["model.name", "model.tokenizer", "model.adapter_base"])
@pytest.mark.parametrize("name", ["models/mine", "./models/mine"])
def test_inputs_of_the_command_line_are_looked_up_in_the_working_directory(
    elsewhere: Path, key: str, name: str
) -> None:
    assert load_config(overrides=[f"{key}={name}"]).get(key) == str(elsewhere / "models" / "mine")
    section, field = key.split(".")
    assert load_config(overrides=[f"{section}={{{field}: {name}}}"]).get(key) == str(
        elsewhere / "models" / "mine"
    )


def test_a_data_file_and_a_pattern_are_looked_up_in_the_working_directory(elsewhere: Path) -> None:
    one = load_config(overrides=["dataset.hf_name=part-1.csv"])
    assert one.dataset.hf_name == str(elsewhere / "part-1.csv")
    many = load_config(overrides=["dataset.hf_name=part-*.csv"])
    assert source_files(many.dataset.hf_name) == [
        elsewhere / "part-1.csv",
        elsewhere / "part-2.csv",
    ]


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    "name", ["embedded", "someone/on-the-hub", "configs/architectures/qwen2.5-0.5b.json"]
)
def test_names_that_are_not_there_stay_as_they_are(name: str) -> None:
    assert load_config(overrides=[f"model.name={name}"]).model.name == name


def test_inputs_that_a_config_file_names_are_looked_up_in_the_working_directory_too(
    elsewhere: Path,
) -> None:
    config = load_config("own.yaml")
    assert source_files(config.dataset.hf_name) == [elsewhere / "part-1.csv"]
    assert config.dataset.hf_name == str(elsewhere / "part-1.csv")


def test_inputs_that_a_config_file_names_are_looked_up_in_the_project_first(
    elsewhere: Path,
) -> None:
    (elsewhere / "configs").mkdir()
    (elsewhere / "configs" / "demo.yaml").write_text("not the project's")
    (elsewhere / "own.yaml").write_text("dataset: {hf_name: configs/demo.yaml}\n")
    from_file = load_config("own.yaml")
    assert source_files(from_file.dataset.hf_name) == [PROJECT_ROOT / "configs" / "demo.yaml"]
    typed = load_config("own.yaml", ["dataset.hf_name=configs/demo.yaml"])
    assert source_files(typed.dataset.hf_name) == [elsewhere / "configs" / "demo.yaml"]


def test_without_a_name_the_projects_own_config_is_read(elsewhere: Path) -> None:
    (elsewhere / "configs").mkdir()
    (elsewhere / "configs" / "config.yaml").write_text("model: {name: another/project}\n")
    assert load_config().model.name == Config().model.name
    assert load_config(default_config()).model.name == Config().model.name
    assert load_config("configs/config.yaml").model.name == "another/project"


def test_messages_name_both_places(elsewhere: Path) -> None:
    config = load_config(overrides=["model.name=./models/other"])
    both = f"{elsewhere / 'models' / 'other'} and {PROJECT_ROOT / 'models' / 'other'}"
    assert tried_places(config.model.name) == both
    assert tried_places("/models/other") == "/models/other"
    with pytest.raises(ConfigError) as caught:
        load_config("none.yaml")
    assert caught.value.where == f"{elsewhere / 'none.yaml'} and {PROJECT_ROOT / 'none.yaml'}"


def test_in_the_projects_root_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT_ROOT)
    config = load_config(
        "configs/demo.yaml", ["model.name=./configs", "dataset.hf_name=configs/*.yaml"]
    )
    assert (config.model.name, config.dataset.hf_name) == ("./configs", "configs/*.yaml")
    assert tried_places("x/y/z") == str(PROJECT_ROOT / "x/y/z")
    assert default_config() == "configs/config.yaml"


def test_another_process_reads_the_same_inputs(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of a cluster gets the settings pickled and works in another directory."""
    config = load_config(overrides=["dataset.hf_name=part-*.csv", "model.name=./models/other"])
    monkeypatch.chdir("/")
    copy = pickle.loads(pickle.dumps(config))
    assert source_files(copy.dataset.hf_name) == [
        elsewhere / "part-1.csv",
        elsewhere / "part-2.csv",
    ]
    assert copy == config


@pytest.mark.parametrize("key", all_keys())
def test_every_setting_is_read_somewhere(key: str) -> None:
    section, name = key.split(".")
    if section == "targets":
        assert name in TARGET_UNITS
        return
    read = re.compile(rf"\w\.{name}\b")
    code = [file.read_text() for file in SOURCES if file.name not in ("settings.py", "steps.py")]
    own = (PROJECT_ROOT / "utils/settings.py").read_text().split("class Config(Section)")[1]
    assert any(read.search(text) for text in [*code, own]), f"{key} is never read"


def test_config_files_hold_no_unknown_keys() -> None:
    for file in (PROJECT_ROOT / "configs").glob("*.yaml"):
        assert set(yaml.safe_load(file.read_text())) <= set(Config.model_fields)
        load_config(file)


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "true", "010", "2024-01-01", "12:30"])
def test_text_is_taken_as_it_is_written(tmp_path: Path, word: str) -> None:
    expected = {word: word}
    assert load_config(overrides=[f"dataset.label_map={{{word}: {word}}}"]).dataset.label_map == (
        expected
    )
    assert load_config(overrides=[f"dataset.label_map.{word}={word}"]).dataset.label_map == expected
    assert load_config(overrides=[f"dataset.config={word}"]).dataset.config == word
    file = tmp_path / "config.yaml"
    file.write_text(f"dataset:\n  label_map:\n    {word}: {word}\n  config: {word}\n")
    dataset = load_config(file).dataset
    assert (dataset.label_map, dataset.config) == (expected, word)


def test_null_is_no_text_and_truth_values_stay_truth_values() -> None:
    config = load_config(
        overrides=["dataset.label_column=null", "evaluation.enabled=no", "dataset.label_map={a: ~}"]
    )
    assert config.dataset.label_column is None
    assert config.evaluation.enabled is False
    assert config.dataset.label_map == {"a": ""}
