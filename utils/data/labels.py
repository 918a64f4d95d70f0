"""Which number stands for which label: the model's own numbers wherever it has any."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.core.artifacts import read_json
from utils.core.errors import DataError

SHOWN = 8
STEP_01 = "python scripts/01_download_data.py"
MISSING_ID = -1  # of a row without a label: predicted, and left out of accuracy
UNKNOWN_ID = -2  # of a row with a label that the model does not know, where such rows are skipped


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelLabels:
    """The outputs of a classifier, as its configuration describes them.

    Args:
        names: label names in the order of their ids; None where the configuration has only LABEL_0, LABEL_1 and so on.
        num_labels: how many outputs the model has; ``len(names)`` where there are names.
        source: which key of the configuration the names come from: ``id2label`` or ``label2id``; None without names.
    """

    names: tuple[str, ...] | None
    num_labels: int
    source: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelMapping:
    """Label names in the order of their ids."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise DataError("Two labels have the same name.", fix="give each label id a name of its own")

    @property
    def label2id(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def to_json(self) -> dict[str, Any]:
        """The payload of ``label_mappings.json``."""
        id2label = {str(i): name for i, name in enumerate(self.names)}
        return {"label2id": self.label2id, "id2label": id2label, "num_labels": len(self.names)}


def read_mapping_file(path: Path) -> LabelMapping:
    """Read ``label_mappings.json``.

    Raises:
        UserError: missing or no JSON.
        DataError: ids that are not 0 to n-1, or parts that contradict each other.
    """
    payload = read_json(path, made_by=STEP_01)
    try:
        mapping = LabelMapping(names=tuple(payload["id2label"][str(i)] for i in range(len(payload["id2label"]))))
    except (KeyError, TypeError) as error:
        raise DataError("The label mappings are damaged.", where=path, fix=f"make it anew: {STEP_01}") from error
    if not mapping.to_json().items() <= payload.items():
        raise DataError("The label mappings contradict each other.", where=path, fix=f"make it anew: {STEP_01}")
    return mapping


def decide_mapping(
    dataset_labels: Iterable[str], model: ModelLabels, *, skip_unknown: bool = False
) -> tuple[LabelMapping, str, tuple[str, ...]]:
    """Choose the label ids.

    Args:
        dataset_labels: the labels of the data set, as text; a Counter says how many rows have each.
        model: what the model calls its outputs.
        skip_unknown: leave labels that the model does not know to ``UNKNOWN_ID``, as long as it knows some.

    Returns:
        The mapping, its source (``model``, ``sorted`` or ``ids``), and warnings.

    Raises:
        DataError: names that match only partly, or label counts that differ.
    """
    rows = Counter(dataset_labels)
    labels = set(rows)
    if not labels:
        raise DataError("The data set has no labels.", fix="name the right column: --set dataset.label_column=NAME")
    if model.names is None:
        names = tuple(sorted(labels, key=_natural))
        warning = ("the model has no label names of its own (LABEL_0, ...): ids follow the sorted names of the data set; "
                   "accuracy is right only if the model was trained with the same order")
        return LabelMapping(names=names), "sorted", (warning,)
    names = model.names
    if labels <= set(names):
        unused = len(names) - len(labels)
        unseen = (f"{unused} of the model's {len(names)} labels do not occur in the data set",) if unused else ()
        return LabelMapping(names=names), "model", unseen
    if not labels & set(names) and labels <= {str(i) for i in range(len(names))}:
        warning = "the data set's labels are numbers: they are taken for the model's label ids"
        return LabelMapping(names=names), "ids", (warning,)
    unknown = sorted(((count, name) for name, count in rows.items() if name not in names), key=lambda item: (-item[0], item[1]))
    total = sum(count for count, _ in unknown)
    counted = _some([f"{name!r} ({count:,})" for count, name in unknown])
    if skip_unknown and labels & set(names):
        said = f"{total:,} rows have a label that the model does not know, and are skipped: {counted}"
        return LabelMapping(names=names), "model", (said,)
    raise DataError(
        f"The data set has {len(labels)} labels, the model {len(names)}; {len(labels & set(names))} names agree.\n"
        f"  only in the data set, {total:,} rows: {counted}\n"
        f"  only in the model: {_some([repr(name) for name in sorted(set(names) - labels)])}",
        where="dataset.label_column",
        fix="use the model that was fine-tuned on this data set, rename the labels so that they agree, or leave those "
        "rows out of accuracy with --set evaluation.unknown_labels=skip",
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more


def _natural(name: str) -> tuple[int, int, str]:
    """Numbers by value, before names; LABEL_10 after LABEL_2, as the model's ids have it."""
    number = re.fullmatch(r"(?:LABEL_)?([0-9]+)", name)
    return (0, int(number[1]), name) if number else (1, 0, name)
