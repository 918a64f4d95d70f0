"""The labels of a data set that a model does not have: one message each, with the setting that
settles it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from utils.core.errors import DataError
from utils.data.hints import label_map_flag
from utils.data.labels import LabelMapping, ModelLabels

MAX_SHOWN = 8
PLACEHOLDER = "NAME"
UNDECIDED_ID = "LABEL_?"
"""Stands in templates for what the user must decide; a template that is pasted as it is, is
refused."""
WITHOUT_LABELS = "measure without accuracy: --set dataset.label_column=null"


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenLabels:
    """The labels that are left to decide once ``dataset.label_map`` is applied, and what it
    decided.

    Args:
        rows: number of rows by label.
        renamed: ids of the labels that ``dataset.label_map`` names.
        label_map: the setting itself; suggestions add to it.
    """

    rows: Counter[str]
    renamed: dict[str, int]
    label_map: Mapping[str, str]

    @property
    def are_scored(self) -> bool:
        """Whether ``dataset.label_map`` gives at least one label an id of the model."""
        return any(number >= 0 for number in self.renamed.values())


def whole_number(label: str) -> int | None:
    """The number that a label is, also as pandas writes ids in a column with gaps (``3.0``); None
    for any other label."""
    match = re.fullmatch(r"\s*([+-]?[0-9]{1,18})(?:\.0*)?\s*", label)
    return int(match[1]) if match else None


def is_decimal(label: str) -> bool:
    return bool(re.fullmatch(r"\s*[+-]?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?\s*", label.lower()))


def label_targets(model: ModelLabels) -> dict[str, int]:
    """What ``dataset.label_map`` may name, with its id."""
    names = model.names or tuple(f"LABEL_{number}" for number in range(model.num_labels))
    return {name: number for number, name in enumerate(names)}


def unknown_labels(labels: OpenLabels, unknown: Counter[str], mapping: LabelMapping) -> DataError:
    """The refusal of labels that a model with names does not have."""
    names = mapping.names
    numbers = {whole_number(label) for label in unknown}
    nothing_agrees = len(unknown) == len(labels.rows) and not labels.are_scored
    if nothing_agrees and None not in numbers:
        ids = sorted(number for number in numbers if number is not None)
        return ids_out_of_range(labels, ModelLabels(names=names, num_labels=len(names)), ids)
    if nothing_agrees and all(is_decimal(label) for label in unknown):
        return scores(labels)
    spelled = _same_but_for_spelling(unknown, names)
    agreeing = len(labels.rows) - len(unknown)
    total = sum(unknown.values())
    absent = sorted(set(names) - set(labels.rows))
    what = (
        f"The data set has {len(labels.rows)} labels, the model {len(names)}; {agreeing} names "
        "agree.\n"
        f"  only in the data set, {total:,} rows: {list_with_rows(unknown)}\n"
        f"  only in the model: {list_labels(absent)}"
    )
    if len(spelled) == len(unknown):
        what += "\n  They differ only in upper and lower case, spaces, underscores or hyphens."
        fix = f"rename them: {label_map_flag({**labels.label_map, **spelled})}"
        return DataError(what, where="dataset.label_column", fix=fix)
    template = {**labels.label_map, **{label: spelled.get(label, PLACEHOLDER) for label in unknown}}
    fix = (
        "use the model that was fine-tuned on this data set; or leave these rows out of accuracy "
        "with "
        "--set evaluation.unknown_labels=skip; or name the model's label for each one: "
        f"{label_map_flag(template)}; or {WITHOUT_LABELS}"
    )
    return DataError(what, where="dataset.label_column", fix=fix)


def _same_but_for_spelling(labels: Iterable[str], names: tuple[str, ...]) -> dict[str, str]:
    """The model's name of each label that differs from exactly one of them in case, spaces,
    underscores and hyphens only."""
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(_spelling(name), []).append(name)
    pairs: dict[str, str] = {}
    for label in labels:
        candidates = spellings.get(_spelling(label), [])
        if len(candidates) == 1:
            pairs[label] = candidates[0]
    return dict(sorted(pairs.items(), key=lambda pair: names.index(pair[1])))


def _spelling(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def ids_out_of_range(labels: OpenLabels, model: ModelLabels, numbers: list[int]) -> DataError:
    """The refusal of numbers that are not the model's ids; the setting is complete where the offset
    is evident."""
    size = model.num_labels
    names = list(label_targets(model))
    where = "dataset.label_column"
    begins_at_one = numbers[0] >= 1 and numbers[-1] == size
    begins_at_minus_one = numbers[0] == -1 and numbers[-1] == size - 2
    if begins_at_one or begins_at_minus_one or (size == 2 and numbers == [-1, 1]):
        start = 1 if begins_at_one else -1
        pairs = {str(number): names[number - start] for number in numbers if number - start < size}
        if size == 2 and numbers == [-1, 1]:
            pairs = {"-1": names[0], "1": names[1]}
        what = (
            f"The data set's labels are the numbers {_list_numbers(numbers)}; the model's label "
            f"ids are 0 to {size - 1}, so "
            "they are not its ids, and taking them as such would give a wrong accuracy."
        )
        fix = (
            "if they are the model's labels in the order of its ids: "
            f"{label_map_flag({**labels.label_map, **pairs})}"
        )
        return DataError(what, where=where, fix=fix)
    what = (
        "The data set's labels are numbers that the model does not have as label ids: "
        f"{_list_numbers(numbers)}; "
        f"its ids are 0 to {size - 1}."
    )
    if len(numbers) == size:
        pairs = {str(number): name for number, name in zip(numbers, names, strict=True)}
        fix = (
            "if they are the model's labels in the order of its ids: "
            f"{label_map_flag({**labels.label_map, **pairs})}"
        )
    else:
        template = {**labels.label_map, **dict.fromkeys(map(str, numbers), PLACEHOLDER)}
        fix = (
            f"name the model's label for each one ({list_labels(names)}): "
            f"{label_map_flag(template)}; "
            f"or use the model that was fine-tuned on this data set; or {WITHOUT_LABELS}"
        )
    return DataError(what, where=where, fix=fix)


def fix_for_other_count(labels: OpenLabels) -> str:
    template = {**labels.label_map, **dict.fromkeys(sorted(labels.rows), UNDECIDED_ID)}
    return (
        "use the model that was fine-tuned on this data set; or give each label its own id: "
        f"{label_map_flag(template)}, with the right LABEL_i for each; or {WITHOUT_LABELS}"
    )


def incomplete_label_map(labels: OpenLabels) -> DataError:
    template = {**labels.label_map, **dict.fromkeys(sorted(labels.rows), UNDECIDED_ID)}
    return DataError(
        "dataset.label_map leaves labels out, and the model has no names to find them by: "
        f"{list_with_rows(labels.rows)}.",
        where="dataset.label_map",
        fix=f"name all of them: {label_map_flag(template)}, with the right LABEL_i for each",
    )


def one_output(labels: OpenLabels) -> DataError:
    return DataError(
        "The model has a single output: it gives a score and does not choose between labels, so "
        "there is no accuracy "
        f"to measure on the data set's {len(labels.rows) + len(labels.renamed)} labels.",
        where="model.name",
        fix=f"use a classifier with one output for each label, or {WITHOUT_LABELS}",
    )


def scores(labels: OpenLabels) -> DataError:
    return DataError(
        "The data set's labels are decimal numbers, so they are scores and not classes: "
        f"{list_labels(sorted(labels.rows))}.",
        where="dataset.label_column",
        fix="name the column that holds the class: --set dataset.label_column=NAME; or "
        f"{WITHOUT_LABELS}",
    )


def list_with_rows(rows: Counter[str]) -> str:
    """The labels with most rows first."""
    ordered = sorted(rows.items(), key=lambda item: (-item[1], item[0]))
    return _shorten([f"{label!r} ({count:,})" for label, count in ordered])


def list_labels(names: Iterable[str]) -> str:
    return _shorten([repr(name) for name in names])


def _list_numbers(numbers: list[int]) -> str:
    return _shorten([str(number) for number in numbers])


def _shorten(items: list[str]) -> str:
    shown = ", ".join(items[:MAX_SHOWN]) or "none"
    more = len(items) - MAX_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
