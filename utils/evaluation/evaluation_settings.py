"""What an evaluation runs over, and how: the settings and paths that its parts need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from utils.config_loader import Config
from utils.core.result_files import ResultFiles
from utils.settings import EvaluationConfig, ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSettings:
    """The part of the configuration that the evaluation needs. Ray's workers get it, too.

    Args:
        model: the section that names the model; its settings belong to a run's identity.
        embedded_model: the folder of the embedded model.
        text_column: of the source that the data set was made from.
        max_length: tokens at which a text is truncated.
        seed: of the sample for the comparisons.
        files: where predictions, state and the timeline of the GPU go.
    """

    evaluation: EvaluationConfig
    model: ModelConfig
    embedded_model: Path
    data_file: Path
    label_mappings_file: Path
    text_column: str
    max_length: int
    seed: int
    gpu_sample_interval_s: float
    files: ResultFiles

    @classmethod
    def of(cls, config: Config) -> EvaluationSettings:
        """The part of ``config`` that the evaluation needs."""
        return cls(
            evaluation=config.evaluation,
            model=config.model,
            embedded_model=config.embedded_model_dir,
            data_file=config.data_file,
            label_mappings_file=config.label_mappings_file,
            text_column=config.dataset.text_column,
            max_length=config.profiling.max_length,
            seed=config.profiling.seed,
            gpu_sample_interval_s=config.profiling.gpu_sample_interval_ms / 1000,
            files=config.files,
        )

    @property
    def configured_limit(self) -> int | Literal["auto"]:
        """What a batch may hold: tokens, or rows where batches keep the data set's order."""
        if self.evaluation.batching == "dataset_order":
            return self.evaluation.batch_size
        return self.evaluation.max_tokens_per_batch
