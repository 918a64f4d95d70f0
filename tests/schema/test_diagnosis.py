"""``bottlenecks.json`` and ``ceilings.json`` of every version load, as records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.diagnosis.builders import make_ceilings, make_diagnosis
from utils.core.errors import UserError
from utils.schema.ceilings import convert_ceilings
from utils.schema.diagnosis import (
    DIAGNOSIS_VERSION,
    Diagnosis,
    load_diagnosis,
    save_diagnosis,
)
from utils.schema.generate import SCHEMA_FOLDER

VERSIONS = Path(__file__).parent / "versions"
STORED = ("1", "2_first", "2_with_memory_model", "2")


def stored(version: str) -> tuple[dict[str, Any], Diagnosis]:
    """What a file of an earlier version holds, and the record that it becomes."""
    file = VERSIONS / f"bottlenecks_{version}.json"
    return json.loads(file.read_text()), load_diagnosis(file)


@pytest.mark.parametrize("version", STORED)
def test_verdicts_of_earlier_versions_load(version: str) -> None:
    payload, diagnosis = stored(version)
    assert diagnosis.main_bottleneck == payload["main_bottleneck"]
    for row, size in zip(payload["batch_sizes"], diagnosis.batch_sizes, strict=True):
        assert (size.batch_size, size.verdict) == (row["batch_size"], row["verdict"])
        assert size.roofline_ms == row["floor_ms"]
        assert size.value == row.get("number")
        assert size.shares.compute == row["evidence"]["compute_share"]
        assert size.overhead_ms == row["evidence"]["overhead_ms"]
        assert size.evidence.flops == row["evidence"]["flops"]
        assert len(size.evidence.timed_forwards) == len(row["evidence"].get("timed", ()))
        assert not size.evidence.model_extra


@pytest.mark.parametrize("version", STORED)
def test_suggestions_of_earlier_versions_load(version: str) -> None:
    payload, diagnosis = stored(version)
    wins = [*payload["wins"], *payload.get("further_wins", ())]
    assert len(diagnosis.suggestions) == len(payload["wins"])
    for win, suggestion in zip(wins, diagnosis.all_suggestions, strict=True):
        assert (suggestion.title, suggestion.advice) == (win["title"], win["try"])
        assert (suggestion.saving_ms, suggestion.saving_pct) == (win["win_ms"], win["win_pct"])
        assert suggestion.predicted_speedup == win.get("predicted_speedup")
        bound = win.get("prediction") == "at most"
        assert (suggestion.prediction == "upper-bound") == bound
        assert (suggestion.verification is None) == (win.get("verified") is None)


def test_tried_suggestions_of_version_2_load() -> None:
    payload, diagnosis = stored("2")
    tried = [one.verification for one in diagnosis.all_suggestions if one.verification]
    measured = [one for one in tried if one.reason is None]
    assert measured and all(one.num_rounds and one.measured_speedup for one in measured)
    assert diagnosis.verified_at == payload["verified_at"]


def test_memory_and_saturation_of_version_2_load() -> None:
    payload, diagnosis = stored("2_with_memory_model")
    peak = payload["memory"]["peak"]
    assert diagnosis.peak_memory is not None and diagnosis.saturation is not None
    assert diagnosis.peak_memory.total_mb == peak["total_mb"]
    largest = diagnosis.peak_memory.largest[0]
    assert (largest.size_mb, largest.is_workspace) == (
        peak["largest"][0]["mb"],
        peak["largest"][0]["workspace"],
    )
    assert diagnosis.saturation.verdict_at_largest == payload["verdict_changes"]["to_verdict"]
    assert diagnosis.unavailable["kernels"] == "no GPU was used"


def test_kernels_of_version_2_load(tmp_path: Path) -> None:
    payload, _ = stored("2")
    payload["kernels"] = {
        "steps": 3,
        "kernels": 900,
        "span_ms": 61.5,
        "busy_ms": 41.25,
        "idle_ms": 20.25,
        "idle_by_cause_ms": {
            "host_late": 12.0,
            "synchronisation": 0.0,
            "between_steps": 8.25,
            "other": 0.0,
        },
        "median_gap_us": 1.75,
        "launches": 880,
        "launches_per_s": 14309.0,
        "launch_ms": 9.5,
        "kernel_ms": 42.5,
        "by_category_ms": {"attention": 10.5, "matrix product": 32.0},
    }
    payload["batch_sizes"][0]["verdict"] = "none-near"
    file = tmp_path / "bottlenecks.json"
    file.write_text(json.dumps(payload))
    diagnosis = load_diagnosis(file)
    assert diagnosis.kernels is not None
    assert (diagnosis.kernels.num_kernels, diagnosis.kernels.num_launches) == (900, 880)
    assert diagnosis.kernels.idle_by_cause_ms["host_wait"] == 12.0
    assert diagnosis.batch_sizes[0].verdict == "no-dominant-limit"


def test_a_diagnosis_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "bottlenecks.json"
    diagnosis = make_diagnosis(())
    save_diagnosis(file, diagnosis)
    assert load_diagnosis(file).to_dict() == diagnosis.to_dict()


def test_a_key_of_a_later_version_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "bottlenecks.json"
    file.write_text(json.dumps({**make_diagnosis(()).to_dict(), "added_later": 1}))
    diagnosis = load_diagnosis(file)
    assert diagnosis.model_extra == {"added_later": 1}


def test_a_diagnosis_without_verdicts_is_refused(tmp_path: Path) -> None:
    payload = make_diagnosis(()).to_dict()
    del payload["batch_sizes"]
    file = tmp_path / "bottlenecks.json"
    file.write_text(json.dumps(payload))
    with pytest.raises(UserError, match="batch_sizes"):
        load_diagnosis(file)


def test_copies_of_earlier_ceilings_become_rates() -> None:
    written = make_ceilings().to_dict()
    earlier = {name: value for name, value in written.items() if name != "copy_rates"}
    earlier["copy_points"] = [[1024, 1e10]]
    assert convert_ceilings(earlier) == written


@pytest.mark.parametrize("version", STORED)
def test_written_files_fit_the_committed_json_schema(version: str, tmp_path: Path) -> None:
    _, earlier = stored(version)
    file = tmp_path / "bottlenecks.json"
    save_diagnosis(file, earlier.model_copy(update={"schema_version": DIAGNOSIS_VERSION}))
    schema = json.loads((SCHEMA_FOLDER / "bottlenecks.schema.json").read_text())
    jsonschema.validate(json.loads(file.read_text()), schema)
