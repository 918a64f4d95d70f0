"""The suggestions as a ranked table: what is predicted, what was measured, and how to try."""

from __future__ import annotations

import shlex

import yaml

from utils.diagnosis import headline
from utils.reporting import roads
from utils.reporting.commands import flags_of_command
from utils.reporting.formatting import DASH, format_number, format_percent, speedup_text
from utils.reporting.page.blocks import Trial, Trials
from utils.reporting.results import Results
from utils.reporting.tables import Table
from utils.schema.diagnosis import Diagnosis, Suggestion, Verification

SHARED_SETTING_FLAG = "--both"
"""How ``06_measure_change.py`` calls a setting that both sides share."""


def ranked_suggestions(results: Results) -> list[Suggestion]:
    """All suggestions in the order in which they are worth a try.

    The order is that of the diagnosis (``headline.rank``), so that page and text name the same
    first suggestion. What is set already comes last.
    """
    if results.diagnosis is None:
        return []

    def rank(suggestion: Suggestion) -> tuple[bool, int, float]:
        return (is_set(results, suggestion), *headline.rank(suggestion))

    return sorted(results.diagnosis.all_suggestions, key=rank)


def is_set(results: Results, suggestion: Suggestion) -> bool:
    """Whether the measured run had the setting of a suggestion already."""
    key, equals, value = (suggestion.setting or "").partition("=")
    section, _, name = key.partition(".")
    settings = results.metrics.config.get(section, {})
    if not equals or name not in settings:
        return False
    try:
        suggested = yaml.safe_load(value)
    except yaml.YAMLError:
        return False
    return bool(settings[name] == suggested)


def is_faster(suggestion: Suggestion) -> bool:
    """Whether trying it has shown a speed-up that is more than chance."""
    verification = suggestion.verification
    return verification is not None and headline.is_faster(verification)


def _was_tried(suggestion: Suggestion) -> bool:
    verification = suggestion.verification
    return verification is not None and verification.measured_speedup is not None


def first_suggestion(results: Results) -> Suggestion | None:
    """What to try first; None where nothing is suggested that was not tried in vain or is set."""
    for suggestion in ranked_suggestions(results):
        in_vain = _was_tried(suggestion) and not is_faster(suggestion)
        if in_vain or is_set(results, suggestion):
            continue
        return suggestion
    return None


def trials_block(results: Results) -> Trials | None:
    """All suggestions of the diagnosis; None where it has none."""
    diagnosis = results.diagnosis
    if diagnosis is None or not diagnosis.all_suggestions:
        return None
    trials = []
    for rank, suggestion in enumerate(ranked_suggestions(results), start=1):
        trials.append(_trial(rank, results, suggestion))
    note = "The savings overlap: they do not add up."
    if roads.is_noisy(results):
        note += (
            " The times are not stable, so that the predictions are rough: measure again before "
            "you try any of them."
        )
    return Trials(
        caption=(
            f"What to try at batch size {diagnosis.detail_batch_size}: what was measured to be "
            "faster first, then what is known to be saved, then what may be saved at most"
        ),
        trials=tuple(trials),
        note=note,
    )


def tried_settings_table(diagnosis: Diagnosis) -> Table | None:
    """What ``--verify KEY=VALUE`` showed; None where no setting was tried."""
    if not diagnosis.tried_settings:
        return None
    rows = []
    for tried in diagnosis.tried_settings:
        rows.append((tried.setting or DASH, _outcome(tried)))
    return Table(
        caption=(
            f"Settings of your choice at batch size {diagnosis.detail_batch_size} (--verify): "
            "nothing was predicted for them"
        ),
        header=("Setting", "Measured"),
        num_text_columns=2,
        rows=tuple(rows),
    )


def _trial(rank: int, results: Results, suggestion: Suggestion) -> Trial:
    command = None
    measured = measured_text(suggestion)
    if is_set(results, suggestion):
        measured = "already set in this run"
    elif suggestion.setting is not None and "=" in suggestion.setting:
        command = _command(results.metrics.run.command, suggestion.setting)
    predicted = prediction_text(suggestion)
    if suggestion.caution is not None:
        predicted += f"; rough: {suggestion.caution}"
    return Trial(
        rank=rank,
        title=suggestion.title,
        why=f"{suggestion.cause}: {suggestion.evidence}",
        advice=suggestion.advice,
        predicted=predicted,
        measured=measured,
        command=command,
    )


def _command(measured_by: str, setting: str) -> str:
    """What measures a setting and the present ones in turn, with the flags of the measured run."""
    shared_flags = flags_of_command(measured_by, SHARED_SETTING_FLAG)
    words = ["python scripts/06_measure_change.py"]
    if shared_flags:
        words.append(shared_flags)
    words.append(f"--set {shlex.quote(setting)}")
    if setting.startswith("evaluation."):
        # The sweep alone does not use these settings.
        words.append("--evaluate")
    return " ".join(words)


def prediction_text(suggestion: Suggestion) -> str:
    """What a suggestion is predicted to bring."""
    saving = format_number(suggestion.saving_ms, "ms")
    share = f"{suggestion.saving_pct:.0f}% of a batch"
    bound = "at most" if suggestion.prediction == "upper-bound" else "about"
    if suggestion.predicted_speedup is None:
        return f"saves {bound} {saving}, {share}"
    speedup = speedup_text(suggestion.predicted_speedup)
    return f"{bound} {speedup}: saves {bound} {saving}, {share}"


def measured_text(suggestion: Suggestion) -> str:
    """What trying it has shown."""
    if suggestion.verification is None:
        return "not tried"
    return _outcome(suggestion.verification)


def _outcome(verification: Verification) -> str:
    if verification.measured_speedup is None:
        return f"not tried: {verification.reason}"
    text = speedup_text(verification.measured_speedup, verification.ci95)
    if verification.label_agreement is not None:
        text += f"; {format_percent(verification.label_agreement)} of the labels equal"
    return text
