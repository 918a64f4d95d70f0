"""Decides which label id each label of a data set stands for, and says how sure that is.

A wrong decision gives a wrong accuracy without any other sign, so whatever is not certain is warned about, and whatever is
likely to be wrong is refused with the setting that settles it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from utils.core.errors import DataError
from utils.data.hints import label_map_flag
from utils.data.labels import MISSING_ID, UNKNOWN_ID, LabelMapping, ModelLabels

Confidence = Literal["certain", "assumed", "guessed", "none"]
MAX_SHOWN = 8
NO_LABEL = ""
"""As a target of ``dataset.label_map``: rows with that label have no label."""
PLACEHOLDER = "NAME"
UNDECIDED_ID = "LABEL_?"
"""Stands in templates for what the user must decide; a template that is pasted as it is, is refused."""
WITHOUT_LABELS = "measure without accuracy: --set dataset.label_column=null"


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelDecision:
    """Which label id each label of a data set stands for.

    Args:
        mapping: label names in the order of their ids.
        ids: id of every label that occurs in the data set, by its text there; ``MISSING_ID`` where that text means "no
            label", ``UNKNOWN_ID`` where the model does not have it and such rows are skipped.
        source: ``model`` (names agree), ``label_map``, ``ids`` (the data set's numbers), ``class_label`` (the order of the data
            set's class names), ``sorted`` (alphabetical order) or ``none`` (no labels).
        confidence: ``certain``, ``assumed`` (usual, but not checkable), ``guessed`` (may well be wrong) or ``none``.
        note: one sentence that says what was decided.
        warnings: what the user should know or check.
    """

    mapping: LabelMapping
    ids: Mapping[str, int]
    source: str
    confidence: Confidence
    note: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Labels:
    """The labels that are left to decide once ``dataset.label_map`` is applied, and what it decided.

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


def decide_labels(
    label_rows: Mapping[str, int],
    model: ModelLabels,
    *,
    class_names: tuple[str, ...] | None = None,
    label_map: Mapping[str, str] | None = None,
    skip_unknown: bool = False,
) -> LabelDecision:
    """Decide the label ids.

    Args:
        label_rows: number of rows by label, without the rows that have none.
        model: what the model's configuration says about its outputs.
        class_names: the data set's ClassLabel names in the order of their ids; the labels are these names then.
        label_map: ``dataset.label_map``.
        skip_unknown: give labels that the model does not have ``UNKNOWN_ID``, as long as it has some.

    Raises:
        DataError: the labels do not fit the model, or only nearly.
    """
    labels, warnings = _apply_label_map(Counter(label_rows), model, label_map or {})
    if class_names is None:
        labels, more = _take_minus_one_as_missing(labels, model)
        warnings += more
    if not labels.rows and not labels.are_scored:
        decision = _without_labels(model)
    elif model.num_labels == 1:
        raise _one_output(labels)
    elif model.names is not None:
        decision = _with_model_names(labels, model.names, skip_unknown)
    else:
        decision = _without_model_names(labels, model.num_labels, class_names, skip_unknown)
    ids = {**labels.renamed, **decision.ids}
    return replace(decision, ids=ids, warnings=(*warnings, *decision.warnings))


def whole_number(label: str) -> int | None:
    """The number that a label is, also as pandas writes ids in a column with gaps (``3.0``); None for any other label."""
    match = re.fullmatch(r"\s*([+-]?[0-9]{1,18})(?:\.0*)?\s*", label)
    return int(match[1]) if match else None


def _apply_label_map(
    rows: Counter[str], model: ModelLabels, label_map: Mapping[str, str]
) -> tuple[_Labels, tuple[str, ...]]:
    """Split the labels into those that ``dataset.label_map`` names and the rest."""
    targets = _targets(model)
    wrong = [target for target in label_map.values() if target != NO_LABEL and target not in targets]
    if wrong:
        raise DataError(
            f"dataset.label_map names labels that the model does not have: {_list(wrong)}.",
            where="dataset.label_map",
            fix=f"use the model's labels: {_list(targets)}",
        )
    renamed: dict[str, int] = {}
    used: set[str] = set()
    for label in rows:
        key = label if label in label_map else str(whole_number(label))
        if key in label_map:
            used.add(key)
            target = label_map[key]
            renamed[label] = MISSING_ID if target == NO_LABEL else targets[target]
    rest = Counter({label: count for label, count in rows.items() if label not in renamed})
    unused = [key for key in label_map if key not in used]
    warnings: tuple[str, ...] = ()
    if unused:
        warnings = (f"dataset.label_map names labels that do not occur in the data set: {_list(unused)}",)
    return _Labels(rows=rest, renamed=renamed, label_map=label_map), warnings


def _take_minus_one_as_missing(labels: _Labels, model: ModelLabels) -> tuple[_Labels, tuple[str, ...]]:
    """Among ids, -1 means "no label", as in GLUE's test splits; but not where the ids evidently begin at -1."""
    minus_one = [label for label in labels.rows if whole_number(label) == -1]
    numbers = {whole_number(label) for label in labels.rows}
    if not minus_one or None in numbers or "-1" in (model.names or ()):
        return labels, ()
    found = {number for number in numbers if number is not None}
    size = model.num_labels
    if size > 1 and (found == set(range(-1, size - 1)) or (size == 2 and found == {-1, 1})):
        raise _ids_with_offset(labels, model, sorted(found))
    count = sum(labels.rows[label] for label in minus_one)
    rest = Counter({label: rows for label, rows in labels.rows.items() if label not in minus_one})
    renamed = {**labels.renamed, **dict.fromkeys(minus_one, MISSING_ID)}
    warning = f"{count:,} rows have the label -1, which is taken as no label"
    return replace(labels, rows=rest, renamed=renamed), (warning,)


def _without_labels(model: ModelLabels) -> LabelDecision:
    names = model.names or tuple(str(number) for number in range(model.num_labels))
    warning = "the data set has no labels: everything but accuracy and F1 is measured"
    return LabelDecision(
        mapping=LabelMapping(names=names),
        ids={},
        source="none",
        confidence="none",
        note="The data set has no labels, so accuracy is not measured.",
        warnings=(warning,),
    )


def _with_model_names(labels: _Labels, names: tuple[str, ...], skip_unknown: bool) -> LabelDecision:
    mapping = LabelMapping(names=names)
    ids: dict[str, int] = {}
    for label in labels.rows:
        name = label if label in mapping.label2id else str(whole_number(label))
        if name in mapping.label2id:
            ids[label] = mapping.label2id[name]
    unknown = Counter({label: count for label, count in labels.rows.items() if label not in ids})
    if not unknown:
        return _names_agree(labels, mapping, ids)
    if not ids:
        numbers = _ids_in_range(labels.rows, len(names))
        if numbers is not None:
            return _numbers_are_ids(mapping, numbers)
    if skip_unknown and (ids or labels.are_scored):
        total = sum(unknown.values())
        warning = (
            f"{total:,} rows have a label that the model does not know, and are skipped: {_list_with_rows(unknown)}"
        )
        skipped = {**ids, **dict.fromkeys(unknown, UNKNOWN_ID)}
        return replace(_names_agree(labels, mapping, skipped), warnings=(warning,))
    raise _unknown_labels(labels, unknown, mapping)


def _names_agree(labels: _Labels, mapping: LabelMapping, ids: dict[str, int]) -> LabelDecision:
    unused = len(mapping.names) - len({*ids.values(), *labels.renamed.values()} - {MISSING_ID, UNKNOWN_ID})
    warnings: tuple[str, ...] = ()
    if unused:
        warnings = (f"{unused} of the model's {len(mapping.names)} labels do not occur in the data set",)
    source, note = "model", "The data set's labels are the model's own label names."
    if labels.are_scored:
        source, note = "label_map", "dataset.label_map gives the data set's labels the model's names."
    return LabelDecision(
        mapping=mapping, ids=ids, source=source, confidence="certain", note=note, warnings=warnings
    )


def _numbers_are_ids(mapping: LabelMapping, numbers: dict[str, int]) -> LabelDecision:
    warnings = ["the data set's labels are numbers: they are taken as the model's label ids"]
    if 0 not in numbers.values():
        warnings.append(
            "the label 0 does not occur: if the data set's ids begin at 1, name each one's label with dataset.label_map"
        )
    return LabelDecision(
        mapping=mapping,
        ids=numbers,
        source="ids",
        confidence="assumed",
        note="The data set's labels are numbers and are taken as the model's label ids.",
        warnings=tuple(warnings),
    )


def _without_model_names(
    labels: _Labels, num_labels: int, class_names: tuple[str, ...] | None, skip_unknown: bool
) -> LabelDecision:
    generic = tuple(f"LABEL_{number}" for number in range(num_labels))
    names = LabelMapping(names=generic)
    if all(label in generic for label in labels.rows):
        return _names_agree(labels, names, {label: names.label2id[label] for label in labels.rows})
    if class_names is not None and not _are_positions(class_names):
        return _order_of_class_names(labels, class_names, num_labels)
    numbers = _ids_in_range(labels.rows, num_labels)
    if numbers is not None:
        return _numbers_are_ids(LabelMapping(names=tuple(map(str, range(num_labels)))), numbers)
    if labels.are_scored and skip_unknown:
        total = sum(labels.rows.values())
        warning = f"{total:,} rows have a label that dataset.label_map does not name, and are skipped"
        skipped = dict.fromkeys(labels.rows, UNKNOWN_ID)
        return replace(_names_agree(labels, names, skipped), warnings=(warning,))
    return _alphabetical_order(labels, ModelLabels(names=None, num_labels=num_labels))


def _order_of_class_names(labels: _Labels, class_names: tuple[str, ...], num_labels: int) -> LabelDecision:
    if labels.renamed:
        raise _incomplete_label_map(labels)
    if len(class_names) != num_labels:
        raise DataError(
            f"The data set has {len(class_names)} class names, the model {num_labels} labels without names: "
            f"{_list(class_names)}.",
            where="dataset.label_column",
            fix=_fix_for_other_count(labels),
        )
    positions = {name: number for number, name in enumerate(class_names)}
    warning = (
        "the model has no label names (LABEL_0, …): the order of the data set's class names is taken as the order of its ids"
    )
    return LabelDecision(
        mapping=LabelMapping(names=class_names),
        ids={label: positions[label] for label in labels.rows},
        source="class_label",
        confidence="assumed",
        note="The order of the data set's class names is taken as the order of the model's label ids.",
        warnings=(warning,),
    )


def _alphabetical_order(labels: _Labels, model: ModelLabels) -> LabelDecision:
    """The last resort; right where the model was trained with sorted names, as scikit-learn and pandas number them."""
    if labels.are_scored:
        raise _incomplete_label_map(labels)
    numbers = {whole_number(label) for label in labels.rows}
    found = sorted(number for number in numbers if number is not None)
    if None not in numbers:
        raise _ids_with_offset(labels, model, found)
    if all(_is_decimal(label) for label in labels.rows):
        raise _scores(labels)
    if len(labels.rows) != model.num_labels:
        raise DataError(
            f"The data set has {len(labels.rows)} labels, the model {model.num_labels} without names (LABEL_0, …): "
            f"{_list(sorted(labels.rows))}.",
            where="dataset.label_column",
            fix=_fix_for_other_count(labels),
        )
    names = tuple(sorted(labels.rows))
    setting = label_map_flag({name: f"LABEL_{number}" for number, name in enumerate(names)})
    warning = (
        "the model has no label names (LABEL_0, …): that the ids follow the alphabetical order of the data set's labels is a "
        "guess, and accuracy is meaningless if it is wrong. Confirm or correct the order with "
        f"{setting}"
    )
    return LabelDecision(
        mapping=LabelMapping(names=names),
        ids={name: number for number, name in enumerate(names)},
        source="sorted",
        confidence="guessed",
        note="The model has no label names; its ids are guessed to follow the data set's labels in alphabetical order.",
        warnings=(warning,),
    )


def _targets(model: ModelLabels) -> dict[str, int]:
    """What ``dataset.label_map`` may name, with its id."""
    names = model.names or tuple(f"LABEL_{number}" for number in range(model.num_labels))
    return {name: number for number, name in enumerate(names)}


def _ids_in_range(labels: Iterable[str], num_labels: int) -> dict[str, int] | None:
    """Ids by label where every label is a whole number, or every label a LABEL_i, of 0 to num_labels - 1."""
    plain: dict[str, int] = {}
    generic: dict[str, int] = {}
    for label in labels:
        number = whole_number(label)
        if number is not None:
            plain[label] = number
        match = re.fullmatch(r"LABEL_([0-9]+)", label)
        if match:
            generic[label] = int(match[1])
    for ids in (plain, generic):
        complete = len(ids) == len(set(labels))
        if complete and all(0 <= number < num_labels for number in ids.values()):
            return ids
    return None


def _are_positions(class_names: tuple[str, ...]) -> bool:
    """Whether the class names are only their own ids: 0, 1, 2 and so on."""
    return all(name == str(number) for number, name in enumerate(class_names))


def _is_decimal(label: str) -> bool:
    return bool(re.fullmatch(r"\s*[+-]?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?\s*", label.lower()))


def _unknown_labels(labels: _Labels, unknown: Counter[str], mapping: LabelMapping) -> DataError:
    """The refusal of labels that a model with names does not have."""
    names = mapping.names
    numbers = {whole_number(label) for label in unknown}
    nothing_agrees = len(unknown) == len(labels.rows) and not labels.are_scored
    if nothing_agrees and None not in numbers:
        found = sorted(number for number in numbers if number is not None)
        return _ids_with_offset(labels, ModelLabels(names=names, num_labels=len(names)), found)
    if nothing_agrees and all(_is_decimal(label) for label in unknown):
        return _scores(labels)
    spelled = _same_but_for_spelling(unknown, names)
    agreeing = len(labels.rows) - len(unknown)
    total = sum(unknown.values())
    absent = sorted(set(names) - set(labels.rows))
    what = (
        f"The data set has {len(labels.rows)} labels, the model {len(names)}; {agreeing} names agree.\n"
        f"  only in the data set, {total:,} rows: {_list_with_rows(unknown)}\n"
        f"  only in the model: {_list(absent)}"
    )
    if len(spelled) == len(unknown):
        what += "\n  They differ only in upper and lower case, spaces, underscores or hyphens."
        fix = f"rename them: {label_map_flag({**labels.label_map, **spelled})}"
        return DataError(what, where="dataset.label_column", fix=fix)
    template = {**labels.label_map, **{label: spelled.get(label, PLACEHOLDER) for label in unknown}}
    fix = (
        "use the model that was fine-tuned on this data set; or leave these rows out of accuracy with "
        "--set evaluation.unknown_labels=skip; or name the model's label for each one: "
        f"{label_map_flag(template)}; or {WITHOUT_LABELS}"
    )
    return DataError(what, where="dataset.label_column", fix=fix)


def _same_but_for_spelling(labels: Iterable[str], names: tuple[str, ...]) -> dict[str, str]:
    """The model's name of each label that differs from exactly one of them in case, spaces, underscores and hyphens only."""
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(_spelling(name), []).append(name)
    pairs = {label: spellings.get(_spelling(label), []) for label in labels}
    return {label: candidates[0] for label, candidates in pairs.items() if len(candidates) == 1}


def _spelling(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def _ids_with_offset(labels: _Labels, model: ModelLabels, numbers: list[int]) -> DataError:
    """The refusal of numbers that are not the model's ids; the setting is complete where the offset is evident."""
    size = model.num_labels
    names = list(_targets(model))
    where = "dataset.label_column"
    begins_at_one = numbers[0] >= 1 and numbers[-1] == size
    begins_at_minus_one = numbers[0] == -1 and numbers[-1] == size - 2
    if begins_at_one or begins_at_minus_one or (size == 2 and numbers == [-1, 1]):
        start = 1 if begins_at_one else -1
        pairs = {str(number): names[number - start] for number in numbers if number - start < size}
        if size == 2 and numbers == [-1, 1]:
            pairs = {"-1": names[0], "1": names[1]}
        what = (
            f"The data set's labels are the numbers {_list_numbers(numbers)}; the model's label ids are 0 to {size - 1}, so "
            "they are not its ids, and taking them as such would give a wrong accuracy."
        )
        fix = f"if they are the model's labels in the order of its ids: {label_map_flag({**labels.label_map, **pairs})}"
        return DataError(what, where=where, fix=fix)
    what = (
        f"The data set's labels are numbers that the model does not have as label ids: {_list_numbers(numbers)}; "
        f"its ids are 0 to {size - 1}."
    )
    if len(numbers) == size:
        pairs = {str(number): name for number, name in zip(numbers, names, strict=True)}
        fix = f"if they are the model's labels in the order of its ids: {label_map_flag({**labels.label_map, **pairs})}"
    else:
        template = {**labels.label_map, **dict.fromkeys(map(str, numbers), PLACEHOLDER)}
        fix = (
            f"name the model's label for each one ({_list(names)}): {label_map_flag(template)}; "
            f"or use the model that was fine-tuned on this data set; or {WITHOUT_LABELS}"
        )
    return DataError(what, where=where, fix=fix)


def _fix_for_other_count(labels: _Labels) -> str:
    template = {**labels.label_map, **dict.fromkeys(sorted(labels.rows), UNDECIDED_ID)}
    return (
        "use the model that was fine-tuned on this data set; or give each label its own id: "
        f"{label_map_flag(template)}, with the right LABEL_i for each; or {WITHOUT_LABELS}"
    )


def _incomplete_label_map(labels: _Labels) -> DataError:
    template = {**labels.label_map, **dict.fromkeys(sorted(labels.rows), UNDECIDED_ID)}
    return DataError(
        f"dataset.label_map leaves labels out, and the model has no names to find them by: {_list_with_rows(labels.rows)}.",
        where="dataset.label_map",
        fix=f"name all of them: {label_map_flag(template)}, with the right LABEL_i for each",
    )


def _one_output(labels: _Labels) -> DataError:
    return DataError(
        "The model has a single output: it gives a score and does not choose between labels, so there is no accuracy "
        f"to measure on the data set's {len(labels.rows) + len(labels.renamed)} labels.",
        where="model.name",
        fix=f"use a classifier with one output for each label, or {WITHOUT_LABELS}",
    )


def _scores(labels: _Labels) -> DataError:
    return DataError(
        f"The data set's labels are decimal numbers, so they are scores and not classes: {_list(sorted(labels.rows))}.",
        where="dataset.label_column",
        fix=f"name the column that holds the class: --set dataset.label_column=NAME; or {WITHOUT_LABELS}",
    )


def _list_with_rows(rows: Counter[str]) -> str:
    """The labels with most rows first."""
    ordered = sorted(rows.items(), key=lambda item: (-item[1], item[0]))
    return _shorten([f"{label!r} ({count:,})" for label, count in ordered])


def _list(names: Iterable[str]) -> str:
    return _shorten([repr(name) for name in names])


def _list_numbers(numbers: list[int]) -> str:
    return _shorten([str(number) for number in numbers])


def _shorten(items: list[str]) -> str:
    shown = ", ".join(items[:MAX_SHOWN]) or "none"
    more = len(items) - MAX_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
