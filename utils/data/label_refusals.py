"""Errors for labels of a data set that do not fit the model, with the setting that decides them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from utils.core.errors import DataError
from utils.data.hints import label_map_flag
from utils.data.label_readings import (
    integer_of,
    is_decimal,
    label_map_by_ids,
    label_map_key,
    numbers_of,
    spelling_of,
)
from utils.data.labels import LabelMapping, ModelLabels

MAX_SHOWN = 8
PLACEHOLDER = "NAME"
UNDECIDED_ID = "LABEL_?"
"""In templates what the user must decide; a template that is pasted unchanged is refused."""
NO_LABEL = ""
"""As a target of ``dataset.label_map``: rows with that label have no label."""
WORDS_FOR_NOTHING = {"nan", "none", "null", "na", "n/a", "<na>", "nat"}
"""What programs write where there is no value, in lower case."""
WITHOUT_LABELS = "measure without accuracy: --set dataset.label_column=null"
OTHER_MODEL = "use the model that was fine-tuned on this data set"


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenLabels:
    """The labels that remain to be decided after ``dataset.label_map``, and what it decided.

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


def label_targets(model: ModelLabels) -> dict[str, int]:
    """What ``dataset.label_map`` may name, with its id."""
    names = model.names or tuple(f"LABEL_{number}" for number in range(model.num_labels))
    return {name: number for number, name in enumerate(names)}


def unknown_labels(labels: OpenLabels, unknown: Counter[str], mapping: LabelMapping) -> DataError:
    """The error for labels that a model with names does not have."""
    names = mapping.names
    nothing_agrees = len(unknown) == len(labels.rows) and not labels.are_scored
    if nothing_agrees and numbers_of(unknown) is not None:
        return ids_out_of_range(labels, ModelLabels(names=names, num_labels=len(names)))
    if nothing_agrees and all(is_decimal(label) for label in unknown):
        return scores(labels)
    spelled = _same_but_for_spelling(unknown, names)
    for label in unknown:
        if label.strip().casefold() in WORDS_FOR_NOTHING:
            spelled[label] = NO_LABEL
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
        what += f"\n  {_how_spelling_differs(spelled)}"
        fix = f"rename them: {label_map_flag({**labels.label_map, **spelled})}"
        return DataError(what, where="dataset.label_column", fix=fix)
    template = dict(labels.label_map)
    for label in unknown:
        template[label] = spelled.get(label, PLACEHOLDER)
    last = WITHOUT_LABELS
    if not nothing_agrees:
        # Skipping is offered only where it works: some label has to agree.
        last = (
            "leave the rows whose label the model does not have out of accuracy: "
            "--set evaluation.unknown_labels=skip"
        )
    fix = (
        f"give each label the name that it has in the model: {label_map_flag(template)}; or "
        f"{OTHER_MODEL}; or {last}"
    )
    return DataError(what, where="dataset.label_column", fix=fix)


def _how_spelling_differs(spelled: Mapping[str, str]) -> str:
    """How the unknown labels differ from the names, or from no label, that they stand for."""
    sentences = []
    if any(name != NO_LABEL for name in spelled.values()):
        sentences.append(
            "They differ only in upper and lower case, spaces, underscores, hyphens, or in how "
            "Unicode composes their letters."
        )
    words = [label for label, name in spelled.items() if name == NO_LABEL]
    if words:
        sentences.append(f'Probably no labels, which is "" below: {list_labels(words)}.')
    return " ".join(sentences)


def names_or_ids(
    labels: OpenLabels,
    matches: Mapping[str, str],
    numbers: Mapping[str, int],
    mapping: LabelMapping,
) -> DataError:
    """The error for numbers that are ids of the model, and that its names may mean as well.

    Args:
        matches: names by label if the labels are names; some may have none.
        numbers: ids by label if the labels are ids.
    """
    names = mapping.names
    unknown = [label for label in labels.rows if label not in matches]
    example = next((label for label in numbers if label in unknown), next(iter(numbers)))
    as_names_text = f"{len(matches)} of {len(labels.rows)} agree"
    if unknown:
        as_names_text += f"; the model has no label {list_labels(unknown)}"
    what = (
        f"The model's label names have numbers ({list_labels(names)}), and the data set's labels "
        "can be read in two ways:\n"
        f"  as label ids, 0 to {len(names) - 1}: all of them fit; {example!r} would be the label "
        f"{names[numbers[example]]!r}\n"
        f"  as label names: {as_names_text}"
    )
    as_ids = {**labels.label_map, **label_map_by_ids(numbers, names)}
    as_names = dict(labels.label_map)
    for label in numbers:
        as_names[label_map_key(label)] = matches.get(label, PLACEHOLDER)
    fix = (
        f"if they are ids: {label_map_flag(as_ids)}; or, if they are names, with a name for each: "
        f"{label_map_flag(as_names)}; or {OTHER_MODEL}"
    )
    return DataError(what, where="dataset.label_column", fix=fix)


def _same_but_for_spelling(labels: Iterable[str], names: tuple[str, ...]) -> dict[str, str]:
    """The model's name of each label that differs from it in spelling only.

    These are differences that ``spelling_of`` leaves out, from exactly one name.
    """
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(spelling_of(name), []).append(name)
    pairs: dict[str, str] = {}
    for label in labels:
        candidates = spellings.get(spelling_of(label), [])
        if len(candidates) == 1:
            pairs[label] = candidates[0]
    return dict(sorted(pairs.items(), key=lambda pair: names.index(pair[1])))


def ids_out_of_range(labels: OpenLabels, model: ModelLabels) -> DataError:
    """The error for numbers, or ``LABEL_i``, that are not the model's ids.

    The suggested setting is complete if the offset between the two is evident.
    """
    by_label = numbers_of(labels.rows) or {}
    numbers = sorted(set(by_label.values()))
    targets = _targets_of_numbers(numbers, model)
    size = model.num_labels
    prefix = "LABEL_"
    if all(integer_of(label) is not None for label in labels.rows):
        prefix = ""
    shown = _shorten([f"{prefix}{number}" for number in numbers])
    ids = f"{prefix}0 to {prefix}{size - 1}"
    if targets is None:
        names = list(label_targets(model))
        template = dict(labels.label_map)
        for label in by_label:
            template[label_map_key(label)] = PLACEHOLDER
        what = (
            "The data set's labels are not all label ids of the model: they are "
            f"{shown}; its ids are {ids}."
        )
        fix = (
            f"give each one its label in the model ({list_labels(names)}): "
            f"{label_map_flag(template)}; or {OTHER_MODEL}; or {WITHOUT_LABELS}"
        )
        return DataError(what, where="dataset.label_column", fix=fix)
    pairs = dict(labels.label_map)
    for label, number in by_label.items():
        if number in targets:
            pairs[label_map_key(label)] = targets[number]
    what = (
        f"The data set's labels are {shown}; the model's label ids are {ids}, so "
        "they are not its ids, and taking them as such would give a wrong accuracy."
    )
    fix = f"if they are the model's labels in the order of its ids: {label_map_flag(pairs)}"
    return DataError(what, where="dataset.label_column", fix=fix)


def _targets_of_numbers(numbers: list[int], model: ModelLabels) -> dict[int, str] | None:
    """The model's label of each number if the order makes it evident, else None."""
    size = model.num_labels
    names = list(label_targets(model))
    if size == 2 and numbers == [-1, 1]:
        return {-1: names[0], 1: names[1]}
    start = None
    if numbers[0] >= 1 and numbers[-1] == size:
        start = 1
    elif numbers[0] == -1 and numbers[-1] == size - 2:
        start = -1
    if start is not None:
        return {number: names[number - start] for number in numbers}
    if len(numbers) == size:
        return dict(zip(numbers, names, strict=True))
    return None


def fix_for_other_count(labels: OpenLabels) -> str:
    template = {**labels.label_map, **dict.fromkeys(sorted(labels.rows), UNDECIDED_ID)}
    return (
        f"give each label its own id: {label_map_flag(template)}, with the right LABEL_i for "
        f"each; or {OTHER_MODEL}; or {WITHOUT_LABELS}"
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
        "there is no accuracy to measure on the data set's "
        f"{len(labels.rows) + len(labels.renamed)} labels.",
        where="model.name",
        fix="use a classifier with one output for each label: --set model.name=NAME",
    )


def scores(labels: OpenLabels) -> DataError:
    return DataError(
        "The data set's labels are decimal numbers, so they are scores and not classes: "
        f"{list_labels(sorted(labels.rows))}.",
        where="dataset.label_column",
        fix=f"name the column of the classes: --set dataset.label_column=NAME; or {WITHOUT_LABELS}",
    )


def list_with_rows(rows: Counter[str]) -> str:
    """The labels with most rows first."""
    ordered = sorted(rows.items(), key=lambda item: (-item[1], item[0]))
    return _shorten([f"{label!r} ({count:,})" for label, count in ordered])


def list_labels(names: Iterable[str]) -> str:
    return _shorten([repr(name) for name in names])


def _shorten(items: list[str]) -> str:
    if not items:
        return "none"
    shown = ", ".join(items[:MAX_SHOWN])
    if len(items) > MAX_SHOWN:
        shown += f" and {len(items) - MAX_SHOWN} more"
    return shown
