"""What the prepared data set is made from and where it is: the settings and paths of step 01."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from utils.config_loader import Config
from utils.settings import DatasetConfig, EmbeddedConfig

INFO_NAME = "dataset_info.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSettings:
    """The part of the configuration that decides the prepared data set.

    Args:
        unknown_labels: what happens to labels that the model does not know.
        data_file: the data set that step 01 writes.
        label_mappings_file: beside it.
    """

    dataset: DatasetConfig
    embedded: EmbeddedConfig
    unknown_labels: Literal["error", "skip"]
    data_file: Path
    label_mappings_file: Path

    @classmethod
    def of(cls, config: Config) -> DatasetSettings:
        """The part of ``config`` that decides the data set."""
        return cls(
            dataset=config.dataset,
            embedded=config.embedded,
            unknown_labels=config.evaluation.unknown_labels,
            data_file=config.data_file,
            label_mappings_file=config.label_mappings_file,
        )

    @property
    def info_file(self) -> Path:
        """The record beside the data set."""
        return self.data_file.with_name(INFO_NAME)

    @property
    def output_files(self) -> tuple[Path, Path, Path]:
        """What step 01 writes: the data set, its label mappings and the record."""
        return self.data_file, self.label_mappings_file, self.info_file
