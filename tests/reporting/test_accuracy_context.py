"""What stands beside the accuracy and the model's name, in the text, the page and the answers."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from tests.reporting.conftest import MakeResults
from utils.reporting.answers import six_answers
from utils.reporting.comparison_plot import draw_comparison
from utils.reporting.evaluation_facts import evaluation_lines
from utils.reporting.html_report import render_page
from utils.reporting.results import Results
from utils.reporting.run_facts import model_title
from utils.reporting.text_report import render_text_report

MAJORITY = {"majority_class": "books", "majority_class_accuracy": 0.3412}
MAJORITY_TEXT = "always answering 'books' would reach 0.341"
NOTE = "the model has no label names of its own"
GUESSED = {
    "label_mapping_source": "sorted",
    "label_mapping_confidence": "guessed",
    "label_mapping_note": NOTE,
}
GUESSED_WARNING = "0.921 ONLY IF THE LABEL IDS ARE RIGHT: THEY WERE GUESSED"
ADAPTER = {"adapter": "someone/lora-a", "adapter_mode": "merged"}


def read_outputs(results: Results) -> dict[str, str]:
    """The places where a user reads the accuracy, without line breaks and tags."""
    metrics = results.metrics
    lines = evaluation_lines(metrics)
    page = html.unescape(re.sub(r"<[^>]+>", " ", render_page(results)))
    return {
        "terminal": "\n".join(lines),
        "text": " ".join(render_text_report(results).split()),
        "page": " ".join(page.split()),
    }


def accuracy_answer(results: Results) -> str:
    return six_answers(results)[5].answer


def test_an_accuracy_without_a_majority_class_stands_alone(make_results: MakeResults) -> None:
    results = make_results()
    for place, text in read_outputs(results).items():
        assert "0.921" in text, place
        assert "always answering" not in text, place
        assert "GUESSED" not in text, place
        assert "None" not in text, place
        assert "from the model's own label names" in text, place


def test_the_majority_class_stands_beside_the_accuracy(make_results: MakeResults) -> None:
    results = make_results(sections={"full_dataset_metrics": MAJORITY})
    for place, text in read_outputs(results).items():
        assert MAJORITY_TEXT in text, place
    assert MAJORITY_TEXT in accuracy_answer(results)


def test_guessed_label_ids_are_named_with_the_accuracy(make_results: MakeResults) -> None:
    results = make_results(sections={"dataset_info": GUESSED})
    for place, text in read_outputs(results).items():
        assert GUESSED_WARNING in text, place
        assert f"from the sorted label names of the data set (guessed): {NOTE}" in text, place
    assert accuracy_answer(results).startswith(GUESSED_WARNING)
    assert 'role="alert"' in render_page(results)


@pytest.mark.parametrize("confidence", ["certain", "assumed"])
def test_other_label_ids_are_named_without_an_alarm(
    make_results: MakeResults, confidence: str
) -> None:
    class_label = {
        "label_mapping_source": "class_label",
        "label_mapping_confidence": confidence,
        "label_mapping_note": None,
    }
    expected = f"from the order of the ClassLabel names in the data set ({confidence})"
    results = make_results(sections={"dataset_info": class_label})
    for place, text in read_outputs(results).items():
        assert expected in text, place
        assert "GUESSED" not in text, place
    assert 'role="alert"' not in render_page(results)


def test_without_labels_there_is_neither_accuracy_nor_majority(make_results: MakeResults) -> None:
    evaluation: dict[str, Any] = {
        "accuracy": None,
        "accuracy_ci95_low": None,
        "accuracy_ci95_high": None,
        "f1_macro": None,
        "f1_weighted": None,
        "majority_class": None,
        "majority_class_accuracy": None,
        "num_labelled": 0,
        "num_correct": 0,
        "num_missing_labels": 5000,
    }
    dataset_info = {
        "label_mapping_source": "none",
        "label_mapping_confidence": "none",
        "label_mapping_note": None,
    }
    results = make_results(
        sections={"full_dataset_metrics": evaluation, "dataset_info": dataset_info}
    )
    for place, text in read_outputs(results).items():
        assert "the data set has no labels" in text, place
        assert "always answering" not in text, place
        assert "None" not in text, place


def test_a_multi_label_model_explains_its_probabilities(make_results: MakeResults) -> None:
    results = make_results(sections={"model_info": {"problem_type": "multi_label"}})
    for place, text in read_outputs(results).items():
        assert "sigmoids" in text, place
        assert "the highest one counts as the prediction" in text, place


def test_a_single_label_model_needs_no_explanation(make_results: MakeResults) -> None:
    results = make_results(sections={"model_info": {"problem_type": "single_label"}})
    for place, text in read_outputs(results).items():
        assert "sigmoids" not in text, place


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
    make_results: MakeResults, info: dict[str, Any], title: str
) -> None:
    results = make_results(sections={"model_info": info})
    text = render_text_report(results)
    page = render_page(results)
    assert model_title(results.metrics.model_info) == title
    assert f"\nModel: {title}\n" in text.split("The six answers")[0]
    assert f"{title} (qwen2," in " ".join(text.split())
    assert f"<title>Baseline report: {title}</title>" in page
    assert f"<h1>Baseline of the classifier {title}</h1>" in page
    assert f"{title} (qwen2," in html.unescape(page)
    figure_title = draw_comparison(results).get_suptitle()
    assert figure_title.replace("\n", " ").startswith(f"{title} on cpu, float32")


def test_two_adapters_with_long_paths_have_different_titles(make_results: MakeResults) -> None:
    folder = "/a/very/long/folder" * 8
    titles = set()
    for name in ("run-1", "run-2"):
        info = {"name": folder, "adapter": f"{folder}/{name}"}
        results = make_results(sections={"model_info": info})
        titles.add(model_title(results.metrics.model_info, 60))
    assert len(titles) == 2
    assert max(len(title) for title in titles) <= 2 * 60 + len(", merged into ")


def test_the_format_of_the_weights_is_named(make_results: MakeResults) -> None:
    info = {"weights_format": "pytorch_model.bin", "attn_implementation": "eager"}
    results = make_results(sections={"model_info": info})
    text = " ".join(render_text_report(results).split())
    assert "pretrained weights from pytorch_model.bin" in text
    assert "attention eager" in text


@pytest.mark.parametrize(
    "sections", [{"dataset_info": GUESSED}, {"model_info": {"adapter": "x" * 300}}]
)
def test_no_line_of_the_text_is_wider_than_the_page(
    make_results: MakeResults, sections: dict[str, Any]
) -> None:
    lines = render_text_report(make_results(sections=sections)).splitlines()
    assert max(len(line) for line in lines) <= 100
