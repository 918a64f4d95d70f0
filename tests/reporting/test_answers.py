"""The six answers have the values of the files."""

from __future__ import annotations

from tests.reporting.builders import with_rows
from tests.reporting.conftest import MakeResults
from utils.reporting.answers import answer_lines, six_answers
from utils.reporting.text_report import render_text_report

WORDS = ("latency", "optimal batch size", "throughput", "memory", "bottleneck", "accuracy")


def test_the_six_questions_in_the_order_of_the_success_criteria(make_results: MakeResults) -> None:
    questions = [item.question.lower() for item in six_answers(make_results())]
    assert len(questions) == 6
    for word, question in zip(WORDS, questions, strict=True):
        assert word in question


def test_answers_equal_the_files(make_results: MakeResults) -> None:
    results = make_results(gpu=True, out_of_memory=(64,))
    answers = [item.answer for item in six_answers(results)]
    latency, optimal, throughput, memory, bottleneck, accuracy = answers
    assert "9.08 ms per sample on average in the optimised evaluation of 5,000 texts" in latency
    assert "one text alone takes 24.6 ms (median, batch-size sweep at batch size 1)" in latency
    assert optimal.startswith("32 (")
    assert throughput == (
        "265 samples/s (95% interval 254 to 275) in the batch-size sweep at batch size 32; "
        "110 samples/s in the optimised evaluation of 5,000 texts"
    )
    assert memory == "1,980 MB; peak 3,210 MB"
    assert bottleneck == "compute-bound: 62% of the time is at the matrix ceiling."
    assert accuracy.startswith("0.921 (95% interval 0.913 to 0.928)")


def test_batch_sizes_that_are_as_fast_as_the_best_are_named(make_results: MakeResults) -> None:
    optimal = {"tied_with": [16, 32, 64]}
    results = make_results(sections={"optimal_batch_size": optimal})
    assert six_answers(results)[1].answer.endswith("; statistically tied with 16, 32")


def test_on_the_cpu_the_memory_is_the_resident_memory(make_results: MakeResults) -> None:
    memory = six_answers(make_results())[3]
    assert memory.answer == "913 MB resident on the CPU; no GPU was used"
    assert memory.source.endswith("cpu_mem_used")


def test_an_answer_that_was_not_measured_has_its_reason(make_results: MakeResults) -> None:
    results = make_results(
        dummy_weights=True, has_diagnosis=False, batch_sizes=(1, 2), out_of_memory=(1, 2)
    )
    answers = [item.answer for item in six_answers(results)]
    assert "no batch size" in answers[1]
    assert "no batch size" in answers[2]
    assert "scripts/03_detailed_profiling.py" in answers[4]
    assert "random" in answers[5]


def test_lines_for_the_terminal_have_at_most_80_columns(make_results: MakeResults) -> None:
    lines = answer_lines(make_results())
    assert max(len(line) for line in lines) <= 80
    assert sum("see " in line for line in lines) == 6


def test_the_maximum_throughput_is_the_larger_of_both_roads(make_results: MakeResults) -> None:
    fast = {"full_dataset_metrics": {"throughput_samples_per_sec": 1222.0}}
    throughput = six_answers(make_results(sections=fast))[2].answer
    first, second = throughput.split("; ")
    assert first == "1,220 samples/s in the optimised evaluation of 5,000 texts"
    assert second.endswith("in the batch-size sweep at batch size 64")


def test_with_nothing_stable_the_first_line_says_so(make_results: MakeResults) -> None:
    results = with_rows(make_results(), stable=False, cpu_wait_fraction=0.8)
    expected = "The machine was too busy: threads waited for a CPU in up to 80% of their time"
    assert answer_lines(results)[0].startswith(expected)
    assert render_text_report(results).startswith(expected)
    assert not answer_lines(make_results())[0].startswith("The machine")
