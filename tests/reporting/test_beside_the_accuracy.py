"""What stands beside the accuracy and the model's name, in the text, the page and the answers."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from tests.reporting.conftest import Make
from utils.reporting.answers import six_answers
from utils.reporting.evaluation_facts import evaluation_lines
from utils.reporting.facts import model_title
from utils.reporting.html import page
from utils.reporting.plots import comparison
from utils.reporting.results import Results
from utils.reporting.text import summary_report

MAJORITY = {"majority_class": "books", "majority_class_accuracy": 0.3412}
NOTE = "the model has no label names of its own"
GUESSED = {
    "label_mapping_source": "sorted",
    "label_mapping_confidence": "guessed",
    "label_mapping_note": NOTE,
}
ADAPTER = {"adapter": "someone/lora-a", "adapter_mode": "merged"}


def shown(results: Results) -> dict[str, str]:
    """The places where a user reads the accuracy, without line breaks and tags."""
    metrics = results.metrics
    lines = evaluation_lines(
        dict(metrics["full_dataset_metrics"]), metrics["model_info"], metrics["dataset_info"]
    )
    text = " ".join(summary_report(results).split())
    plain = html.unescape(re.sub(r"<[^>]+>", " ", page(results, ())))
    return {"terminal": "\n".join(lines), "text": text, "page": " ".join(plain.split())}


def test_files_of_earlier_versions_say_nothing_of_it(make: Make) -> None:
    results = make()
    assert not {"majority_class", "label_mapping_confidence"} & {
        *results.metrics["full_dataset_metrics"],
        *results.metrics["dataset_info"],
    }
    for where, text in shown(results).items():
        assert "0.9207" in text, where
        assert "always answering" not in text and "GUESSED" not in text and "None" not in text, (
            where
        )
        assert "from the model's own label names" in text, where


def test_the_majority_class_stands_beside_the_accuracy(make: Make) -> None:
    results = make(sections={"full_dataset_metrics": MAJORITY})
    for where, text in shown(results).items():
        assert "always answering 'books' would reach 0.3412" in text, where
    assert "always answering 'books' would reach 0.3412" in six_answers(results)[5][1]


def test_guessed_label_ids_are_in_the_accuracy_itself(make: Make) -> None:
    results = make(sections={"dataset_info": GUESSED})
    warning = "0.9207 ONLY IF THE LABEL IDS ARE RIGHT: THEY WERE GUESSED"
    for where, text in shown(results).items():
        assert warning in text, where
        assert f"from the sorted label names of the data set (guessed): {NOTE}" in text, where
    assert six_answers(results)[5][1].startswith(warning)
    assert 'role="alert"' in page(results, ())


def test_sorted_names_of_earlier_versions_were_a_guess(make: Make) -> None:
    results = make(sections={"dataset_info": {"label_mapping_source": "sorted"}})
    for where, text in shown(results).items():
        assert "THEY WERE GUESSED" in text, where


@pytest.mark.parametrize("confidence", ["certain", "assumed"])
def test_other_label_ids_are_named_without_an_alarm(make: Make, confidence: str) -> None:
    decided = {
        "label_mapping_source": "class_label",
        "label_mapping_confidence": confidence,
        "label_mapping_note": None,
    }
    results = make(sections={"dataset_info": decided})
    for where, text in shown(results).items():
        assert f"from the order of the ClassLabel names in the data set ({confidence})" in text, (
            where
        )
        assert "GUESSED" not in text, where
    assert 'role="alert"' not in page(results, ())


def test_without_labels_there_is_neither_accuracy_nor_majority(make: Make) -> None:
    none = dict.fromkeys(
        (
            "accuracy",
            "accuracy_ci95_low",
            "accuracy_ci95_high",
            "f1_macro",
            "f1_weighted",
            *MAJORITY,
        )
    )
    unlabelled = {
        "label_mapping_source": "none",
        "label_mapping_confidence": "none",
        "label_mapping_note": None,
    }
    counts = {"num_labelled": 0, "num_correct": 0, "num_missing_labels": 5000}
    results = make(
        sections={"full_dataset_metrics": {**none, **counts}, "dataset_info": unlabelled}
    )
    for where, text in shown(results).items():
        assert "the data set has no labels" in text, where
        assert "always answering" not in text and "None" not in text, where


def test_a_multi_label_model_says_what_its_probabilities_are(make: Make) -> None:
    multi = make(sections={"model_info": {"problem_type": "multi_label"}})
    single = make(sections={"model_info": {"problem_type": "single_label"}})
    for where, text in shown(multi).items():
        assert "sigmoids" in text and "the highest one counts as the prediction" in text, where
    for where, text in shown(single).items():
        assert "sigmoids" not in text, where


@pytest.mark.parametrize(
    ("info", "title"),
    [
        ({"adapter": None}, "test/invented-model"),
        ({"adapter": "someone/lora-a"}, "someone/lora-a, merged into test/invented-model"),
        (ADAPTER, "someone/lora-a, merged into test/invented-model"),
        (
            {"adapter": "someone/p-tuning", "adapter_mode": "unmerged"},
            "someone/p-tuning, run unmerged on test/invented-model",
        ),
    ],
)
def test_an_adapter_is_named_wherever_the_model_is(
    make: Make, info: dict[str, Any], title: str
) -> None:
    results = make(sections={"model_info": info})
    text, written = summary_report(results), page(results, ())
    assert model_title(results.metrics["model_info"]) == title
    assert f"\nModel: {title}\n" in text.split("The six answers")[0]
    assert f"{title} (qwen2," in " ".join(text.split())
    assert f"<title>Baseline report: {title}</title>" in written
    assert f"<h1>Baseline of {title}</h1>" in written
    assert f"{title} (qwen2," in html.unescape(written)
    suptitle = comparison(results).get_suptitle()
    assert suptitle.replace("\n", " ").startswith(f"{title} on cpu, float32")


def test_two_adapters_of_long_paths_have_different_titles() -> None:
    folder = "/a/very/long/folder" * 8
    titles = {
        model_title({"name": folder, "adapter": f"{folder}/{name}"}, 60)
        for name in ("run-1", "run-2")
    }
    assert len(titles) == 2
    assert max(map(len, titles)) <= 2 * 60 + len(", merged into ")


def test_the_format_of_the_weights_is_named(make: Make) -> None:
    results = make(
        sections={
            "model_info": {"weights_format": "pytorch_model.bin", "attn_implementation": "eager"}
        }
    )
    text = " ".join(summary_report(results).split())
    assert "pretrained weights from pytorch_model.bin" in text
    assert "attention eager" in text


@pytest.mark.parametrize(
    "sections", [{"dataset_info": GUESSED}, {"model_info": {"adapter": "x" * 300}}]
)
def test_no_line_of_the_text_is_wider_than_the_page(make: Make, sections: dict[str, Any]) -> None:
    assert max(map(len, summary_report(make(sections=sections)).splitlines())) <= 100
