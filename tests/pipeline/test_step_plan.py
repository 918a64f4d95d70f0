"""What a resumed run takes over, and what it runs again, before anything runs."""

from __future__ import annotations

from utils.pipeline.step_plan import MAY_CHANGE, Decision, resume_text
from utils.pipeline.steps import get_step


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
        "Resume: 1 of 4 steps are taken over (01); "
        "1 to run, which replace earlier results of theirs (02); "
        "2 to run if an earlier step changes what it reads (03, 04)."
    )


def test_a_step_left_out_by_its_flag_is_not_taken_over() -> None:
    left_out = Decision(
        step=get_step("01"), is_due=False, reason="--skip-download", is_skipped_by_flag=True
    )
    kept = [decision(number, is_due=False) for number in ("02", "03", "04")]
    assert resume_text([left_out, *kept]) == ("Resume: 3 of 4 steps are taken over (02, 03, 04).")
