"""--resume: a step is skipped only if its inputs, settings, code and outputs are unchanged."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from tests.support import small_config
from utils.config_loader import Config
from utils.pipeline import steps

REPORT = steps.get_step("04")


@pytest.fixture
def finished(tmp_path: Path, tiny_model: Path) -> Config:
    config = small_config(tmp_path, tiny_model)
    for file in (*REPORT.inputs(config), *REPORT.outputs(config)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.name)
    steps.record_finished(REPORT, config)
    return config


def test_unchanged_is_skipped(finished: Config) -> None:
    assert steps.stale_reason(REPORT, finished) is None


def test_never_finished_runs(tmp_path: Path, tiny_model: Path) -> None:
    assert "not finished" in str(steps.stale_reason(REPORT, small_config(tmp_path, tiny_model)))


def test_files_that_are_merely_present_do_not_count(finished: Config) -> None:
    (finished.files.state_dir / "step_04.json").unlink()
    assert steps.stale_reason(REPORT, finished)


@pytest.mark.parametrize("place", ["metrics", "bottlenecks", "html_report", "comparison_plot"])
def test_a_changed_input_or_output_runs_it_again(finished: Config, place: str) -> None:
    file: Path = getattr(finished.files, place)
    file.write_text("changed")
    assert file.name in str(steps.stale_reason(REPORT, finished))
    file.unlink()
    assert file.name in str(steps.stale_reason(REPORT, finished))


def test_a_changed_setting_runs_it_again_and_another_does_not(
    tmp_path: Path, tiny_model: Path, finished: Config
) -> None:
    assert (
        steps.stale_reason(REPORT, small_config(tmp_path, tiny_model, "profiling.max_length=32"))
        is None
    )
    changed = small_config(tmp_path, tiny_model, "output.detailed_metrics_file=other.csv")
    assert "setting output" in str(steps.stale_reason(REPORT, changed))


@pytest.mark.parametrize(("number", "is_stale"), [("01", False), ("02", True), ("03", True)])
def test_another_version_of_a_library_runs_what_measures_again(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: str,
    is_stale: bool,
) -> None:
    step = steps.get_step(number)
    config = small_config(tmp_path, tiny_model)
    steps.record_finished(step, config)
    installed = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "9.9" if name == "torch" else installed(name)
    )
    expected = "changed: library torch" if is_stale else None
    assert steps.stale_reason(step, config) == expected


def test_a_damaged_record_runs_it_again(finished: Config) -> None:
    (finished.files.state_dir / "step_04.json").write_text("{")
    assert steps.stale_reason(REPORT, finished)


def test_every_step_is_a_script() -> None:
    assert [item.number for item in steps.STEPS] == ["01", "02", "03", "04"]
    for item in steps.STEPS:
        assert item.path.is_file()
        assert item.script.startswith(item.number)
