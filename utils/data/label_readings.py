"""How the text of a label can be read: as a name, as a number, or as the model's id."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

GENERIC_LABEL = re.compile(r"LABEL_([0-9]{1,18})")
TRUTH_VALUES = ("true", "false")


def integer_of(label: str) -> int | None:
    """The integer that a label is, or None.

    pandas writes ids in a column with gaps as ``3.0``, so that this is an integer too.
    """
    match = re.fullmatch(r"\s*([+-]?[0-9]{1,18})(?:\.0*)?\s*", label)
    if match is None:
        return None
    return int(match[1])


def is_decimal(label: str) -> bool:
    return bool(re.fullmatch(r"\s*[+-]?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?\s*", label.lower()))


def numbers_of(labels: Iterable[str]) -> dict[str, int] | None:
    """The number of each label if every label is an integer, or every label a ``LABEL_i``.

    None for other labels.
    """
    occurring = set(labels)
    plain: dict[str, int] = {}
    generic: dict[str, int] = {}
    for label in occurring:
        number = integer_of(label)
        if number is not None:
            plain[label] = number
        match = GENERIC_LABEL.fullmatch(label)
        if match:
            generic[label] = int(match[1])
    for numbers in (plain, generic):
        if occurring and len(numbers) == len(occurring):
            return dict(sorted(numbers.items(), key=lambda item: item[1]))
    return None


def ids_in_range(labels: Iterable[str], num_labels: int) -> dict[str, int] | None:
    """The numbers of ``numbers_of`` if they are all from 0 to ``num_labels - 1``, else None."""
    numbers = numbers_of(labels)
    if numbers is None:
        return None
    if all(0 <= number < num_labels for number in numbers.values()):
        return numbers
    return None


def match_names(labels: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """The name of each label that has one among ``names``.

    A label that is not a name itself has the name that is the same number or truth value: 3 for
    ``3.0``, ``03`` for 3, because other programs have read it as a number, and ``true`` for
    ``True``. Several such names leave it without one.
    """
    known = set(names)
    by_value: dict[int | str, list[str]] = {}
    for name in known:
        value = _value_of(name)
        if value is not None:
            by_value.setdefault(value, []).append(name)
    matches: dict[str, str] = {}
    for label in labels:
        if label in known:
            matches[label] = label
            continue
        value = _value_of(label)
        candidates = [] if value is None else by_value.get(value, [])
        if len(candidates) == 1:
            matches[label] = candidates[0]
    return matches


def _value_of(text: str) -> int | str | None:
    """The integer or the truth value that a text is, or None."""
    number = integer_of(text)
    if number is not None:
        return number
    lowered = text.lower()
    return lowered if lowered in TRUTH_VALUES else None


def match_numbers_in_names(labels: Iterable[str], names: tuple[str, ...]) -> dict[str, str] | None:
    """The name that contains each label's number, as ``2 stars`` contains that of 2.

    None unless every name contains one number of its own, and every label is one of them.
    """
    by_number: dict[int, str] = {}
    for name in names:
        integers = re.findall(r"[0-9]{1,18}", name)
        if len(integers) == 1:
            by_number[int(integers[0])] = name
    if len(by_number) < len(names):
        return None
    matches: dict[str, str] = {}
    for label in labels:
        number = integer_of(label)
        if number not in by_number:
            return None
        matches[label] = by_number[number]
    return matches


def spelling_of(name: str) -> str:
    """The name without what spellings differ in.

    That is case, spaces, underscores, hyphens, and how Unicode composes letters with accents.
    """
    composed = unicodedata.normalize("NFKC", name)
    return re.sub(r"[\s_-]+", "", composed).casefold()


def label_map_key(label: str) -> str:
    """The label as ``dataset.label_map`` names it: a number without its decimal point."""
    number = integer_of(label)
    if number is None:
        return label
    return str(number)


def label_map_by_ids(ids: Mapping[str, int], names: tuple[str, ...]) -> dict[str, str]:
    """The ``dataset.label_map`` that takes the labels as these ids of the model."""
    ordered = sorted(ids.items(), key=lambda item: item[1])
    return {label_map_key(label): names[number] for label, number in ordered}


def are_positions(class_names: tuple[str, ...]) -> bool:
    """Whether the class names are only their own ids: 0, 1, 2 and so on."""
    return all(name == str(number) for number, name in enumerate(class_names))
