"""What a resumed run takes over, and what it runs again, before anything runs."""

from __future__ import annotations

from utils.pipeline.step_plan import MAY_CHANGE, Decision, resume_text
from utils.pipeline.steps import NEVER_FINISHED, get_step


def decision(number: str, *, is_due: bool, reason: str = "changed") -> Decision:
    return Decision(step=get_step(number), is_due=is_due, reason=reason)


def test_steps_are_counted_by_what_happens_to_them() -> None:
    plan = [
        decision("01", is_due=False),
        decision("02", is_due=True),
        decision("03", is_due=True, reason=MAY_CHANGE),
        decision("04", is_due=True, reason=MAY_CHANGE),
    ]
    assert resume_text(plan) == (
        "Resume: taking over 1 of 4 steps (01). To run again, in place of earlier results: 02. "
        "To run only if their input changes then: 03, 04."
    )


def test_a_step_that_has_not_finished_replaces_nothing() -> None:
    plan = [
        decision("01", is_due=False),
        decision("02", is_due=True),
        decision("03", is_due=True, reason=NEVER_FINISHED),
    ]
    assert resume_text(plan) == (
        "Resume: taking over 1 of 3 steps (01). To run: 03. "
        "To run again, in place of earlier results: 02."
    )


def test_a_step_left_out_by_its_flag_is_not_taken_over() -> None:
    left_out = Decision(
        step=get_step("01"), is_due=False, reason="--skip-download", is_skipped_by_flag=True
    )
    kept = [decision(number, is_due=False) for number in ("02", "03", "04")]
    assert resume_text([left_out, *kept]) == "Resume: taking over 3 of 4 steps (02, 03, 04)."
