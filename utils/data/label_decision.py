"""Decides which label id each label of a data set has, and how certain that is.

A wrong decision gives a wrong accuracy without any other sign, so what is not certain causes a
warning, and what is probably wrong is refused with the setting that decides it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from utils.core.errors import DataError
from utils.data.hints import label_map_flag
from utils.data.label_readings import (
    are_positions,
    ids_in_range,
    integer_of,
    is_decimal,
    label_map_by_ids,
    match_names,
    match_numbers_in_names,
    numbers_of,
)
from utils.data.label_refusals import (
    NO_LABEL,
    OpenLabels,
    fix_for_other_count,
    ids_out_of_range,
    incomplete_label_map,
    label_targets,
    list_labels,
    list_with_rows,
    names_or_ids,
    one_output,
    scores,
    unknown_labels,
)
from utils.data.labels import MISSING_ID, UNKNOWN_ID, LabelMapping, ModelLabels
from utils.schema.warning_codes import WarningCode, with_code

Confidence = Literal["certain", "assumed", "guessed", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelDecision:
    """Which label id each label of a data set has.

    Args:
        mapping: label names in the order of their ids.
        ids: id of every label that occurs in the data set, by its text there; ``MISSING_ID`` if
            that text means "no label", ``UNKNOWN_ID`` if the model does not have it and such rows
            are skipped.
        source: ``model`` (names agree), ``label_map``, ``ids`` (the data set's numbers),
            ``class_label`` (the order of the data set's class names), ``sorted`` (alphabetical
            order) or ``none`` (no labels).
        confidence: ``certain``, ``assumed`` (usual, but it cannot be checked), ``guessed`` (may
            well be wrong) or ``none``.
        note: one sentence that describes the decision.
        warnings: what the user should know or check.
    """

    mapping: LabelMapping
    ids: Mapping[str, int]
    source: str
    confidence: Confidence
    note: str
    warnings: tuple[str, ...] = ()


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
        class_names: the data set's ClassLabel names in the order of their ids; the labels are these
            names then.
        label_map: ``dataset.label_map``.
        skip_unknown: give labels that the model does not have ``UNKNOWN_ID``, as long as it has
            some.

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
        raise one_output(labels)
    elif model.names is not None:
        decision = _with_model_names(labels, model.names, class_names, skip_unknown)
    else:
        decision = _without_model_names(labels, model.num_labels, class_names, skip_unknown)
    ids = {**labels.renamed, **decision.ids}
    warnings += decision.warnings
    return replace(decision, ids=ids, warnings=with_code(WarningCode.LABELS, warnings))


def _apply_label_map(
    rows: Counter[str], model: ModelLabels, label_map: Mapping[str, str]
) -> tuple[OpenLabels, tuple[str, ...]]:
    """Split the labels into those that ``dataset.label_map`` names and the rest."""
    targets = {**label_targets(model), NO_LABEL: MISSING_ID}
    wrong = [target for target in label_map.values() if target not in targets]
    if wrong:
        raise DataError(
            f"dataset.label_map names labels that the model does not have: {list_labels(wrong)}.",
            where="dataset.label_map",
            fix=f"use the model's labels: {list_labels(label_targets(model))}",
        )
    keys = match_names(rows, label_map)
    used = set(keys.values())
    renamed = {label: targets[label_map[key]] for label, key in keys.items()}
    rest = Counter({label: count for label, count in rows.items() if label not in renamed})
    unused = [key for key in label_map if key not in used]
    warnings: tuple[str, ...] = ()
    if unused:
        warnings = (
            "dataset.label_map names labels that do not occur in the data set: "
            f"{list_labels(unused)}",
        )
    return OpenLabels(rows=rest, renamed=renamed, label_map=label_map), warnings


def _take_minus_one_as_missing(
    labels: OpenLabels, model: ModelLabels
) -> tuple[OpenLabels, tuple[str, ...]]:
    """Take the id -1 as "no label", as in GLUE's test splits.

    Not if the ids evidently begin at -1.
    """
    minus_one = [label for label in labels.rows if integer_of(label) == -1]
    numbers = {integer_of(label) for label in labels.rows}
    if not minus_one or None in numbers or "-1" in (model.names or ()):
        return labels, ()
    ids = {number for number in numbers if number is not None}
    size = model.num_labels
    if size > 1 and (ids == set(range(-1, size - 1)) or (size == 2 and ids == {-1, 1})):
        raise ids_out_of_range(labels, model)
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
        note="Accuracy and F1 are not measured.",
        warnings=(warning,),
    )


def _with_model_names(
    labels: OpenLabels,
    names: tuple[str, ...],
    class_names: tuple[str, ...] | None,
    skip_unknown: bool,
) -> LabelDecision:
    mapping = LabelMapping(names=names)
    matches = match_names(labels.rows, names)
    ids = {label: mapping.label2id[name] for label, name in matches.items()}
    unknown = Counter({label: count for label, count in labels.rows.items() if label not in ids})
    numbers = ids_in_range(labels.rows, len(names))
    if not unknown:
        decision = _names_agree(labels, mapping, ids)
        are_names = class_names is not None and not are_positions(class_names)
        if numbers is None or numbers == ids or are_names:
            return decision
        return _warn_about_ids(decision, labels, numbers)
    if numbers is not None:
        if ids:
            # Skipping the labels without a name would measure a wrong accuracy where they are ids.
            raise names_or_ids(labels, matches, numbers, mapping)
        in_names = match_numbers_in_names(labels.rows, names)
        if in_names is not None and any(in_names[n] != names[i] for n, i in numbers.items()):
            raise names_or_ids(labels, in_names, numbers, mapping)
        return _numbers_are_ids(mapping, numbers)
    if skip_unknown and (ids or labels.are_scored):
        total = sum(unknown.values())
        warning = (
            f"{total:,} rows have a label that the model does not know, and are skipped: "
            f"{list_with_rows(unknown)}"
        )
        skipped = {**ids, **dict.fromkeys(unknown, UNKNOWN_ID)}
        return replace(_names_agree(labels, mapping, skipped), warnings=(warning,))
    raise unknown_labels(labels, unknown, mapping)


def _warn_about_ids(
    decision: LabelDecision, labels: OpenLabels, numbers: dict[str, int]
) -> LabelDecision:
    """Warn that the labels are valid ids too, and would be other labels as ids."""
    names = decision.mapping.names
    setting = label_map_flag({**labels.label_map, **label_map_by_ids(numbers, names)})
    warning = (
        "the data set's labels are numbers that are both label names and label ids of the model: "
        "they are taken as its names, and accuracy is wrong if they are its ids. If they are its "
        f"ids: {setting}"
    )
    return replace(decision, confidence="assumed", warnings=(*decision.warnings, warning))


def _names_agree(labels: OpenLabels, mapping: LabelMapping, ids: dict[str, int]) -> LabelDecision:
    occurring = {*ids.values(), *labels.renamed.values()} - {MISSING_ID, UNKNOWN_ID}
    unused = len(mapping.names) - len(occurring)
    warnings: tuple[str, ...] = ()
    if unused:
        warnings = (
            f"{unused} of the model's {len(mapping.names)} labels do not occur in the data set",
        )
    source = "model"
    if labels.are_scored:
        source = "label_map"
    return LabelDecision(
        mapping=mapping,
        ids=ids,
        source=source,
        confidence="certain",
        note=_note_on_names(labels, ids),
        warnings=warnings,
    )


def _note_on_names(labels: OpenLabels, ids: dict[str, int]) -> str:
    """What was decided; without the source, which the report names just before the note."""
    total = len(labels.rows) + len(labels.renamed)
    if labels.are_scored:
        return f"dataset.label_map names {len(labels.renamed)} of the {total} labels."
    known = sum(number != UNKNOWN_ID for number in ids.values())
    if known == total == 1:
        return "The only label in the data set occurs in the model."
    if known == total:
        return f"All {total} labels in the data set occur in the model."
    return f"{known} of the {total} labels in the data set occur in the model."


def _numbers_are_ids(mapping: LabelMapping, numbers: dict[str, int]) -> LabelDecision:
    warnings = ["the data set's labels are numbers: they are taken as the model's label ids"]
    if 0 not in numbers.values():
        warnings.append(
            "the label 0 does not occur: if the data set's ids begin at 1, name each one's label "
            "with dataset.label_map"
        )
    return LabelDecision(
        mapping=mapping,
        ids=numbers,
        source="ids",
        confidence="assumed",
        note=f"The labels in the data set lie within 0 to {len(mapping.names) - 1}.",
        warnings=tuple(warnings),
    )


def _without_model_names(
    labels: OpenLabels, num_labels: int, class_names: tuple[str, ...] | None, skip_unknown: bool
) -> LabelDecision:
    generic = tuple(f"LABEL_{number}" for number in range(num_labels))
    names = LabelMapping(names=generic)
    if all(label in generic for label in labels.rows):
        return _names_agree(labels, names, {label: names.label2id[label] for label in labels.rows})
    if class_names is not None and not are_positions(class_names):
        return _order_of_class_names(labels, class_names, num_labels)
    numbers = ids_in_range(labels.rows, num_labels)
    if numbers is not None:
        return _numbers_are_ids(LabelMapping(names=tuple(map(str, range(num_labels)))), numbers)
    if labels.are_scored and skip_unknown:
        total = sum(labels.rows.values())
        warning = (
            f"{total:,} rows have a label that dataset.label_map does not name, and are skipped"
        )
        skipped = dict.fromkeys(labels.rows, UNKNOWN_ID)
        return replace(_names_agree(labels, names, skipped), warnings=(warning,))
    return _alphabetical_order(labels, ModelLabels(names=None, num_labels=num_labels))


def _order_of_class_names(
    labels: OpenLabels, class_names: tuple[str, ...], num_labels: int
) -> LabelDecision:
    if labels.renamed:
        raise incomplete_label_map(labels)
    if len(class_names) != num_labels:
        raise DataError(
            f"The data set has {len(class_names)} class names, the model {num_labels} labels "
            f"without names: {list_labels(class_names)}.",
            where="dataset.label_column",
            fix=fix_for_other_count(labels),
        )
    positions = {name: number for number, name in enumerate(class_names)}
    warning = (
        "the model has no label names (LABEL_0, …): the order of the data set's class names is "
        "taken as the order of its ids"
    )
    return LabelDecision(
        mapping=LabelMapping(names=class_names),
        ids={label: positions[label] for label in labels.rows},
        source="class_label",
        confidence="assumed",
        note=f"The model has no label names and {num_labels} labels, the data set as many.",
        warnings=(warning,),
    )


def _alphabetical_order(labels: OpenLabels, model: ModelLabels) -> LabelDecision:
    """The last resort.

    It is right if the model was trained with sorted names, as scikit-learn and pandas number them.
    """
    if labels.are_scored:
        raise incomplete_label_map(labels)
    if numbers_of(labels.rows) is not None:
        raise ids_out_of_range(labels, model)
    if all(is_decimal(label) for label in labels.rows):
        raise scores(labels)
    if len(labels.rows) != model.num_labels:
        raise DataError(
            f"The data set has {len(labels.rows)} labels, the model {model.num_labels} without "
            f"names (LABEL_0, …): {list_labels(sorted(labels.rows))}.",
            where="dataset.label_column",
            fix=fix_for_other_count(labels),
        )
    names = tuple(sorted(labels.rows))
    setting = label_map_flag({name: f"LABEL_{number}" for number, name in enumerate(names)})
    warning = (
        "the model has no label names (LABEL_0, …): that the ids follow the alphabetical order of "
        "the data set's labels is a guess, and accuracy is meaningless if it is wrong. Confirm or "
        f"correct the order with {setting}"
    )
    return LabelDecision(
        mapping=LabelMapping(names=names),
        ids={name: number for number, name in enumerate(names)},
        source="sorted",
        confidence="guessed",
        note=f"The model has no label names and {len(names)} labels, the data set as many.",
        warnings=(warning,),
    )
