"""What is known of the batch size that suggestions are made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from utils.config_loader import Config
from utils.diagnosis.evidence import Evidence
from utils.diagnosis.forecast import Forecast
from utils.schema.profile import AttentionUse
from utils.settings import EvaluationConfig, ModelConfig, ProfilingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorGroup:
    """Operators of one kind in one batch: untraced times, times at the ceilings, calls."""

    kind: str
    measured_ms: float
    attainable_ms: float
    calls: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What is known of the batch size that suggestions are made for.

    Args:
        attention: the attention kernels that ran; empty where the trace cannot tell.
        module_ms: own milliseconds by dotted name of the module.
        product_speedups: how many times faster the matrix products are by setting of ``model``.
        forecast: None where the time of other batches cannot be predicted.
        largest_batch: the largest batch size of the sweep.
        too_large: the smallest batch size that ran out of memory; None where none did.
        cpu_threads: PyTorch's, where the model runs on the CPU and so shares it with the tokenizer.
    """

    evidence: Evidence
    groups: Sequence[OperatorGroup] = ()
    attention: Sequence[AttentionUse] = ()
    module_ms: Mapping[str, float] = field(default_factory=dict)
    product_speedups: Mapping[str, float] = field(default_factory=dict)
    forecast: Forecast | None = None
    largest_batch: int = 0
    too_large: int | None = None
    cpu_threads: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PresentSettings:
    """The sections of the settings that suggestions change."""

    model: ModelConfig
    profiling: ProfilingConfig
    evaluation: EvaluationConfig

    @classmethod
    def of(cls, config: Config) -> PresentSettings:
        """The sections of ``config``."""
        return cls(model=config.model, profiling=config.profiling, evaluation=config.evaluation)
