"""The six answers have the values of the files."""

from __future__ import annotations

from tests.reporting.conftest import MakeResults
from utils.reporting.answers import answer_lines, six_answers

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
    fastest = max(results.sweep.values("throughput_samples_per_sec_mean").values())
    assert "9.08 ms" in latency
    assert "5,000 rows" in latency
    assert optimal.startswith("32 (")
    assert f"{fastest:.1f} samples/s at batch size 32" in throughput
    assert memory == "1,976.1 MB; peak 3,210.5 MB"
    assert bottleneck == "compute-bound: 62% of the time is at the matrix ceiling."
    assert accuracy.startswith("0.9207 (95% interval 0.9131 to 0.9278)")


def test_batch_sizes_that_are_as_fast_as_the_best_are_named(make_results: MakeResults) -> None:
    optimal = {"tied_with": [16, 32, 64]}
    results = make_results(sections={"optimal_batch_size": optimal})
    assert six_answers(results)[1].answer.endswith("; statistically tied with 16, 32")


def test_on_the_cpu_the_memory_is_the_resident_memory(make_results: MakeResults) -> None:
    memory = six_answers(make_results())[3]
    assert memory.answer == "912.7 MB resident on the CPU; no GPU was used"
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


def test_lines_for_the_terminal_have_at_most_100_columns(make_results: MakeResults) -> None:
    lines = answer_lines(make_results())
    assert max(len(line) for line in lines) <= 100
    assert sum("see " in line for line in lines) == 6
