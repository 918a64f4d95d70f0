"""Suggestions are ranked by what was measured, then by what is known, then by what may be."""

from __future__ import annotations

from dataclasses import replace

from tests.reporting.conftest import MakeResults
from utils.reporting.page.blocks import Grid, Text
from utils.reporting.page.diagnosis_sections import suggestion_section
from utils.reporting.page.trials import first_suggestion, ranked_suggestions, trials_block
from utils.reporting.results import Results
from utils.schema.diagnosis import Suggestion, Verification

MEASURED_COMMAND = (
    "python /project/scripts/02_baseline_inference.py --config 'my configs/a.yaml' "
    "--log-level INFO --set model.device=cpu --set=profiling.seed=3"
)


def make_suggestion(
    title: str,
    *,
    prediction: str = "estimate",
    saving_ms: float = 10.0,
    setting: str | None = None,
    speedup: float | None = None,
    ci95: tuple[float, float] | None = None,
) -> Suggestion:
    verification = None
    if speedup is not None:
        verification = Verification(measured_speedup=speedup, ci95=ci95)
    return Suggestion.model_validate(
        {
            "title": title,
            "cause": "a cause",
            "saving_ms": saving_ms,
            "saving_pct": saving_ms,
            "prediction": prediction,
            "advice": f"do {title}",
            "setting": setting,
            "evidence": "evidence",
            "predicted_speedup": 1.5,
            "verification": verification,
        }
    )


def with_suggestions(results: Results, *suggestions: Suggestion) -> Results:
    assert results.diagnosis is not None
    changes = {"suggestions": suggestions, "further_suggestions": ()}
    return replace(results, diagnosis=results.diagnosis.model_copy(update=changes))


def test_suggestions_are_ranked_by_what_is_known_of_them(make_results: MakeResults) -> None:
    results = with_suggestions(
        make_results(),
        make_suggestion("bound", prediction="upper-bound", saving_ms=90.0),
        make_suggestion("in vain", speedup=1.02, ci95=(0.98, 1.06)),
        make_suggestion("estimate", saving_ms=5.0),
        make_suggestion("measured", speedup=1.4, ci95=(1.3, 1.5)),
        make_suggestion("measured more", speedup=1.9, ci95=(1.8, 2.0)),
    )
    titles = [item.title for item in ranked_suggestions(results)]
    assert titles == ["measured more", "measured", "estimate", "bound", "in vain"]
    first = first_suggestion(results)
    assert first is not None
    assert first.title == "measured more"


def test_what_rests_on_too_few_calls_comes_after_what_does_not(make_results: MakeResults) -> None:
    rough = make_suggestion("rough", saving_ms=90.0).model_copy(update={"caution": "few calls"})
    results = with_suggestions(make_results(), rough, make_suggestion("estimate", saving_ms=5.0))
    assert [item.title for item in ranked_suggestions(results)] == ["estimate", "rough"]


def test_what_was_tried_in_vain_is_not_named_first(make_results: MakeResults) -> None:
    vain = make_suggestion("in vain", speedup=0.9, ci95=(0.8, 1.0))
    assert first_suggestion(with_suggestions(make_results(), vain)) is None


def test_the_command_has_the_flags_of_the_measured_run(make_results: MakeResults) -> None:
    results = make_results(sections={"run": {"command": MEASURED_COMMAND}})
    suggestion = make_suggestion("half", setting="model.dtype=bfloat16")
    block = trials_block(with_suggestions(results, suggestion))
    assert block is not None
    (trial,) = block.trials
    assert trial.command == (
        "python scripts/06_measure_change.py --config 'my configs/a.yaml' --both model.device=cpu "
        "--both profiling.seed=3 --set model.dtype=bfloat16"
    )


def test_a_setting_of_the_evaluation_is_measured_on_it(make_results: MakeResults) -> None:
    suggestion = make_suggestion("compile", setting="evaluation.compile=true")
    block = trials_block(with_suggestions(make_results(), suggestion))
    assert block is not None
    command = block.trials[0].command
    assert command is not None
    assert command.endswith("--set evaluation.compile=true --evaluate")


def test_a_suggestion_without_a_setting_has_no_command(make_results: MakeResults) -> None:
    block = trials_block(with_suggestions(make_results(), make_suggestion("prefetch")))
    assert block is not None
    assert block.trials[0].command is None
    assert block.trials[0].measured == "not tried"


def test_a_damaged_command_gives_no_flags(make_results: MakeResults) -> None:
    results = make_results(sections={"run": {"command": "python --config 'open quote"}})
    suggestion = make_suggestion("half", setting="model.dtype=bfloat16")
    block = trials_block(with_suggestions(results, suggestion))
    assert block is not None
    assert (
        block.trials[0].command == "python scripts/06_measure_change.py --set model.dtype=bfloat16"
    )


def test_what_is_set_already_comes_last_and_has_no_command(make_results: MakeResults) -> None:
    results = with_suggestions(
        make_results(),
        make_suggestion("group", setting="evaluation.batching=token_budget", saving_ms=90.0),
        make_suggestion("half", setting="model.dtype=bfloat16", saving_ms=5.0),
    )
    block = trials_block(results)
    assert block is not None
    assert [trial.title for trial in block.trials] == ["half", "group"]
    assert block.trials[1].command is None
    assert block.trials[1].measured.startswith("already set")
    first = first_suggestion(results)
    assert first is not None
    assert first.title == "half"


def test_settings_of_the_users_choice_have_a_table(make_results: MakeResults) -> None:
    results = make_results()
    assert results.diagnosis is not None
    tried = (
        Verification(
            setting="model.dtype=bfloat16",
            measured_speedup=1.5,
            ci95=(1.4, 1.6),
            label_agreement=0.998,
        ),
        Verification(setting="profiling.batch_sizes=[512]", reason="it does not fit"),
    )
    diagnosis = results.diagnosis.model_copy(update={"tried_settings": tried})
    blocks = suggestion_section(replace(results, diagnosis=diagnosis)).blocks
    (grid,) = (block for block in blocks if isinstance(block, Grid))
    assert grid.table.rows == (
        (
            "model.dtype=bfloat16",
            "1.50 times as fast (95% interval 1.40 to 1.60); 99.8% of the labels equal",
        ),
        ("profiling.batch_sizes=[512]", "not tried: it does not fit"),
    )


def test_what_the_settings_do_already_is_said(make_results: MakeResults) -> None:
    results = with_suggestions(make_results())
    assert results.diagnosis is not None
    applied = {"applied": ("Texts are grouped; measured: 2.00 times as fast.",)}
    diagnosis = results.diagnosis.model_copy(update=applied)
    blocks = suggestion_section(replace(results, diagnosis=diagnosis)).blocks
    texts = [block.text for block in blocks if isinstance(block, Text)]
    assert texts == [
        "The diagnosis has no suggestion that saves at least 1% of a batch.",
        "Not suggested, because the settings do it already: Texts are grouped; measured: 2.00 "
        "times as fast.",
    ]


def test_a_rough_saving_says_why(make_results: MakeResults) -> None:
    suggestion = make_suggestion("rough").model_copy(update={"caution": "two calls a batch"})
    block = trials_block(with_suggestions(make_results(), suggestion))
    assert block is not None
    assert block.trials[0].predicted.endswith("; rough: two calls a batch")
