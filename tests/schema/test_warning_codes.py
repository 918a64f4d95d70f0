"""A warning is its code and a sentence; files of earlier versions have sentences without one."""

from __future__ import annotations

from utils.schema.warning_codes import WarningCode, code_of, sentence_of


def test_a_warning_begins_with_its_code() -> None:
    warning = WarningCode.FEW_RUNS.warn("there are 3 runs: too few")
    assert warning == "few-runs: there are 3 runs: too few"
    assert code_of(warning) is WarningCode.FEW_RUNS
    assert sentence_of(warning) == "there are 3 runs: too few"


def test_a_warning_of_an_earlier_version_has_no_code() -> None:
    for warning in ("CPU starved: 80%", "accuracy: no labels", "7 rows have no label", ""):
        assert code_of(warning) is None
        assert sentence_of(warning) == warning
