"""The six cards and the headline: one number for one thing, with its road and its noise."""

from __future__ import annotations

from dataclasses import replace

from tests.reporting.builders import with_rows
from tests.reporting.conftest import MakeResults
from utils.reporting.page.blocks import Text
from utils.reporting.page.cards import Card, six_cards
from utils.reporting.page.diagnosis_sections import bottleneck_section
from utils.reporting.page.headline import headline
from utils.reporting.results import Results
from utils.reporting.roads import noise_text


def cards_of(results: Results) -> dict[str, Card]:
    names = ("latency", "batch size", "throughput", "memory", "bottleneck", "accuracy")
    return dict(zip(names, six_cards(results), strict=True))


def test_throughput_is_the_larger_of_both_roads(make_results: MakeResults) -> None:
    results = make_results()
    card = cards_of(results)["throughput"]
    sweep = results.sweep.values("throughput_samples_per_sec_mean")
    assert results.evaluation.throughput_samples_per_sec == 110.12
    assert max(sweep.values()) > 110.12
    assert card.details[0].startswith("batch-size sweep, batch size 64")
    assert "110 texts/s in the optimised evaluation" in card.details[1]


def test_a_faster_evaluation_is_the_maximum(make_results: MakeResults) -> None:
    fast = {"full_dataset_metrics": {"throughput_samples_per_sec": 1222.0}}
    card = cards_of(make_results(sections=fast))["throughput"]
    assert (card.value, card.unit) == ("1,220", "texts/s")
    assert card.details[0].startswith("optimised evaluation")
    assert "in the batch-size sweep, batch size 64" in card.details[1]


def test_the_headline_has_the_numbers_of_the_cards(make_results: MakeResults) -> None:
    results = make_results()
    text = headline(results)
    for name in ("latency", "throughput", "accuracy"):
        assert cards_of(results)[name].value in text


def test_a_row_that_is_not_stable_is_marked_with_the_cause(make_results: MakeResults) -> None:
    results = make_results()
    assert cards_of(results)["latency"].mark == ""
    noisy = with_rows(results, stable=False, warnings=("CPU starved: 80%", "spread: 30%"))
    expected = "not stable: threads waited for a CPU, runs differ widely"
    assert cards_of(noisy)["latency"].mark == expected
    assert cards_of(noisy)["batch size"].mark == expected


def test_a_busy_machine_is_named_first(make_results: MakeResults) -> None:
    results = make_results()
    assert noise_text(results) == ""
    noisy = with_rows(results, stable=False, cpu_wait_fraction=0.8)
    assert noise_text(noisy).startswith(
        "The machine was too busy: threads waited for a CPU in up to 80% of their time;"
    )


def test_what_is_predicted_on_a_busy_machine_is_rough(make_results: MakeResults) -> None:
    noisy = with_rows(make_results(), stable=False)
    assert noisy.diagnosis is not None
    untried = noisy.diagnosis.suggestions[2:]
    diagnosis = noisy.diagnosis.model_copy(update={"suggestions": untried})
    text = headline(replace(noisy, diagnosis=diagnosis))
    assert "Measure again first, because no time is stable; then try: " in text
    assert "a rough estimate" in text


def test_what_was_measured_to_be_faster_on_a_busy_machine_is_tried_first(
    make_results: MakeResults,
) -> None:
    text = headline(with_rows(make_results(), stable=False))
    assert "Try first: " in text
    assert "Measure again first" not in text


def test_low_confidence_marks_the_bottleneck(make_results: MakeResults) -> None:
    results = make_results()
    assert results.diagnosis is not None
    items = [
        item.model_copy(update={"confidence": "low"}) for item in results.diagnosis.batch_sizes
    ]
    diagnosis = results.diagnosis.model_copy(update={"batch_sizes": tuple(items)})
    card = cards_of(replace(results, diagnosis=diagnosis))["bottleneck"]
    assert (card.value, card.unit, card.mark) == (
        "compute-bound",
        "at batch size 64",
        "low confidence: another verdict is almost as likely",
    )


def test_a_sure_verdict_says_so_and_what_is_done_about_padding(make_results: MakeResults) -> None:
    results = make_results()
    assert results.diagnosis is not None
    grouped = "The optimised evaluation groups texts of similar length."
    items = [
        item.model_copy(update={"confidence": "high", "padding_fraction": 0.4})
        for item in results.diagnosis.batch_sizes
    ]
    diagnosis = results.diagnosis.model_copy(
        update={"batch_sizes": tuple(items), "applied": (grouped,)}
    )
    details = cards_of(replace(results, diagnosis=diagnosis))["bottleneck"].details
    assert details[0] == "Confidence of this verdict: high."
    assert details[-1] == grouped


def test_the_first_reason_of_low_confidence_stands_in_the_card(make_results: MakeResults) -> None:
    results = make_results()
    assert results.diagnosis is not None
    doubts = {"confidence": "low", "doubts": ("threads waited", "times differ")}
    items = [item.model_copy(update=doubts) for item in results.diagnosis.batch_sizes]
    diagnosis = results.diagnosis.model_copy(update={"batch_sizes": tuple(items)})
    doubtful = replace(results, diagnosis=diagnosis)
    assert cards_of(doubtful)["bottleneck"].mark == "low confidence: threads waited"
    (verdict, *_) = bottleneck_section(doubtful).blocks
    assert isinstance(verdict, Text)
    assert "Confidence: low, because threads waited; times differ." in verdict.text


def test_the_latency_has_the_interval_of_its_average(make_results: MakeResults) -> None:
    results = make_results()
    assert cards_of(results)["latency"].interval == ""
    interval = {
        "latency_per_sample_ms_median_ci95_low": 20.1,
        "latency_per_sample_ms_median_ci95_high": 29.9,
        "latency_per_batch_ms_mad": 0.5,
    }
    card = cards_of(with_rows(results, **interval))["latency"]
    assert card.interval == "average of a run: 25 ms (95% interval 20 to 30)"
    assert card.details[1] == "half of the measured times are at most 0.500 ms from it"


def test_a_batch_of_several_texts_has_no_interval_of_one_text(make_results: MakeResults) -> None:
    interval = {
        "latency_per_sample_ms_median_ci95_low": 20.1,
        "latency_per_sample_ms_median_ci95_high": 29.9,
    }
    results = with_rows(make_results(batch_sizes=(4, 8)), **interval)
    assert cards_of(results)["latency"].interval == ""


def test_what_was_not_measured_says_why(make_results: MakeResults) -> None:
    everything_failed = make_results(
        batch_sizes=(4, 8), out_of_memory=(4, 8), has_diagnosis=False, dummy_weights=True
    )
    cards = cards_of(everything_failed)
    assert cards["batch size"].value == "–"
    assert "no batch size of the sweep finished" in cards["batch size"].details[0]
    assert "no batch size of the sweep finished" in cards["latency"].details[0]
    assert "step 03 has not run" in cards["bottleneck"].details[0]
    assert "the weights are random" in cards["accuracy"].details[0]
    assert "What limits it was not measured" in headline(everything_failed)


def test_guessed_labels_mark_the_accuracy(make_results: MakeResults) -> None:
    guessed = {"dataset_info": {"label_mapping_confidence": "guessed"}}
    card = cards_of(make_results(sections=guessed))["accuracy"]
    assert (card.value, card.unit) == ("92.1", "%")
    assert "guessed" in card.mark


def test_on_a_gpu_memory_is_its_peak(make_results: MakeResults) -> None:
    card = cards_of(make_results(gpu=True))["memory"]
    assert (card.value, card.unit) == ("3,210", "MB")
    assert "peak of the GPU memory" in card.details[0]
