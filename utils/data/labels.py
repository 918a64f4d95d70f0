"""The labels of a model and of the prepared data set, and the file of the label mappings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.core.errors import DataError
from utils.core.files import read_json

STEP_01 = "python scripts/01_download_data.py"
MISSING_ID = -1
"""The id of a row without a label: it is predicted, and left out of accuracy."""
UNKNOWN_ID = -2
"""The id of a row whose label the model does not have, where such rows are skipped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelLabels:
    """The outputs of a classifier, as its configuration describes them.

    Args:
        names: label names in the order of their ids; None where the configuration has only LABEL_0,
            LABEL_1 and so on.
        num_labels: how many outputs the model has; ``len(names)`` where there are names.
        source: which key of the configuration the names come from: ``id2label`` or ``label2id``;
            None without names.
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
            raise DataError(
                "Two labels have the same name.", fix="give each label id a name of its own"
            )

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
        UserError: the file is missing or no JSON.
        DataError: the ids are not 0 to n-1, or the parts of the file contradict each other.
    """
    payload = read_json(path, made_by=STEP_01)
    fix = f"make it again: {STEP_01}"
    try:
        id2label = payload["id2label"]
        mapping = LabelMapping(names=tuple(id2label[str(i)] for i in range(len(id2label))))
    except (KeyError, TypeError) as error:
        raise DataError("The label mappings are damaged.", where=path, fix=fix) from error
    if not mapping.to_json().items() <= payload.items():
        raise DataError("The label mappings contradict each other.", where=path, fix=fix)
    return mapping
