"""The six answers hold the files' figures."""

from __future__ import annotations

from tests.reporting.conftest import Make
from utils.reporting.answers import answer_lines, six_answers

WORDS = ("latency", "optimal batch size", "throughput", "memory", "bottleneck", "accuracy")


def test_the_six_questions_in_the_order_of_the_success_criteria(make: Make) -> None:
    questions = [question.lower() for question, _, _ in six_answers(make())]
    assert len(questions) == 6
    assert all(word in question for word, question in zip(WORDS, questions, strict=True))


def test_answers_equal_the_files(make: Make) -> None:
    results = make(gpu=True, oom=(64,))
    latency, optimal, throughput, memory, bottleneck, accuracy = (
        answer for _, answer, _ in six_answers(results)
    )
    best = max(row["throughput_samples_per_sec_mean"] for row in results.sweep.measured)
    assert "9.08 ms" in latency and "5,000 rows" in latency
    assert optimal.startswith("32 (")
    assert f"{best:.1f} samples/s at batch size 32" in throughput
    assert memory == "1,976.1 MB; peak 3,210.5 MB"
    assert results.diagnosis is not None and bottleneck == results.diagnosis["main_bottleneck"]
    assert accuracy.startswith("0.9207 (95% interval 0.9131 to 0.9278)")


def test_on_the_cpu_memory_is_the_resident_one_and_said_so(make: Make) -> None:
    _, answer, where = six_answers(make())[3]
    assert answer == "912.7 MB resident on the CPU; no GPU was used"
    assert where.endswith("cpu_mem_used")


def test_what_was_not_measured_says_why(make: Make) -> None:
    answers = [
        answer
        for _, answer, _ in six_answers(make(dummy=True, step_03=False, sizes=(1, 2), oom=(1, 2)))
    ]
    assert "no batch size" in answers[1] and "no batch size" in answers[2]
    assert "scripts/03_detailed_profiling.py" in answers[4]
    assert "random" in answers[5]


def test_lines_for_the_terminal_fit_it(make: Make) -> None:
    lines = answer_lines(make())
    assert max(map(len, lines)) <= 100
    assert sum("see " in line for line in lines) == 6
