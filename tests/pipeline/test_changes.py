"""Measuring a change: the order of the processes, names, refusals, what is still valid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from utils.config_loader import load_config
from utils.core.errors import ConfigError
from utils.pipeline import change_folder
from utils.pipeline.change_plan import Change, ChangeRequest, plan_change
from utils.pipeline.change_processes import Durations, format_duration
from utils.pipeline.change_settings import change_name, describe_changes, find_changes
from utils.schema.change import ChangeRecord, load_change, save_change

DEMO = "configs/demo.yaml"


def make_change(folder: Path, *changed: str, repeats: int = 3, **fields: object) -> Change:
    """A planned change of the demo, below ``folder``."""
    request = ChangeRequest(
        config_file=DEMO,
        shared=(f"output.results_dir={json.dumps(str(folder))}",),
        changed=changed or ("profiling.max_length=128",),
        repeats=repeats,
        evaluates=bool(fields.get("evaluates", False)),
    )
    return plan_change(request)


def name_of(*changed: str) -> str:
    return change_name(find_changes(load_config(DEMO), load_config(DEMO, changed)))


def test_the_sides_take_turns_and_more_repeats_continue_the_order(tmp_path: Path) -> None:
    folders = [process.folder.name for process in make_change(tmp_path).processes]
    assert folders == [
        "01-baseline",
        "02-candidate",
        "03-candidate",
        "04-baseline",
        "05-baseline",
        "06-candidate",
    ]
    longer = make_change(tmp_path, repeats=5).processes
    assert [process.folder.name for process in longer[:6]] == folders
    assert [process.side.name for process in longer].count("candidate") == 5


def test_processes_differ_in_the_change_and_the_folder_alone(tmp_path: Path) -> None:
    first, second, *_ = make_change(tmp_path / "with: a colon").processes
    before = first.config.to_dict()
    after = second.config.to_dict()
    assert first.config.files.results_dir == first.folder
    assert before["profiling"].pop("max_length") == 64
    assert after["profiling"].pop("max_length") == 128
    assert before.pop("output") != after.pop("output")
    assert before == after
    assert not before["evaluation"]["enabled"]


def test_names_are_made_of_the_changed_settings() -> None:
    assert name_of("profiling.max_length=128") == "profiling.max_length=128"
    assert name_of("model.dtype=bfloat16", "profiling.batch_sizes=[1, 2]") == (
        "model.dtype=bfloat16+profiling.batch_sizes=1-2"
    )
    long_name = name_of(f"model.name={'a/b' * 50}")
    assert len(long_name) <= 80
    assert long_name != name_of(f"model.name={'a/b' * 51}")


def test_a_change_is_described_with_both_values() -> None:
    changes = find_changes(load_config(DEMO), load_config(DEMO, ["model.dtype=bfloat16"]))
    assert describe_changes(changes) == "model.dtype float32 -> bfloat16"


def test_a_setting_of_the_evaluation_is_a_change_where_it_is_measured(tmp_path: Path) -> None:
    setting = "evaluation.chunk_rows=7"
    assert make_change(tmp_path, setting, evaluates=True).settings[0].after == "7"
    with pytest.raises(ConfigError, match="which is not measured"):
        make_change(tmp_path, setting)


def test_processes_of_another_machine_are_deleted_before_the_record_is_written(
    tmp_path: Path,
) -> None:
    change = make_change(tmp_path)
    assert change_folder.read_machine_changes(change) == []
    change_folder.prepare_folder(change, delete_processes=False)
    assert change_folder.read_machine_changes(change) == []
    file = change.folder / "change.json"
    record = load_change(file)
    machine = {**record.machine, "torch": "1.0"}
    save_change(file, ChangeRecord(settings=record.settings, machine=machine))
    for name in ("01-baseline", "12-candidate", "my notes"):
        (change.folder / name).mkdir()
    (difference,) = change_folder.read_machine_changes(change)
    assert difference.startswith("torch (then 1.0, now ")
    change_folder.prepare_folder(change, delete_processes=True)
    assert sorted(path.name for path in change.folder.iterdir()) == ["change.json", "my notes"]
    assert load_change(file) == record


def test_the_time_left_follows_from_the_processes_of_each_side() -> None:
    durations = Durations()
    assert durations.expected_s(["baseline"]) is None
    durations.add("baseline", 10.0)
    assert durations.expected_s(["candidate", "baseline"]) == 20.0
    durations.add("candidate", 4.0)
    durations.add("candidate", 6.0)
    assert durations.expected_s(["candidate", "baseline", "baseline"]) == 25.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (119.4, "119 s"), (150, "2 min"), (3_600, "60 min"), (9_000, "2 h 30 min")],
)
def test_durations_are_rounded_for_a_person(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
