"""What a diagnosis runs over, and how: the settings and paths of step 03."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from utils.config_loader import Config, with_override
from utils.core.result_files import ResultFiles
from utils.diagnosis.findings import PresentSettings
from utils.settings import EvaluationConfig, ModelConfig, ProfilingConfig

CHANGEABLE_SECTIONS = ("model", "profiling", "evaluation")


@dataclass(frozen=True, kw_only=True, slots=True)
class DiagnosisSettings:
    """The part of the configuration that the diagnosis and its verification need.

    Args:
        sample_size: texts that are measured.
        embedded_model: the folder of the embedded model.
        files: the results of step 02, which are read, and where those of step 03 go.
    """

    model: ModelConfig
    profiling: ProfilingConfig
    evaluation: EvaluationConfig
    sample_size: int
    data_file: Path
    embedded_model: Path
    files: ResultFiles

    @classmethod
    def of(cls, config: Config) -> DiagnosisSettings:
        """The part of ``config`` that the diagnosis needs."""
        return cls(
            model=config.model,
            profiling=config.profiling,
            evaluation=config.evaluation,
            sample_size=config.dataset.sample_sizes[0],
            data_file=config.data_file,
            embedded_model=config.embedded_model_dir,
            files=config.files,
        )

    @property
    def present(self) -> PresentSettings:
        """The sections that suggestions change."""
        return PresentSettings(
            model=self.model, profiling=self.profiling, evaluation=self.evaluation
        )

    def with_override(self, override: str) -> DiagnosisSettings:
        """The same settings except for one ``dotted.key=VALUE`` of a section that suggestions
        change, checked as a file's are.
        """
        assert override.split(".")[0] in CHANGEABLE_SECTIONS, override
        config = Config(model=self.model, profiling=self.profiling, evaluation=self.evaluation)
        changed = with_override(config, override)
        return replace(
            self, model=changed.model, profiling=changed.profiling, evaluation=changed.evaluation
        )
