"""What an evaluation runs over, and how: the settings and paths that its parts need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from utils.config_loader import Config
from utils.settings import EvaluationConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationPlan:
    """The data set, its labels, the settings, and where samples of the GPU go.

    Args:
        max_length: tokens at which a text is truncated.
        seed: of the sample for the comparisons.
    """

    settings: EvaluationConfig
    data_file: Path
    label_mappings_file: Path
    max_length: int
    seed: int
    gpu_sample_interval_s: float
    gpu_timeline: Path

    @property
    def configured_limit(self) -> int | Literal["auto"]:
        """What a batch may hold: tokens, or rows where batches keep the data set's order."""
        if self.settings.batching == "dataset_order":
            return self.settings.batch_size
        return self.settings.max_tokens_per_batch


def plan_evaluation(config: Config) -> EvaluationPlan:
    """The part of the configuration that the evaluation needs."""
    return EvaluationPlan(
        settings=config.evaluation,
        data_file=config.data_file,
        label_mappings_file=config.label_mappings_file,
        max_length=config.profiling.max_length,
        seed=config.profiling.seed,
        gpu_sample_interval_s=config.profiling.gpu_sample_interval_ms / 1000,
        gpu_timeline=config.files.gpu_timeline,
    )
