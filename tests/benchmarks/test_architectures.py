"""The table of architectures: real processes and models, and faults that must be noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from benchmarks import architectures
from benchmarks.small_models import classifiers, comparison
from benchmarks.small_models.comparison import (
    NOT_BUILDABLE,
    RIGHT,
    WRONG,
    ProgramPredictions,
    difference,
)
from utils.core.files import PROJECT_ROOT

OPTIONS = architectures.Options(workers=2, timeout_s=60.0, disturb=False)


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/architectures.py", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def table_rows(file: Path) -> dict[str, list[str]]:
    """The cells of each row of the page, by model type."""
    rows = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] not in ("class", "---"):
            rows[cells[1]] = cells
    return rows


@pytest.mark.slow
def test_common_architectures_of_each_kind_are_right(tmp_path: Path) -> None:
    file = tmp_path / "models.md"
    done = run_command("--only", ",".join(architectures.QUICK), "--write", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = table_rows(file)
    assert sorted(rows) == sorted(architectures.QUICK)
    assert {cells[2] for cells in rows.values()} == {RIGHT}
    assert rows["bert"][0] == "BertForSequenceClassification"
    assert "tokenizer: XLNet" in rows["xlnet"][3]
    assert "10 rows: 10 right, 0 refused, 0 not buildable, 0 WRONG" in file.read_text()


@pytest.mark.slow
def test_disturbed_batches_are_wrong_and_end_with_exit_code_1() -> None:
    done = run_command("--only", "bert,gpt2", "--disturb")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count(f"{WRONG}: sweep: ") == 2
    assert done.stdout.count("evaluation: ") == 2
    assert "2 rows: 0 right, 0 refused, 0 not buildable, 2 WRONG" in done.stdout


def test_every_classifier_of_transformers_has_a_row_and_a_variant_has_the_same_class() -> None:
    types = classifiers.model_types()
    known = set(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
    assert known <= set(types)
    assert {classifiers.base_type(name) for name in types} == known
    assert classifiers.class_name("big_bird:long") == "BigBirdForSequenceClassification"


def test_an_unknown_model_type_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        architectures.main(["--only", "bert,no_such_type"])
    assert ended.value.code == 2
    assert "no classifier of the type no_such_type" in capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        architectures.main(["--help"])
    assert ended.value.code == 0
    assert "python benchmarks/architectures.py --only bert,t5" in capsys.readouterr().out


def test_a_process_that_dies_in_the_program_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(model_type: str, folder: Path, report: Path, *, disturb: bool) -> None:
        comparison.save(
            report, comparison.outcome(model_type, WRONG, "the program's process ended")
        )
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(architectures, "compare", die)
    [result] = architectures.run_all(["bert"], OPTIONS)
    assert result.result == WRONG
    assert result.remark == "the program's process ended (signal SIGKILL)"


def test_a_process_that_hangs_is_stopped_and_touches_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hang_or_finish(model_type: str, folder: Path, report: Path, *, disturb: bool) -> None:
        result = WRONG if model_type == "bert" else RIGHT
        comparison.save(report, comparison.outcome(model_type, result, "as planned"))
        if model_type == "bert":
            signal.pause()

    monkeypatch.setattr(architectures, "compare", hang_or_finish)
    options = architectures.Options(workers=2, timeout_s=2.0, disturb=False)
    hung, finished = architectures.run_all(["bert", "t5"], options)
    assert (hung.result, hung.remark) == (WRONG, "as planned (stopped after 2 s)")
    assert (finished.result, finished.remark) == (RIGHT, "as planned")


def test_a_class_that_reads_no_plain_text_is_not_buildable_with_its_reason(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    comparison.compare("tapas", tmp_path, report)
    result = comparison.load(report)
    assert result.result == NOT_BUILDABLE
    assert "table" in result.remark


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_every_label_occurs_in_the_expected_results(model_type: str, tmp_path: Path) -> None:
    classifiers.build(model_type, tmp_path)
    expected = comparison.ask_transformers(tmp_path, comparison.sample_texts(model_type))
    counts = torch.bincount(expected.argmax(dim=-1), minlength=3)
    assert counts.min() >= 3
    assert float(expected.std(dim=0).min()) > 0.05


def test_a_padded_batch_without_its_mask_would_be_noticed(tmp_path: Path) -> None:
    classifiers.build("bert", tmp_path)
    sample = comparison.sample_texts("bert")
    expected = comparison.ask_transformers(tmp_path, sample)
    model = comparison.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokenizer = comparison.AutoTokenizer.from_pretrained(tmp_path)
    batch = tokenizer(sample, padding=True, truncation=True, max_length=100, return_tensors="pt")
    with torch.no_grad():
        masked = model(**batch).logits.softmax(dim=-1)
        unmasked = model(input_ids=batch["input_ids"]).logits.softmax(dim=-1)
    assert difference(expected, predictions_from(masked)) is None
    assert difference(expected, predictions_from(unmasked)) is not None


def predictions_from(probabilities: torch.Tensor) -> ProgramPredictions:
    best = probabilities.max(dim=-1)
    return ProgramPredictions(
        rows=torch.arange(len(probabilities)).numpy(),
        labels=best.indices.numpy(),
        probabilities=best.values.numpy(),
    )


def test_a_difference_counts_clear_labels_and_probabilities_alone() -> None:
    expected = torch.tensor([[0.6, 0.4], [0.5001, 0.4999]])
    same = torch.tensor([[0.6, 0.4], [0.4999, 0.5001]])
    assert difference(expected, predictions_from(same)) is None
    other_label = torch.tensor([[0.4, 0.6], [0.5001, 0.4999]])
    assert difference(expected, predictions_from(other_label)) == (
        "1 of 2 labels, probabilities by up to 0.2"
    )
    not_a_number = torch.tensor([[float("nan"), float("nan")], [0.5001, 0.4999]])
    assert difference(expected, predictions_from(not_a_number)) is not None
