"""Which columns of a source hold the texts and the labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from utils.core.errors import DataError
from utils.data.hints import setting_flag
from utils.settings import DatasetConfig

SYNONYMS = {"text": "query", "query": "text", "labels": "label", "label": "labels"}
USUAL_LABEL_NAMES = {
    "intent",
    "intents",
    "category",
    "categories",
    "class",
    "classes",
    "target",
    "targets",
    "sentiment",
    "emotion",
    "emotions",
    "topic",
    "tag",
    "y",
    "gold",
    "answer",
    "stars",
    "star_rating",
    "rating",
    "score",
    "polarity",
    "stance",
    "genre",
    "type",
    "is_duplicate",
    "toxic",
    "spam",
}
USUAL_TEXT_NAMES = {
    "sentence",
    "sentences",
    "content",
    "utterance",
    "review",
    "review_text",
    "review_body",
    "message",
    "tweet",
    "question",
    "title",
    "body",
    "input",
    "inputs",
    "comment",
    "comment_text",
    "document",
    "headline",
    "description",
    "prompt",
}
TEXT_PAIRS = (
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("query", "passage"),
    ("query", "document"),
)
"""Columns of data sets whose models read two texts a row."""
NUMBERED_PAIR = re.compile(r"(.+?)(1|2|a|b)", re.IGNORECASE)
"""Names as in text1 and text2, sentence_A and sentence_B."""
OTHERS = {"1": "2", "2": "1", "a": "b", "b": "a", "A": "B", "B": "A"}
MAX_SHOWN = 20
MAX_NAME = 60
WITHOUT_LABELS = "for data without labels: --set dataset.label_column=null"


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Names of the columns; ``label`` is None where the data set has no labels."""

    text: str
    label: str | None


def choose_columns(names: Sequence[str], settings: DatasetConfig, where: object) -> Columns:
    """Find the configured columns, or their synonyms.

    Raises:
        DataError: there is no such column, it occurs twice, or another one looks like the label
            column.
    """
    text = _present(names, settings.text_column)
    if text is None:
        raise _no_text_column(names, settings.text_column, where)
    label = _choose_label_column(names, settings, where)
    if label == text:
        raise DataError(
            f"The column {text!r} cannot hold both the texts and the labels.",
            where=where,
            fix="--set dataset.label_column=NAME, with another one of its columns",
        )
    for name in (text, label):
        if name is not None and list(names).count(name) > 1:
            raise DataError(
                f"The data set has several columns {name!r}.",
                where=where,
                fix="rename or remove one of them",
            )
    return Columns(text=text, label=label)


def warn_about_other_columns(
    names: Sequence[str], columns: Columns, settings: DatasetConfig
) -> tuple[str, ...]:
    """Warnings if a column that is not read may be meant instead, or as well."""
    warnings = _warn_about_text_pair(names, columns.text)
    is_label_missing = settings.label_column is not None and columns.label is None
    # A single other column is a number of the row; several may be one for each label.
    if is_label_missing and len(names) > 2:
        warnings.append(
            f"the data set has no column {settings.label_column!r}, only {_list(names)}: where one "
            "of these has the labels, name it with --set dataset.label_column=NAME"
        )
    for key, chosen in (("text_column", columns.text), ("label_column", columns.label)):
        configured = getattr(settings, key)
        # Whoever names a column knows the others.
        is_default = configured == DatasetConfig.model_fields[key].default
        synonym = SYNONYMS.get(configured)
        if is_default and chosen == configured and synonym in names:
            warnings.append(
                f"the data set has the columns {chosen!r} and {synonym!r}, and {chosen!r} is read; "
                f"to read the other one: --set dataset.{key}={synonym}"
            )
    return tuple(warnings)


def _warn_about_text_pair(names: Sequence[str], text: str) -> list[str]:
    """A warning if the column of the texts is one of a pair, whose other half is not read."""
    others = [second for first, second in TEXT_PAIRS if first == text]
    others += [first for first, second in TEXT_PAIRS if second == text]
    match = NUMBERED_PAIR.fullmatch(text)
    if match is not None:
        others.append(match[1] + OTHERS[match[2]])
    present = [name for name in others if name in names]
    if not present:
        return []
    return [
        f"the data set has the column {present[0]!r} beside {text!r}, and only {text!r} is read: a "
        "model that was trained on pairs of texts gets half of its input, and its accuracy means "
        "nothing"
    ]


def _choose_label_column(
    names: Sequence[str], settings: DatasetConfig, where: object
) -> str | None:
    configured = settings.label_column
    if configured is None:
        return None
    label = _present(names, configured)
    if label is not None:
        return label
    spaced = _with_spaces(names, configured)
    likely = [name for name in names if looks_like_labels(name) and name != settings.text_column]
    if spaced is not None:
        likely = [spaced]
    if likely:
        raise DataError(
            f"The data set has no column {configured!r}, but {likely[0]!r} looks like its "
            f"labels{_remark_on_spaces(likely[0])}; it has {_list(names)}.",
            where=where,
            fix=f"{setting_flag('dataset.label_column', likely[0])}; {WITHOUT_LABELS}",
        )
    if configured not in ("labels", "label"):
        raise DataError(
            f"The data set has no column {configured!r}; it has {_list(names)}.",
            where=where,
            fix=f"--set dataset.label_column=NAME, with one of those; {WITHOUT_LABELS}",
        )
    return None


def is_configured(name: str, configured: str) -> bool:
    """Whether a column is the configured one, or its synonym."""
    return name in (configured, SYNONYMS.get(configured))


def _with_spaces(names: Sequence[str], configured: str) -> str | None:
    """The column that is the configured one except for spaces around its name, or None."""
    for name in names:
        if name != name.strip() and is_configured(name.strip(), configured):
            return name
    return None


def _remark_on_spaces(name: str) -> str:
    if name == name.strip():
        return ""
    return " (the name has spaces around it)"


def _present(names: Sequence[str], configured: str) -> str | None:
    for name in (configured, SYNONYMS.get(configured)):
        if name in names:
            return name
    return None


def _no_text_column(names: Sequence[str], configured: str, where: object) -> DataError:
    what = f"The data set has no column {configured!r}; it has {_list(names)}."
    spaced = _with_spaces(names, configured)
    likely = [
        name for name in names if name.strip().lower() in USUAL_TEXT_NAMES | {"text", "query"}
    ]
    if spaced is not None:
        likely = [spaced]
    if likely and _remark_on_spaces(likely[0]):
        what = f"{what[:-1]}; the name {likely[0]!r} has spaces around it."
    if likely:
        fix = f"{setting_flag('dataset.text_column', likely[0])}, or another one of those"
    else:
        fix = (
            "--set dataset.text_column=NAME, with one of those; where they are no names, give the "
            "file a first line with the names of its columns"
        )
    return DataError(what, where=where, fix=fix)


def looks_like_labels(name: str) -> bool:
    plain = name.strip().lower()
    return "label" in plain or plain in USUAL_LABEL_NAMES


def _list(names: Sequence[str]) -> str:
    if not names:
        return "none"
    shown = []
    for name in names[:MAX_SHOWN]:
        if len(name) > MAX_NAME:
            name = f"{name[:MAX_NAME]}…"
        shown.append(repr(name))
    text = ", ".join(shown)
    if len(names) > MAX_SHOWN:
        text += f" and {len(names) - MAX_SHOWN} more"
    return text
