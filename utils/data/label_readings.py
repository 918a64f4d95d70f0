"""How the text of a label can be read: as a name, as a number, or as the model's id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

GENERIC_LABEL = re.compile(r"LABEL_([0-9]{1,18})")


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


def name_among(label: str, names: Mapping[str, object]) -> str | None:
    """The label, or the label without its decimal point (3 for ``3.0``), if it is among names."""
    if label in names:
        return label
    number = integer_of(label)
    if number is not None and str(number) in names:
        return str(number)
    return None


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
